//! The outcome of a request: an answer, or the reason why there is none.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::codes::codes;
use super::rate_limits::RateLimits;
use super::usage::Usage;

/// An HTTP response of an upstream, with any status. Of its headers few are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The upstream's own id for the request (`x-request-id`), which the result line repeats.
    pub request_id: Option<String>,
    /// The pause that the upstream asks for (`Retry-After`), at most an hour.
    pub retry_after: Option<Duration>,
    /// Whether the upstream says that another attempt is worth it (`x-should-retry`).
    pub should_retry: Option<bool>,
    /// How many requests and tokens the upstream takes in time (`x-ratelimit-*`), if it says so.
    pub rate_limits: Option<Box<RateLimits>>,
    /// The body, byte for byte.
    pub body: Bytes,
    /// What the body of a success was found to be.
    pub reading: BodyReading,
}

/// What the body of a success was found to be (`domain/answer`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BodyReading {
    /// It was not read.
    #[default]
    Unread,
    /// JSON that is an answer, which reports this usage; zero if it reports none.
    Answer(Box<Usage>),
    /// It is not JSON: what is wrong with it, as a sentence for the client.
    Unreadable(Box<str>),
}

impl HttpResponse {
    /// A response that did not come over HTTP, for processors without an upstream.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, body: body.to_string().into(), ..Self::default() }
    }

    /// Whether the status is one of 200 to 299, and the body not known to be unreadable.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && !matches!(self.reading, BodyReading::Unreadable(_))
    }

    /// The response if it is a success, and not one that `should_retry` has tried again; otherwise why it is none. What
    /// the upstream itself says of further attempts (`x-should-retry`) comes first.
    ///
    /// # Errors
    /// Why the request failed.
    pub fn succeeded(self, should_retry: &dyn Fn(&Self) -> bool) -> Result<Self, FailureReason> {
        if matches!(self.reading, BodyReading::Unreadable(_)) {
            return Err(FailureReason::UnreadableAnswer(self));
        }
        let is_success = self.is_success();
        let said = self.should_retry.filter(|_| !is_success);
        if said.unwrap_or_else(|| should_retry(&self)) {
            Err(FailureReason::RetriableHttpStatus(self))
        } else if is_success {
            Ok(self)
        } else {
            Err(FailureReason::NonRetriableHttpStatus(self))
        }
    }
}

/// Why a request failed: whose fault it is, and so what follows from it. Texts are messages for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureReason {
    /// The upstream answered with a temporary error status.
    RetriableHttpStatus(HttpResponse),
    /// The upstream answered with an error status that a retry would not change.
    NonRetriableHttpStatus(HttpResponse),
    /// No connection to the upstream was made.
    UpstreamUnreachable(String),
    /// The upstream answered that it takes no calls now, or takes none at all. The row has no part in that.
    UpstreamUnavailable(String),
    /// The upstream takes no calls, as other rows have found, so that none was made for this row.
    HeldBack(String),
    /// The upstream did not answer in time.
    UpstreamTimeout(String),
    /// The connection broke, or the upstream gave up in the middle of its answer, as it does when it is restarted.
    AnswerAborted(String),
    /// The upstream answered with success and a body that is not JSON.
    UnreadableAnswer(HttpResponse),
    /// The upstream answered with success, and with JSON of which no use can be made.
    InvalidAnswer(String),
    /// A server whose tools the row asks for was not reached, or did not list them in time.
    ToolServerUnreachable(String),
    /// A file that the row names by its URL was not fetched.
    FileUnreachable(String),
    /// This program's database or blob store is away. What the row needs of it is still there.
    StorageUnavailable(String),
    /// What the row needs of this program's storage is lost or damaged, or the storage refuses what the row has.
    StorageFault(String),
    /// The row could not be made into a request.
    InvalidRow(String),
    /// The row asks for something that the upstream, or this deployment, does not have.
    Unsupported(String),
    /// No answer matched the required schema, after all corrections: the last answer, and its error.
    SchemaInvalid(Box<HttpResponse>, String),
    /// The processor gave up or panicked.
    Processor(String),
    /// The worker process died this many times while it ran this row in quarantine.
    WorkerDied(u32),
}

/// What can help a request that failed. Of several failures of one request the least holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Nothing: the same request would fail again.
    Nothing,
    /// Another attempt, of which a request has only so many: the request may be the cause.
    Attempt,
    /// Waiting until what is away is back. The request is not the cause, and so it is charged no attempt.
    Wait,
}

impl FailureReason {
    codes! {
        Self::RetriableHttpStatus(_) | Self::NonRetriableHttpStatus(_) => "http_status",
        Self::UpstreamUnreachable(_) => "upstream_unreachable",
        Self::UpstreamUnavailable(_) | Self::HeldBack(_) => "upstream_unavailable",
        Self::UpstreamTimeout(_) => "request_timeout",
        Self::AnswerAborted(_) => "upstream_answer_aborted",
        Self::UnreadableAnswer(_) | Self::InvalidAnswer(_) => "invalid_upstream_answer",
        Self::ToolServerUnreachable(_) => "tool_server_unreachable",
        Self::FileUnreachable(_) => "file_unreachable",
        Self::StorageUnavailable(_) => "storage_unavailable",
        Self::StorageFault(_) => "storage_error",
        Self::InvalidRow(_) => "invalid_row",
        Self::Unsupported(_) => "unsupported",
        Self::SchemaInvalid(..) => "schema_invalid",
        Self::Processor(_) => "processor_error",
        Self::WorkerDied(_) => "worker_died",
    }

    /// What can help.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::RetriableHttpStatus(_)
            | Self::UpstreamTimeout(_)
            | Self::AnswerAborted(_)
            | Self::UnreadableAnswer(_)
            | Self::ToolServerUnreachable(_)
            | Self::FileUnreachable(_) => Remedy::Attempt,
            Self::UpstreamUnreachable(_)
            | Self::UpstreamUnavailable(_)
            | Self::HeldBack(_)
            | Self::StorageUnavailable(_) => Remedy::Wait,
            Self::NonRetriableHttpStatus(_)
            | Self::InvalidAnswer(_)
            | Self::StorageFault(_)
            | Self::InvalidRow(_)
            | Self::Unsupported(_)
            | Self::SchemaInvalid(..)
            | Self::Processor(_)
            | Self::WorkerDied(_) => Remedy::Nothing,
        }
    }

    /// Whether the same request can end differently later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.remedy() != Remedy::Nothing
    }

    /// The pause that the upstream asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RetriableHttpStatus(response) | Self::UnreadableAnswer(response) => response.retry_after,
            _ => None,
        }
    }

    /// Whether the upstream answered the last call. `None` if that cannot be told: there may have been no call.
    #[must_use]
    pub fn shows_an_answer(&self) -> Option<bool> {
        match self {
            Self::RetriableHttpStatus(_)
            | Self::NonRetriableHttpStatus(_)
            | Self::UpstreamUnavailable(_)
            | Self::AnswerAborted(_)
            | Self::UnreadableAnswer(_)
            | Self::InvalidAnswer(_)
            | Self::SchemaInvalid(..) => Some(true),
            Self::UpstreamUnreachable(_) | Self::UpstreamTimeout(_) => Some(false),
            Self::HeldBack(_)
            | Self::ToolServerUnreachable(_)
            | Self::FileUnreachable(_)
            | Self::StorageUnavailable(_)
            | Self::StorageFault(_)
            | Self::InvalidRow(_)
            | Self::Unsupported(_)
            | Self::Processor(_)
            | Self::WorkerDied(_) => None,
        }
    }

    /// The reason in words, for the error line and the log.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::RetriableHttpStatus(response) | Self::NonRetriableHttpStatus(response) => {
                format!("The upstream answered with status {}.", response.status).into()
            }
            Self::UnreadableAnswer(response) => match &response.reading {
                BodyReading::Unreadable(why) => (&**why).into(),
                BodyReading::Unread | BodyReading::Answer(_) => "The upstream's answer cannot be read.".into(),
            },
            Self::UpstreamUnreachable(message)
            | Self::UpstreamUnavailable(message)
            | Self::HeldBack(message)
            | Self::UpstreamTimeout(message)
            | Self::AnswerAborted(message)
            | Self::InvalidAnswer(message)
            | Self::ToolServerUnreachable(message)
            | Self::FileUnreachable(message)
            | Self::StorageUnavailable(message)
            | Self::StorageFault(message)
            | Self::InvalidRow(message)
            | Self::Unsupported(message)
            | Self::SchemaInvalid(_, message)
            | Self::Processor(message) => message.into(),
            Self::WorkerDied(times) => {
                format!("The worker died each of {times} times that it ran this request alone.").into()
            }
        }
    }
}
