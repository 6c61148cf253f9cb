//! Reading result lines back.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::failures::stated_code;
use super::ids::{RequestId, row_of_line_id};
use super::line::NeverRan;
use super::text_enum::text_enum;

text_enum! {
    /// The status of one request of a batch.
    pub enum RequestStatus {
        /// It waits to be run.
        Pending = "pending",
        /// A daemon has leased it.
        InProgress = "in_progress",
        /// It succeeded.
        Completed = "completed",
        /// It ran and failed.
        Failed = "failed",
        /// Its batch was cancelled before it ran.
        Cancelled = "cancelled",
        /// The window of its batch closed before it ran.
        Expired = "expired",
    }
}

impl RequestStatus {
    /// The status that a line of an error file stands for.
    #[must_use]
    pub fn of_error_line(line: &[u8]) -> Self {
        let read: Option<RecordedLine<'_>> = serde_json::from_slice(line).ok();
        let code = read.and_then(|line| line.error).map(|error| error.code).unwrap_or_default();
        if code == NeverRan::Cancelled.code() {
            Self::Cancelled
        } else if code == NeverRan::Expired.code() {
            Self::Expired
        } else {
            Self::Failed
        }
    }
}

/// What the line of an error file says of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedFailure {
    /// The row number.
    pub row: u32,
    /// The codes that the failure has: this program's, and that of the upstream's error.
    pub codes: Vec<String>,
}

impl RecordedFailure {
    /// Reads a line; `None` if it is none of this program.
    #[must_use]
    pub fn read(line: &[u8]) -> Option<Self> {
        let read: RecordedLine<'_> = serde_json::from_slice(line).ok()?;
        let stated = read.response.and_then(|response| stated_code(response.body.get().as_bytes()));
        let own = read.error.map_or(Cow::Borrowed("http_status"), |error| error.code);
        let codes = [Some(own.into_owned()), stated].into_iter().flatten().collect();
        Some(Self { row: row_of_line_id(&read.id)?, codes })
    }

    /// Whether the failure has one of these codes; true of none.
    #[must_use]
    pub fn is_one_of(&self, codes: &[String]) -> bool {
        codes.is_empty() || self.codes.iter().any(|code| codes.contains(code))
    }
}

/// The response in a row's line, byte for byte, if this program made it. `None` if the line has another body, such as
/// an answer that was passed through with the upstream's own id.
#[must_use]
pub fn response_made_for(row: RequestId, line: &[u8]) -> Option<&RawValue> {
    let read: RecordedLine<'_> = serde_json::from_slice(line).ok()?;
    let body = read.response?.body;
    let made: ResponseHead<'_> = serde_json::from_str(body.get()).ok()?;
    (made.id == row.response_id()).then_some(body)
}

#[derive(Deserialize)]
struct ResponseHead<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// A line of an output or error file. Borrows from it.
#[derive(Deserialize)]
pub(crate) struct RecordedLine<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    /// The client's name for the row.
    #[serde(borrow, default)]
    pub(crate) custom_id: Cow<'a, str>,
    /// The answer, if there was one.
    #[serde(borrow)]
    pub(crate) response: Option<LineResponse<'a>>,
    /// The error of this program, if there was one.
    #[serde(borrow)]
    pub(crate) error: Option<LineError<'a>>,
}

/// The answer in a line.
#[derive(Deserialize)]
pub(crate) struct LineResponse<'a> {
    #[serde(default)]
    pub(crate) status_code: u16,
    #[serde(borrow)]
    pub(crate) body: &'a RawValue,
}

/// The error in a line.
#[derive(Deserialize)]
pub(crate) struct LineError<'a> {
    #[serde(borrow)]
    pub(crate) code: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) message: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::answer::Answer;
    use crate::domain::ids::BatchId;
    use crate::domain::line::{completed, failed, never_ran};
    use crate::domain::outcome::{FailureReason, HttpResponse};

    fn response(body: &'static str) -> HttpResponse {
        HttpResponse { status: 200, body: Bytes::from_static(body.as_bytes()), ..HttpResponse::default() }
    }

    #[test]
    fn lines_are_read_back_as_what_they_were_written_for() {
        let id = RequestId { batch: BatchId::new(), row: 0 };
        let timeout = FailureReason::UpstreamTimeout("No answer.".to_owned());
        let refused = FailureReason::NonRetriableHttpStatus(response("{}"));
        let cases = [
            (never_ran(id, "a", NeverRan::Cancelled, None), RequestStatus::Cancelled),
            (never_ran(id, "a", NeverRan::Expired, None), RequestStatus::Expired),
            (failed(id, "a", &timeout), RequestStatus::Failed),
            (failed(id, "a", &refused), RequestStatus::Failed),
        ];
        for (line, state) in cases {
            assert_eq!(RequestStatus::of_error_line(&line), state);
        }
    }

    #[test]
    fn a_response_is_read_as_it_stands_in_the_line_of_its_row() {
        const BODY: &str = r#"{ "b":1.10,"id":"resp_0123456789abcdef0123456789abcdef00000001" }"#;
        let batch = BatchId::parse("batch_0123456789abcdef0123456789abcdef").expect("a printed id");
        let (row, other) = (RequestId { batch, row: 1 }, RequestId { batch, row: 2 });
        let answer = Answer::of(response(BODY)).expect("JSON");

        let line = completed(row, "a", &answer);

        assert_eq!(response_made_for(row, &line).expect("a response").get(), BODY);
        assert!(response_made_for(other, &line).is_none());
        assert!(response_made_for(row, &never_ran(row, "a", NeverRan::Expired, None)).is_none());
    }
}
