//! Logs, metrics, and the liveness of the daemon's loops.

mod liveness;
pub mod logs;
pub mod metrics;

pub use liveness::Liveness;

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text
}
