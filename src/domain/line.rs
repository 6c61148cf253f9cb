//! One line of an output or error file, byte for byte as a client downloads it (contract §9.2 and §9.3). Whatever a
//! reader takes for the end of a line, it finds one at the end only.

use std::io::Write as _;

use memchr::memchr2;
use serde_json::json;

use super::answer::Answer;
use super::codes::codes;
use super::ids::RequestId;
use super::outcome::{FailureReason, HttpResponse};

/// The line separator, the paragraph separator and the next line, and how JSON escapes them.
const SEPARATORS: [(&str, &str); 3] = [("\u{2028}", r"\u2028"), ("\u{2029}", r"\u2029"), ("\u{85}", r"\u0085")];

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
            with_both(id, custom_id, (response, &response.body), (reason.code(), message))
        }
        FailureReason::UnreadableAnswer(response) => {
            with_both(id, custom_id, (response, &wrapped(response)), (reason.code(), &reason.message()))
        }
        _ => with_error(id, custom_id, reason.code(), &reason.message()),
    }
}

/// The error line of a row that has no outcome. `last_failure` says how its last attempt ended, if it had one.
#[must_use]
pub fn never_ran(id: RequestId, custom_id: &str, why: NeverRan, last_failure: Option<&str>) -> Vec<u8> {
    match last_failure {
        None => with_error(id, custom_id, why.code(), why.message()),
        Some(last) => {
            with_error(id, custom_id, why.code(), &format!("{} Its last attempt failed: {last}", why.message()))
        }
    }
}

fn with_response(id: RequestId, custom_id: &str, response: &HttpResponse, body: &[u8]) -> Vec<u8> {
    let mut line = start(id, custom_id, body.len() + 192);
    push_response(&mut line, id, response, body);
    line.extend_from_slice(b"\"error\":null}\n");
    line
}

fn with_both(
    id: RequestId,
    custom_id: &str,
    (response, body): (&HttpResponse, &[u8]),
    (code, message): (&str, &str),
) -> Vec<u8> {
    let mut line = start(id, custom_id, body.len() + message.len() + 192);
    push_response(&mut line, id, response, body);
    push_error(&mut line, code, message);
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
    let start = line.len();
    serde_json::to_writer(&mut *line, text).expect("a Vec takes all, and every str is a JSON string");
    if !line[start..].is_ascii() {
        let json = line.split_off(start);
        push_without_separators(line, &json);
    }
}

/// Appends valid JSON without its line breaks.
///
/// JSON has no raw line break inside strings, so one can only stand between tokens, where it and the indentation
/// after it mean nothing.
fn push_on_one_line(line: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json.trim_ascii();
    while let Some(at) = memchr2(b'\n', b'\r', rest) {
        push_without_separators(line, &rest[..at]);
        rest = rest[at..].trim_ascii_start();
    }
    push_without_separators(line, rest);
}

/// Appends valid JSON with the three characters as escapes that some readers take for the end of a line: Python's
/// `splitlines` and the readers of the SDKs that are built on it. JSON has them inside strings only.
fn push_without_separators(line: &mut Vec<u8>, json: &[u8]) {
    let (mut rest, mut searched) = (json, 0);
    while let Some(at) = memchr2(0xe2, 0xc2, &rest[searched..]).map(|at| searched + at) {
        let separator = SEPARATORS.iter().find(|(separator, _)| rest[at..].starts_with(separator.as_bytes()));
        let Some((separator, escape)) = separator else {
            searched = at + 1;
            continue;
        };
        line.extend_from_slice(&rest[..at]);
        line.extend_from_slice(escape.as_bytes());
        (rest, searched) = (&rest[at + separator.len()..], 0);
    }
    line.extend_from_slice(rest);
}

/// An error object around a body that is not JSON, such as a proxy's page.
fn wrapped(response: &HttpResponse) -> Vec<u8> {
    const SHOWN: usize = 64 << 10;
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
        let answer = Answer::of(response(200, Some("req_1"), body)).expect("JSON");

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
        let answer = Answer::of(response(200, None, "{\r\n  \"a\": [\n    1,\n\n\t2\n  ]\n}\n")).expect("JSON");

        let line = String::from_utf8(completed(id(), "r", &answer)).expect("UTF-8");

        assert!(line.contains(r#""body":{"a": [1,2]}},"error":null}"#), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_line_is_one_line_to_every_reader() {
        let body = "{\"a\":\"x\u{2028}\u{2029}y\u{85}\",\"b\":\"€ é ™ \u{2027}\"}";
        let answer = Answer::of(response(200, Some("r\u{2028}"), body)).expect("JSON");
        let refused = FailureReason::NonRetriableHttpStatus(response(400, None, body));
        let broken = FailureReason::AnswerAborted("it said \u{85}".to_owned());
        let page = FailureReason::NonRetriableHttpStatus(response(400, None, "<p>\u{2028}"));
        let custom_id = "a\u{2028}\u{2029}\u{85}b";
        let lines = [
            completed(id(), custom_id, &answer),
            failed(id(), custom_id, &refused),
            failed(id(), custom_id, &broken),
            failed(id(), custom_id, &page),
            never_ran(id(), custom_id, NeverRan::Expired, None),
        ];

        for line in lines {
            let line = String::from_utf8(line).expect("UTF-8");
            let ends = line.chars().filter(|c| matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}' | '\n' | '\r')).count();
            assert_eq!(ends, 1, "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(value["custom_id"], custom_id);
            if line.contains("\"b\"") {
                let sent: serde_json::Value = serde_json::from_str(body).expect("JSON");
                assert_eq!(value["response"]["body"], sent);
            }
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_stands_in_its_line_as_it_came() {
        let answer = Answer::of(response(200, Some("req_1"), "<h1>Welcome</h1>")).expect_err("a page");

        let value: serde_json::Value = serde_json::from_slice(&failed(id(), "r", &answer)).expect("JSON");

        assert_eq!(value["response"]["status_code"], 200);
        assert_eq!(value["response"]["request_id"], "req_1");
        assert_eq!(value["response"]["body"]["error"]["message"], "<h1>Welcome</h1>");
        assert_eq!(value["error"]["code"], "invalid_upstream_answer");
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
        let line = never_ran(id(), "r", NeverRan::Expired, None);

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
