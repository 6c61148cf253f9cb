//! The log: its target and its filter.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Directives below every filter. Spans of single requests must be enabled by name: `info,batchwright_state=info`.
/// PostgreSQL sends a notice for each migration without work. `rmcp` logs session ids and the outputs of tools.
const ALWAYS: &str = "batchwright_state=off,sqlx=warn,rmcp=off";

/// Sends log lines to standard error. `filter` is in the syntax of `tracing`'s `EnvFilter`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    start_with(filter, std::io::stderr)
}

/// Sends log lines to a writer of standard error.
///
/// # Errors
/// What is wrong with the filter.
pub fn start_with<W>(filter: &str, writer: W) -> Result<(), tracing_subscriber::filter::ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(format!("{ALWAYS},{filter}"))?;
    // Fails only if an embedding program has set its own subscriber, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    Ok(())
}
