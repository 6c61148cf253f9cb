//! The program: read the command line, run the command, turn the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    batchwright::cli::run(std::env::args_os().collect())
}
