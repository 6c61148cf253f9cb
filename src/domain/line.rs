//! One line of an output or error file, byte for byte as a client downloads it (contract §9.2 and §9.3).

use std::io::Write as _;

use memchr::memchr2;
use serde_json::json;

use super::codes::codes;
use super::ids::RequestId;
use super::outcome::{Answer, FailureReason, HttpResponse};

/// Why a row that never ran has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeverRan {
    /// The batch was cancelled.
    Cancelled,
    /// The completion window closed.
    Expired,
    /// The row could no longer be read. If its name could not be read either, the line has an empty `custom_id`.
    InputUnavailable,
}

impl NeverRan {
    codes! {
        Self::Cancelled => "batch_cancelled",
        Self::Expired => "batch_expired",
        Self::InputUnavailable => "input_unavailable",
    }

    fn message(self) -> &'static str {
        match self {
            Self::Cancelled => "This request could not be executed before the batch was cancelled.",
            Self::Expired => "This request could not be executed before the completion window expired.",
            Self::InputUnavailable => {
                "This request could not be executed because the input file of the batch could not be read any more. \
                 Upload it again, and create another batch for what is missing."
            }
        }
    }
}

/// The start of a row's line, which no other line has.
#[must_use]
pub fn start_of(id: RequestId) -> String {
    format!(r#"{{"id":"{id}","custom_id":"#)
}

/// The output line of a row that succeeded.
#[must_use]
pub fn completed(id: RequestId, custom_id: &str, answer: &Answer) -> Vec<u8> {
    with_response(id, custom_id, &answer.response, &answer.response.body)
}

/// The error line of a row that ran and failed.
#[must_use]
pub fn failed(id: RequestId, custom_id: &str, reason: &FailureReason) -> Vec<u8> {
    match reason {
        FailureReason::RetriableHttpStatus(response) | FailureReason::NonRetriableHttpStatus(response) => {
            if serde_json::from_slice::<&serde_json::value::RawValue>(&response.body).is_ok() {
                with_response(id, custom_id, response, &response.body)
            } else {
                with_response(id, custom_id, response, &wrapped(response))
            }
        }
        FailureReason::SchemaInvalid(response, message) => {
            let mut line = start(id, custom_id, response.body.len() + message.len() + 192);
            push_response(&mut line, id, response, &response.body);
            push_error(&mut line, reason.code(), message);
            line
        }
        _ => with_error(id, custom_id, reason.code(), &reason.message()),
    }
}

/// The error line of a row that never ran.
#[must_use]
pub fn never_ran(id: RequestId, custom_id: &str, why: NeverRan) -> Vec<u8> {
    with_error(id, custom_id, why.code(), why.message())
}

fn with_response(id: RequestId, custom_id: &str, response: &HttpResponse, body: &[u8]) -> Vec<u8> {
    let mut line = start(id, custom_id, body.len() + 192);
    push_response(&mut line, id, response, body);
    line.extend_from_slice(b"\"error\":null}\n");
    line
}

fn with_error(id: RequestId, custom_id: &str, code: &str, message: &str) -> Vec<u8> {
    let mut line = start(id, custom_id, message.len() + 160);
    line.extend_from_slice(br#""response":null,"#);
    push_error(&mut line, code, message);
    line
}

fn push_response(line: &mut Vec<u8>, id: RequestId, response: &HttpResponse, body: &[u8]) {
    write!(line, r#""response":{{"status_code":{},"request_id":"#, response.status).expect("a Vec takes all");
    match &response.request_id {
        Some(request_id) => push_text(line, request_id),
        None => write!(line, r#""{id}""#).expect("a Vec takes all"),
    }
    line.extend_from_slice(br#","body":"#);
    push_on_one_line(line, body);
    line.extend_from_slice(b"},");
}

fn push_error(line: &mut Vec<u8>, code: &str, message: &str) {
    line.extend_from_slice(br#""error":{"code":"#);
    push_text(line, code);
    line.extend_from_slice(br#","message":"#);
    push_text(line, message);
    line.extend_from_slice(b"}}\n");
}

fn start(id: RequestId, custom_id: &str, rest: usize) -> Vec<u8> {
    let mut line = Vec::with_capacity(custom_id.len() + rest);
    line.extend_from_slice(start_of(id).as_bytes());
    push_text(&mut line, custom_id);
    line.push(b',');
    line
}

fn push_text(line: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(line, text).expect("a Vec takes all, and every str is a JSON string");
}

/// Appends valid JSON without its line breaks.
///
/// JSON has no raw line break inside strings, so one can only stand between tokens, where it and the indentation
/// after it mean nothing.
fn push_on_one_line(line: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json.trim_ascii();
    while let Some(at) = memchr2(b'\n', b'\r', rest) {
        line.extend_from_slice(&rest[..at]);
        rest = rest[at..].trim_ascii_start();
    }
    line.extend_from_slice(rest);
}

/// An error object around a body that is not JSON, such as a proxy's page.
fn wrapped(response: &HttpResponse) -> Vec<u8> {
    const SHOWN: usize = 2048;
    let shown = &response.body[..response.body.len().min(SHOWN)];
    let message = match String::from_utf8_lossy(shown).trim() {
        "" => format!("The upstream answered with status {} and no body.", response.status),
        text => text.to_owned(),
    };
    let error = json!({ "error": { "message": message, "type": "upstream_error", "param": null, "code": null } });
    error.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::ids::BatchId;

    fn id() -> RequestId {
        RequestId { batch: BatchId::parse("batch_0123456789abcdef0123456789abcdef").expect("a printed id"), row: 1 }
    }

    fn response(status: u16, request_id: Option<&str>, body: &'static str) -> HttpResponse {
        HttpResponse {
            status,
            request_id: request_id.map(str::to_owned),
            body: Bytes::from_static(body.as_bytes()),
            ..HttpResponse::default()
        }
    }

    #[test]
    fn answers_are_embedded_as_they_came() {
        let body = r#"{"b":1.10,"a":12345678901234567890, "s":"\n"}"#;
        let answer = Answer::read(response(200, Some("req_1"), body)).expect("JSON");

        let line = completed(id(), "row \"1\"", &answer);

        assert_eq!(
            String::from_utf8(line).expect("UTF-8"),
            concat!(
                r#"{"id":"batch_req_89abcdef0123456789abcdef00000001","custom_id":"row \"1\"","#,
                r#""response":{"status_code":200,"request_id":"req_1","#,
                r#""body":{"b":1.10,"a":12345678901234567890, "s":"\n"}},"error":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn pretty_printed_answers_become_one_line() {
        let answer = Answer::read(response(200, None, "{\r\n  \"a\": [\n    1,\n\n\t2\n  ]\n}\n")).expect("JSON");

        let line = String::from_utf8(completed(id(), "r", &answer)).expect("UTF-8");

        assert!(line.contains(r#""body":{"a": [1,2]}},"error":null}"#), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn http_errors_have_a_response_and_no_error() {
        let reason =
            FailureReason::NonRetriableHttpStatus(response(400, None, r#"{"error":{"message":"no","code":null}}"#));

        let line = String::from_utf8(failed(id(), "r", &reason)).expect("UTF-8");

        assert!(line.contains(
            r#""response":{"status_code":400,"request_id":"batch_req_89abcdef0123456789abcdef00000001","body":{"error":"#
        ));
        assert!(line.ends_with("}},\"error\":null}\n") || line.ends_with("},\"error\":null}\n"), "{line}");
    }

    #[test]
    fn a_page_instead_of_json_is_put_into_an_error_object() {
        let reason = FailureReason::RetriableHttpStatus(response(502, None, "<h1>Bad\nGateway</h1>"));

        let line = failed(id(), "r", &reason);

        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value["response"]["body"]["error"]["message"], "<h1>Bad\nGateway</h1>");
    }

    #[test]
    fn rows_that_never_ran_have_an_error_and_no_response() {
        let line = never_ran(id(), "r", NeverRan::Expired);

        assert_eq!(
            String::from_utf8(line).expect("UTF-8"),
            concat!(
                r#"{"id":"batch_req_89abcdef0123456789abcdef00000001","custom_id":"r","response":null,"#,
                r#""error":{"code":"batch_expired","message":"#,
                r#""This request could not be executed before the completion window expired."}}"#,
                "\n"
            )
        );
    }
}
