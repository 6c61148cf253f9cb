//! Why a tool call failed, in words for the model that made it.

use std::error::Error;
use std::time::Duration;

use bytesize::ByteSize;

use crate::causes::causes;
use crate::net::{UrlRefusal, innermost};

/// Why a tool call has no result. The model sees the message, so it never has URLs, headers or keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The tool itself reports the failure.
    #[error("{0}")]
    Failed(String),
    /// The tool was not reached, or its answer did not arrive. It may have run.
    #[error("The tool could not be reached: {0}.")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("The tool did not answer within {}.", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The output is longer than the limit.
    #[error("The output of the tool is larger than {}.", ByteSize(*limit as u64))]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The arguments do not match the tool's schema.
    #[error("The arguments of the tool are not valid: {0}")]
    InvalidArguments(String),
    /// The call was not made, because it is not allowed.
    #[error("The tool was not called: {0}.")]
    Refused(String),
}

impl ToolError {
    /// The error of an HTTP call. It has only the innermost cause: the outer ones name the URL.
    #[must_use]
    pub fn of_http(error: &(dyn Error + 'static)) -> Self {
        if let Some(refusal) = causes(error).find_map(|cause| cause.downcast_ref::<UrlRefusal>()) {
            return Self::from(*refusal);
        }
        Self::Unreachable(innermost(error))
    }
}

impl From<UrlRefusal> for ToolError {
    fn from(refusal: UrlRefusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_a_sentence() {
        let cases = [
            (ToolError::Unreachable("connection refused".into()), "The tool could not be reached: connection refused."),
            (ToolError::TimedOut(Duration::from_mins(2)), "The tool did not answer within 2m."),
            (ToolError::TooLarge { limit: 1 << 20 }, "The output of the tool is larger than 1.0 MiB."),
            (UrlRefusal::NotPublic.into(), "The tool was not called: its host has no public address."),
        ];

        for (error, sentence) in cases {
            assert_eq!(error.to_string(), sentence);
        }
    }
}
