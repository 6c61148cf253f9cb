//! The program: read the command line, run the command, turn the result into an exit code.

use std::process::ExitCode;

/// Programs that embed the crate choose their own.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Without the feature there are no points, and this does nothing.
    let _failpoints = fail::FailScenario::setup();
    let arguments: Vec<_> = std::env::args_os().collect();
    batchwright::cli::run(&arguments)
}
