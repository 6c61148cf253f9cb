//! Logs, metrics, and the liveness of the daemon's loops.

mod liveness;
pub mod logs;
pub mod metrics;

pub use liveness::Liveness;

use crate::causes::causes;

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
