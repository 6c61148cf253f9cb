//! Why a call of a tool came to nothing, in words for the model that asked for it.

use std::error::Error;
use std::time::Duration;

use bytesize::ByteSize;

use crate::net::{UrlRefusal, causes, innermost};

/// What became of a call of a tool that has no result. It is shown to the model: it never has URLs, headers or keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The tool itself says so.
    #[error("{0}")]
    Failed(String),
    /// It was not reached, or its answer did not arrive. Whether it has run is not known.
    #[error("The tool could not be reached: {0}.")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("The tool did not answer within {}.", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// Its answer is longer than is taken.
    #[error("The output of the tool is larger than {}.", ByteSize(*limit as u64))]
    TooLarge {
        /// How many bytes are taken.
        limit: usize,
    },
    /// The arguments are not what the tool takes.
    #[error("The arguments of the tool are not valid: {0}")]
    InvalidArguments(String),
    /// The call was not made, because it is not allowed.
    #[error("The tool was not called: {0}.")]
    Refused(String),
}

impl ToolError {
    /// What an HTTP call failed with. Only the innermost cause is told: the outer ones name the URL.
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
