//! Result lines of a batch, as those of a message batch.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::envelope::MessagesErrorBody;
use crate::domain::failures::stated_message;
use crate::domain::line::NeverRan;
use crate::domain::result::RecordedLine;
use crate::domain::splitter::{Line, LineSplitter};

/// A line of the results of a message batch.
#[derive(Serialize)]
struct MessageLine<'a> {
    custom_id: &'a str,
    result: MessageResult<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum MessageResult<'a> {
    Succeeded { message: &'a RawValue },
    Errored { error: ErrorJson<'a> },
    Canceled,
    Expired,
}

/// An error in Anthropic's envelope: the upstream's own, or one that is made of another.
#[derive(Serialize)]
#[serde(untagged)]
enum ErrorJson<'a> {
    Own(&'a RawValue),
    Made(MessagesErrorBody),
}

/// Rewrites files line by line, as they come.
pub(super) struct LineRewriter {
    splitter: LineSplitter,
}

impl LineRewriter {
    pub(super) fn new() -> Self {
        // Each line was held whole when it was made.
        Self { splitter: LineSplitter::new(usize::MAX) }
    }

    /// The lines that end in a chunk of a file. Every file ends with the end of a line.
    ///
    /// # Errors
    /// A line is not one of a result file.
    pub(super) fn rewritten(&mut self, chunk: &[u8]) -> serde_json::Result<Bytes> {
        let mut lines = Vec::with_capacity(chunk.len());
        let mut wrong = None;
        self.splitter.push(chunk, |line| {
            if let Line::Whole { bytes, .. } = line
                && let Err(error) = rewrite(bytes, &mut lines)
            {
                wrong.get_or_insert(error);
            }
        });
        wrong.map_or_else(|| Ok(lines.into()), Err)
    }
}

fn rewrite(line: &[u8], lines: &mut Vec<u8>) -> serde_json::Result<()> {
    let line: RecordedLine<'_> = serde_json::from_slice(line)?;
    let line = MessageLine { custom_id: &line.custom_id, result: result(&line) };
    serde_json::to_writer(&mut *lines, &line)?;
    lines.push(b'\n');
    Ok(())
}

fn result<'a>(line: &'a RecordedLine<'_>) -> MessageResult<'a> {
    match (&line.response, &line.error) {
        (Some(response), None) if (200..300).contains(&response.status_code) => {
            MessageResult::Succeeded { message: response.body }
        }
        (_, Some(error)) if error.code == NeverRan::Cancelled.code() => MessageResult::Canceled,
        (_, Some(error)) if error.code == NeverRan::Expired.code() => MessageResult::Expired,
        (Some(response), error) => {
            let status = response.status_code;
            if is_envelope(response.body) {
                return MessageResult::Errored { error: ErrorJson::Own(response.body) };
            }
            let stated = stated_message(response.body.get().as_bytes());
            let told = || error.as_ref().map(|error| error.message.to_string());
            let message =
                stated.or_else(told).unwrap_or_else(|| format!("The upstream answered with status {status}."));
            // An answer of which no use could be made is a fault of the server.
            let status = if (200..300).contains(&status) { 500 } else { status };
            errored(status, message)
        }
        (None, Some(error)) => {
            let status = if error.code == "request_timeout" { 504 } else { 500 };
            errored(status, error.message.to_string())
        }
        (None, None) => errored(500, "The request has no result.".to_owned()),
    }
}

fn errored<'a>(status: u16, message: String) -> MessageResult<'a> {
    MessageResult::Errored { error: ErrorJson::Made(MessagesErrorBody::new(status, message, None)) }
}

/// Whether a body is an error in Anthropic's envelope.
fn is_envelope(body: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(rename = "error")]
        _error: serde_json::Map<String, serde_json::Value>,
    }
    body.get().starts_with('{')
        && serde_json::from_str::<Envelope<'_>>(body.get()).is_ok_and(|envelope| envelope.kind == "error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_what_became_of_its_request() {
        let response = |status: u16, body: &str| {
            format!(
                r#"{{"id":"b","custom_id":"a","response":{{"status_code":{status},"request_id":"r","body":{body}}},"error":null}}"#
            )
        };
        let error = |code: &str| {
            format!(r#"{{"id":"b","custom_id":"a","response":null,"error":{{"code":"{code}","message":"m"}}}}"#)
        };
        let made = |kind: &str, message: &str| {
            format!(
                r#"{{"type":"errored","error":{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}}}"#
            )
        };
        let own = r#"{"type":"error","error":{"type":"overloaded_error","message":"o"},"request_id":"x"}"#;
        let cases = [
            (response(200, r#"{"n":1.10}"#), r#"{"type":"succeeded","message":{"n":1.10}}"#.to_owned()),
            (response(529, own), format!(r#"{{"type":"errored","error":{own}}}"#)),
            (response(400, r#"{"error":{"message":"too long"}}"#), made("invalid_request_error", "too long")),
            (response(404, r#"{"detail":"Not Found"}"#), made("not_found_error", "Not Found")),
            (response(502, "7"), made("api_error", "The upstream answered with status 502.")),
            (error("batch_cancelled"), r#"{"type":"canceled"}"#.to_owned()),
            (error("batch_expired"), r#"{"type":"expired"}"#.to_owned()),
            (error("request_timeout"), made("timeout_error", "m")),
            (error("worker_died"), made("api_error", "m")),
        ];
        for (line, expected) in cases {
            let rewritten = LineRewriter::new().rewritten(format!("{line}\n").as_bytes()).expect("a line");
            let expected = format!("{{\"custom_id\":\"a\",\"result\":{expected}}}\n");
            assert_eq!(str::from_utf8(&rewritten), Ok(expected.as_str()), "{line}");
        }
    }

    #[test]
    fn lines_come_in_chunks_of_any_size() {
        let line = r#"{"id":"b","custom_id":"a","response":null,"error":{"code":"batch_expired","message":"m"}}"#;
        let file = format!("{line}\n{line}\n");
        let mut rewriter = LineRewriter::new();
        let chunks = file.as_bytes().chunks(10).map(|chunk| rewriter.rewritten(chunk).expect("lines"));
        let lines: Vec<u8> = chunks.flatten().collect();

        let expected = "{\"custom_id\":\"a\",\"result\":{\"type\":\"expired\"}}\n".repeat(2);
        assert_eq!(str::from_utf8(&lines), Ok(expected.as_str()));
        assert!(LineRewriter::new().rewritten(b"7\n").is_err());
    }
}
