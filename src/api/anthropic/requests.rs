//! The body of a call that creates a message batch, as the lines of a batch input file.

use std::collections::VecDeque;

use axum::body::Bytes;
use futures::{Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::ApiError;
use crate::api::content_coding::unreadable;
use crate::api::router::JSON_BODY_BYTES;
use crate::domain::endpoint::Endpoint;
use crate::domain::json_elements::{ElementScanner, ScanError};

/// The most characters of a `custom_id`, as at Anthropic.
const MAX_CUSTOM_ID: usize = 64;
/// What a line has besides a request.
const LINE_ENVELOPE: usize = 200;

/// Reads the requests one by one, as they come.
pub(super) struct RequestLines<B> {
    body: B,
    scanner: Option<ElementScanner>,
    /// How many requests were read.
    count: usize,
    /// Lines that were not given out yet, and whether no more come.
    lines: VecDeque<Bytes>,
    has_ended: bool,
}

#[derive(Deserialize)]
struct MessageRequest<'a> {
    custom_id: String,
    #[serde(borrow)]
    params: &'a RawValue,
}

/// What is beside the requests.
#[derive(Deserialize)]
struct Rest<'a> {
    #[serde(borrow)]
    requests: Option<&'a RawValue>,
}

impl<B: Stream<Item = Result<Bytes, axum::Error>> + Unpin> RequestLines<B> {
    /// A reader of a body whose lines may have so many bytes.
    pub(super) fn new(body: B, max_line_bytes: usize) -> Self {
        let element = max_line_bytes.saturating_sub(LINE_ENVELOPE);
        let scanner = ElementScanner::new("requests", JSON_BODY_BYTES, element);
        Self { body, scanner: Some(scanner), count: 0, lines: VecDeque::new(), has_ended: false }
    }

    /// The next lines; `None` at the end of the body, which is then known to be in order.
    ///
    /// # Errors
    /// What is wrong with the body, or why it was not read to its end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ApiError>> {
        loop {
            if let Some(lines) = self.lines.pop_front() {
                return Some(Ok(lines));
            }
            if self.has_ended {
                return None;
            }
            let read = match self.body.next().await {
                Some(Ok(chunk)) => self.take(&chunk),
                Some(Err(error)) => Err(unreadable(&error)),
                None => self.end(),
            };
            if let Err(error) = read {
                self.has_ended = true;
                return Some(Err(error));
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        let (mut lines, count, mut wrong) = (Vec::new(), &mut self.count, None);
        let scanned = scanner.push(chunk, |element| {
            if wrong.is_none() {
                wrong = write_line(&mut lines, *count, element).err();
            }
            *count += 1;
        });
        if let Some(wrong) = wrong {
            return Err(ApiError::invalid(wrong));
        }
        scanned.map_err(|error| refusal(&error))?;
        if !lines.is_empty() {
            self.lines.push_back(lines.into());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ApiError> {
        self.has_ended = true;
        let rest = self.scanner.take().map(|scanner| scanner.finish().0).unwrap_or_default();
        let rest: Rest<'_> = serde_json::from_slice(&rest)
            .map_err(|error| ApiError::invalid(format!("The request body is not valid JSON: {error}")))?;
        match rest.requests {
            None => Err(ApiError::invalid("requests: Field required")),
            Some(list) if !list.get().starts_with('[') => {
                Err(ApiError::invalid("requests: Input should be a valid list"))
            }
            Some(_) if self.count == 0 => {
                Err(ApiError::invalid("requests: List should have at least 1 item after validation, not 0"))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Why the body is not read on.
fn refusal(error: &ScanError) -> ApiError {
    match error {
        ScanError::LongElement { name, index, limit } => {
            ApiError::request_too_large(format!("{name}.{index}: longer than the {limit} bytes one request may have"))
        }
        ScanError::LongRest { .. } => ApiError::request_too_large(error.to_string()),
        ScanError::Malformed { .. } | ScanError::Twice { .. } => {
            ApiError::invalid(format!("The request body is not valid JSON: {error}"))
        }
    }
}

/// Writes the line of a request. The error says what is wrong with it.
fn write_line(lines: &mut Vec<u8>, number: usize, element: &[u8]) -> Result<(), String> {
    let wrong = |what: String| format!("requests.{number}{what}");
    if element.first() != Some(&b'{') {
        return Err(wrong(": Input should be an object".to_owned()));
    }
    let request: MessageRequest<'_> =
        serde_json::from_slice(element).map_err(|error| wrong(format!(": {}", without_place(&error))))?;
    let is_allowed = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if request.custom_id.is_empty() || request.custom_id.len() > MAX_CUSTOM_ID || !is_allowed(&request.custom_id) {
        let pattern = format!("^[a-zA-Z0-9_-]{{1,{MAX_CUSTOM_ID}}}$");
        return Err(wrong(format!(".custom_id: String should match pattern '{pattern}'")));
    }
    let (custom_id, url) = (&request.custom_id, Endpoint::Messages);
    lines.extend(format!(r#"{{"custom_id":"{custom_id}","method":"POST","url":"{url}","body":"#).bytes());
    lines.extend(request.params.get().bytes());
    lines.extend_from_slice(b"}\n");
    Ok(())
}

/// An error without its place, which is that within a part of the body.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}
