//! The program: read the command line, run the command, turn the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    batchwright::cli::run(&arguments)
}
