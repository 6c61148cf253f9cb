//! The program: read the command line, run the command, turn the result into an exit code.

use std::process::ExitCode;

/// Draining allocates some forty times a row; `ARCHITECTURE.md` has what the choice of allocator was measured to give.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    batchwright::cli::run(&arguments)
}
