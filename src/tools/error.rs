//! Why a tool gave no output.

use std::time::Duration;

/// Why a tool gave no output. The text is for the model, and names no address and no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The tool says that it failed.
    #[error("{0}")]
    Failed(String),
    /// The tool was not reached, or the connection broke.
    #[error("The tool could not be reached: {0}.")]
    Unreachable(String),
    /// The tool did not answer in time.
    #[error("The tool did not answer within {}.", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The output is larger than it may be.
    #[error("The tool's output is larger than {limit} bytes; ask it for less.")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// The arguments do not match the tool's schema.
    #[error("The arguments do not match the tool's schema: {0}.")]
    InvalidArguments(String),
    /// It is not to be called.
    #[error("{0}")]
    Refused(String),
}
