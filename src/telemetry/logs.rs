//! The log: its target and its filter.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Directives below every filter. Spans of single requests must be enabled by name: `info,batchwright_state=info`.
/// PostgreSQL sends a notice for each migration without work. `rmcp` logs session ids and the outputs of tools.
const ALWAYS: &str = "batchwright_state=off,sqlx=warn,rmcp=off";

/// Sends log lines to standard error. `filter` is in the syntax of `tracing`'s `EnvFilter`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(format!("{ALWAYS},{filter}"))?;
    // Fails only if an embedding program has set its own subscriber, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    Ok(())
}
