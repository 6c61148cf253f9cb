//! Why a request to the server came to nothing.

use std::io;
use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;

use crate::domain::retry::may_pass;
use crate::domain::time::Clock;
use crate::net::{AnswerProgress, BoundedBody, innermost, read_body, retry_after};

/// As much of an answer that is not OpenAI's as its message shows.
const SHOWN_CHARS: usize = 200;
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Why a request to the server came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL is none.
    #[error("the base URL of the server must be like http://127.0.0.1:8080/v1")]
    BaseUrl,
    /// The key cannot be sent.
    #[error("the key has characters that no HTTP header can have")]
    Key,
    /// The system's TLS certificates cannot be used.
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
    /// The server was not reached, or the connection broke. The request may have been carried out.
    #[error("the server could not be reached: {0}")]
    Unreachable(String),
    /// The server did not answer in time. The request may have been carried out.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Box<ErrorAnswer>),
    /// The server's answer is not one of this API.
    #[error("the server's answer is not understood: {0}")]
    Unexpected(String),
    /// A local file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An answer that is an error, in OpenAI's terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (HTTP {status})")]
pub struct ErrorAnswer {
    /// The status.
    pub status: u16,
    /// For people.
    pub message: String,
    /// The parameter at fault, as a dotted path.
    pub param: Option<String>,
    /// For programs.
    pub code: Option<String>,
    /// How long the server asks to wait before the request is sent again.
    pub retry_after: Option<Duration>,
}

impl ClientError {
    /// Whether the same request may succeed later: the server was out of reach, or says that it could not answer.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut => true,
            Self::Refused(answer) => may_pass(answer.status),
            Self::BaseUrl | Self::Key | Self::Setup(_) | Self::Unexpected(_) | Self::Io(_) => false,
        }
    }

    /// Whether the server has no such path, or no such object at it.
    #[must_use]
    pub fn is_not_there(&self) -> bool {
        matches!(self, Self::Refused(answer) if matches!(answer.status, 404 | 405 | 501))
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused(answer) => answer.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Unreachable(innermost(&error)) }
    }
}

/// OpenAI's envelope of an error.
#[derive(Deserialize)]
struct Envelope {
    error: Inner,
}

#[derive(Deserialize)]
struct Inner {
    message: String,
    param: Option<String>,
    code: Option<String>,
}

impl ErrorAnswer {
    /// Reads an answer that is an error. A proxy in between may answer with any text.
    pub(super) async fn read(response: Response) -> ClientError {
        let status = response.status();
        let retry_after = retry_after(response.headers(), &Clock::System);
        let received = AnswerProgress::default();
        let body = match read_body(response, MAX_ERROR_BYTES, &received).await {
            Ok(BoundedBody::Whole(body)) => body,
            Ok(BoundedBody::TooLong(rest)) => rest.read_beginning(MAX_ERROR_BYTES, &received).await.unwrap_or_default(),
            Err(error) => return error.into(),
        };
        let Inner { message, param, code } = if let Ok(Envelope { error }) = serde_json::from_slice(&body) {
            error
        } else {
            let text: String = String::from_utf8_lossy(&body).chars().take(SHOWN_CHARS).collect();
            let message = if text.trim().is_empty() { status.to_string() } else { text };
            Inner { message, param: None, code: None }
        };
        ClientError::Refused(Box::new(Self { status: status.as_u16(), message, param, code, retry_after }))
    }
}
