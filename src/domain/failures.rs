//! The failures of a batch's rows, counted by kind, with one row of each kind to look at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::FailureReason;

/// Kinds that are kept apart. The codes of failures come from servers too, and each kind is kept with the batch.
const MAX_KINDS: usize = 32;
/// The code of all other kinds together.
const OTHERS: &str = "others";
/// The longest code of a server that is taken for one.
const MAX_CODE: usize = 64;
/// Characters of a message, and of a row's name, that are kept. A name may be as long as a line, and the samples are
/// written anew with each flush.
const MAX_MESSAGE: usize = 300;
const MAX_CUSTOM_ID: usize = 512;

/// What failures of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FailureKind {
    /// The code of the error: the server's own, if its answer states one, or else that of the error line.
    pub code: String,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
}

/// How a row failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFailure {
    /// What it has in common with others.
    pub kind: FailureKind,
    /// The row, and what is said about it.
    pub sample: FailureSample,
}

/// One of the rows that failed alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureSample {
    /// The row's name in the input file, of at most 512 characters.
    pub custom_id: String,
    /// Why it failed, of at most 300 characters.
    pub message: String,
}

/// How many rows failed alike, and one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureTally {
    /// What they have in common.
    #[serde(flatten)]
    pub kind: FailureKind,
    /// How many there are.
    pub rows: u64,
    /// The first of them.
    pub sample: FailureSample,
}

/// Failures by kind. There are at most 33 kinds: all beyond the first 32 are counted together, as `others`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<FailureTally>", into = "Vec<FailureTally>")]
pub struct FailureCounts(BTreeMap<FailureKind, (u64, FailureSample)>);

impl RowFailure {
    /// The failure of a row.
    #[must_use]
    pub fn new(custom_id: &str, reason: &FailureReason) -> Self {
        let (stated, status) = match reason {
            FailureReason::RetriableHttpStatus(response) | FailureReason::NonRetriableHttpStatus(response) => {
                (StatedError::of(&response.body), Some(response.status))
            }
            FailureReason::UnreadableAnswer(response) => (StatedError::default(), Some(response.status)),
            FailureReason::SchemaInvalid(response, _) => (StatedError::default(), Some(response.status)),
            _ => (StatedError::default(), None),
        };
        let message = stated.message.unwrap_or_else(|| reason.message().into_owned());
        Self {
            kind: FailureKind { code: stated.code.unwrap_or_else(|| reason.code().to_owned()), status },
            sample: FailureSample {
                custom_id: custom_id.chars().take(MAX_CUSTOM_ID).collect(),
                message: message.chars().take(MAX_MESSAGE).collect(),
            },
        }
    }
}

/// What the body of an error says. Servers put it into `error`, or beside it, or have a text in its place.
#[derive(Default)]
struct StatedError {
    code: Option<String>,
    message: Option<String>,
}

/// The code that the body of an error states.
#[must_use]
pub fn stated_code(body: &[u8]) -> Option<String> {
    StatedError::of(body).code
}

/// The message that the body of an error states.
#[must_use]
pub fn stated_message(body: &[u8]) -> Option<String> {
    StatedError::of(body).message
}

impl StatedError {
    fn of(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(&body);
        let text = |value: Option<&Value>| value?.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        // Anthropic's errors have a kind instead of a code.
        let is_anthropic = body.get("type").is_some_and(|kind| kind == "error");
        let code = text(error.get("code")).or_else(|| text(error.get("type")).filter(|_| is_anthropic));
        let code = code.filter(|code| code.len() <= MAX_CODE);
        let message = ["message", "detail"].into_iter().find_map(|name| text(error.get(name)));
        Self { code, message: message.or_else(|| text(Some(error))) }
    }
}

impl FailureCounts {
    /// Counts a row.
    pub fn add(&mut self, failure: RowFailure) {
        self.count(failure.kind, 1, failure.sample);
    }

    /// Counts the rows of other counts too.
    pub fn merge(&mut self, others: &Self) {
        for (kind, (rows, sample)) in &others.0 {
            self.count(kind.clone(), *rows, sample.clone());
        }
    }

    fn count(&mut self, kind: FailureKind, rows: u64, sample: FailureSample) {
        let has_room = self.0.len() < MAX_KINDS || self.0.contains_key(&kind);
        let kind = if has_room { kind } else { FailureKind { code: OTHERS.to_owned(), status: None } };
        self.0.entry(kind).or_insert((0, sample)).0 += rows;
    }

    /// The kinds, with the most rows first.
    #[must_use]
    pub fn tallies(&self) -> Vec<FailureTally> {
        let tally = |(kind, (rows, sample)): (&FailureKind, &(u64, FailureSample))| FailureTally {
            kind: kind.clone(),
            rows: *rows,
            sample: sample.clone(),
        };
        let mut tallies: Vec<_> = self.0.iter().map(tally).collect();
        tallies.sort_by_key(|tally| std::cmp::Reverse(tally.rows));
        tallies
    }

    /// The one kind there is, its rows, and the first of them; `None` if there is none, or there are several.
    #[must_use]
    pub fn only_kind(&self) -> Option<(&FailureKind, u64, &FailureSample)> {
        let (kind, (rows, sample)) = self.0.first_key_value()?;
        (self.0.len() == 1).then_some((kind, *rows, sample))
    }
}

impl From<Vec<FailureTally>> for FailureCounts {
    fn from(tallies: Vec<FailureTally>) -> Self {
        Self(tallies.into_iter().map(|tally| (tally.kind, (tally.rows, tally.sample))).collect())
    }
}

impl From<FailureCounts> for Vec<FailureTally> {
    fn from(counts: FailureCounts) -> Self {
        counts.tallies()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcome::HttpResponse;

    fn http(status: u16, body: &'static str) -> FailureReason {
        let body = bytes::Bytes::from_static(body.as_bytes());
        FailureReason::NonRetriableHttpStatus(HttpResponse { status, body, ..HttpResponse::default() })
    }

    #[test]
    fn a_failure_has_the_code_and_the_message_of_its_server() {
        let timeout = FailureReason::UpstreamTimeout("It had 10 s.".to_owned());
        let long = r#"{"error":{"message":"no","code":"x123456789x123456789x123456789x123456789x123456789x123456789x123456789"}}"#;
        // A reason, and the code, status and message of its failure.
        let cases = [
            (http(400, r#"{"error":{"message":"too long","code":"context_length"}}"#), "context_length", "too long"),
            (
                http(413, r#"{"type":"error","error":{"type":"request_too_large","message":"too large"}}"#),
                "request_too_large",
                "too large",
            ),
            (http(400, r#"{"error":{"message":"no","code":400}}"#), "http_status", "no"),
            (http(400, long), "http_status", "no"),
            (http(422, r#"{"detail":"no such field"}"#), "http_status", "no such field"),
            (http(404, r#"{"error":"model not found"}"#), "http_status", "model not found"),
            (http(404, r#"{"message":"model not found"}"#), "http_status", "model not found"),
            (http(500, "<h1>"), "http_status", "The upstream answered with status 500."),
            (timeout, "request_timeout", "It had 10 s."),
        ];
        for (reason, code, message) in cases {
            let failure = RowFailure::new("row-1", &reason);

            let status = if code == "request_timeout" { None } else { failure.kind.status };
            assert_eq!(failure.kind, FailureKind { code: code.to_owned(), status }, "{reason:?}");
            assert_eq!(failure.sample, FailureSample { custom_id: "row-1".to_owned(), message: message.to_owned() });
        }
    }

    #[test]
    fn a_sample_is_bounded_however_long_its_name_and_its_message_are() {
        let long = "é".repeat(100_000);
        let reason = FailureReason::UpstreamTimeout(long.clone());

        let FailureSample { custom_id, message } = RowFailure::new(&long, &reason).sample;

        assert_eq!((custom_id.chars().count(), message.chars().count()), (MAX_CUSTOM_ID, MAX_MESSAGE));
    }

    #[test]
    fn kinds_are_bounded_and_the_most_frequent_comes_first() {
        let mut counts = FailureCounts::default();
        for row in 0..100_u16 {
            let body = r#"{"error":{"message":"no"}}"#;
            counts.add(RowFailure::new(&format!("row-{row}"), &http(400 + row % 50, body)));
            counts.add(RowFailure::new(&format!("more-{row}"), &http(403, body)));
        }
        let mut twice = counts.clone();
        twice.merge(&counts);

        let tallies = counts.tallies();
        assert_eq!(tallies.len(), MAX_KINDS + 1);
        assert_eq!((tallies[0].kind.status, tallies[0].rows), (Some(403), 102));
        assert_eq!(tallies[0].sample.custom_id, "more-0", "the first of them");
        assert_eq!((tallies[1].kind.code.as_str(), tallies[1].rows), (OTHERS, 36));
        assert_eq!(twice.tallies().iter().map(|tally| tally.rows).sum::<u64>(), 400);
        let read: FailureCounts =
            serde_json::from_str(&serde_json::to_string(&counts).expect("JSON")).expect("as it was written");
        assert_eq!(read, counts);
    }
}
