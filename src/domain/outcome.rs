//! The outcome of a request: an answer, or the reason why there is none.

use std::time::Duration;

use bytes::Bytes;

use super::usage::{AnswerHead, Usage};

/// An HTTP response of an upstream, with any status. Of its headers only two are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The upstream's own id for the request (`x-request-id`), which the result line repeats.
    pub request_id: Option<String>,
    /// The pause that the upstream asks for (`Retry-After`), at most an hour.
    pub retry_after: Option<Duration>,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl HttpResponse {
    /// A response that did not come over HTTP, for processors without an upstream.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, request_id: None, retry_after: None, body: body.to_string().into() }
    }

    /// Whether the status is one of 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why a request failed. The reason decides whether a retry can help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureReason {
    /// The upstream answered with a temporary error status.
    RetriableHttpStatus(HttpResponse),
    /// The upstream answered with an error status that a retry would not change.
    NonRetriableHttpStatus(HttpResponse),
    /// The upstream was not reached, or the connection broke.
    Network(String),
    /// The upstream did not answer in time.
    Timeout(String),
    /// The upstream answered with success and a body that is not JSON.
    InvalidAnswer(String),
    /// The row could not be made into a request.
    InvalidRow(String),
    /// The row asks for something that the upstream, or this deployment, does not have.
    Unsupported(String),
    /// No answer matched the required schema, after all corrections: the last answer, and its error.
    SchemaInvalid(HttpResponse, String),
    /// The processor gave up or panicked.
    Processor(String),
    /// The worker process died this many times while it ran this row in quarantine.
    WorkerDied(u32),
}

impl FailureReason {
    /// Whether a retry can end differently.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::RetriableHttpStatus(_) | Self::Network(_) | Self::Timeout(_) => true,
            Self::NonRetriableHttpStatus(_)
            | Self::InvalidAnswer(_)
            | Self::InvalidRow(_)
            | Self::Unsupported(_)
            | Self::SchemaInvalid(..)
            | Self::Processor(_)
            | Self::WorkerDied(_) => false,
        }
    }

    /// The pause that the upstream asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RetriableHttpStatus(response) => response.retry_after,
            _ => None,
        }
    }

    /// The code of the reason in an error line, in logs and in metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::RetriableHttpStatus(_) | Self::NonRetriableHttpStatus(_) => "http_status",
            Self::Network(_) => "upstream_unreachable",
            Self::Timeout(_) => "request_timeout",
            Self::InvalidAnswer(_) => "invalid_upstream_answer",
            Self::InvalidRow(_) => "invalid_row",
            Self::Unsupported(_) => "unsupported",
            Self::SchemaInvalid(..) => "schema_invalid",
            Self::Processor(_) => "processor_error",
            Self::WorkerDied(_) => "worker_died",
        }
    }
}

/// A successful answer: valid JSON, with its token usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response it came in; its body is valid JSON.
    pub response: HttpResponse,
    /// The token usage that the answer reports; zero if it reports none.
    pub usage: Usage,
}

impl Answer {
    /// Reads a successful response.
    ///
    /// # Errors
    /// What is wrong with the body, if it is not one JSON value in UTF-8.
    pub fn read(response: HttpResponse) -> Result<Self, String> {
        let text = str::from_utf8(&response.body).map_err(|error| format!("The upstream's answer is {error}."))?;
        let usage = match serde_json::from_str::<AnswerHead>(text) {
            Ok(head) => head.usage.map(Usage::from).unwrap_or_default(),
            // JSON with a `usage` of an unknown shape, or JSON that is not an object, is still an answer.
            Err(error) if error.is_data() => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                Ok(_) => Usage::default(),
                Err(error) => return Err(format!("The upstream's answer is not valid JSON: {error}.")),
            },
            Err(error) => return Err(format!("The upstream's answer is not valid JSON: {error}.")),
        };
        Ok(Self { response, usage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_of(body: &'static str) -> Result<Usage, String> {
        let response = HttpResponse {
            status: 200,
            request_id: None,
            retry_after: None,
            body: Bytes::from_static(body.as_bytes()),
        };
        Answer::read(response).map(|answer| answer.usage)
    }

    #[test]
    fn usage_is_read_in_the_names_of_both_apis() {
        let expected =
            Usage { input_tokens: 10, cached_tokens: 4, output_tokens: 5, reasoning_tokens: 2, total_tokens: 15 };

        assert_eq!(
            usage_of(
                r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,
                   "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
                   "completion_tokens_details":{"reasoning_tokens":2}}}"#
            ),
            Ok(expected)
        );
        assert_eq!(
            usage_of(
                r#"{"usage":{"input_tokens":10,"output_tokens":5,"input_tokens_details":{"cached_tokens":4},
                   "output_tokens_details":{"reasoning_tokens":2}}}"#
            ),
            Ok(expected)
        );
    }

    #[test]
    fn an_answer_without_readable_usage_is_still_an_answer() {
        for body in [r#"{"usage":null}"#, r#"{"usage":"none"}"#, "[[0.5]]", "7", r#"{"usage":{"prompt_tokens":-1}}"#] {
            assert_eq!(usage_of(body), Ok(Usage::default()), "{body}");
        }
    }

    #[test]
    fn an_answer_that_is_not_json_is_none() {
        for body in ["", "<html>", "{\"a\":}", "{} {}", "{\"usage\":7} x"] {
            assert!(usage_of(body).is_err(), "{body}");
        }
    }
}
