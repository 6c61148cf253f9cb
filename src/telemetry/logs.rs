//! Log lines: where they go and which are shown.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// The spans of single requests are shown only when asked for by name: `info,batchwright_state=info`. What PostgreSQL
/// notices of a migration that has nothing to do is no news. `rmcp` logs session ids and what tools answer.
const ALWAYS: &str = "batchwright_state=off,sqlx=warn,rmcp=off";

/// Sends log lines to standard error. `filter` is in the syntax of `tracing`'s `EnvFilter`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(format!("{ALWAYS},{filter}"))?;
    // Fails only if an embedding program has set its own, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    Ok(())
}
