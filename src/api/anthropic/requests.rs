//! The body of a call that creates a message batch, as the lines of a batch input file.

use std::collections::VecDeque;

use axum::body::{BodyDataStream, Bytes};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::ApiError;
use crate::api::router::JSON_BODY_BYTES;
use crate::api::server::BodyCut;
use crate::domain::element_splitter::{ElementError, ElementLimits, ElementSplitter};
use crate::domain::endpoint::Endpoint;

/// The most characters of a `custom_id`, as at Anthropic.
const MAX_CUSTOM_ID: usize = 64;
/// What a line has besides a request.
const LINE_ENVELOPE: usize = 200;

/// Reads the requests one by one, as they come.
pub(super) struct RequestLines {
    body: BodyDataStream,
    splitter: Option<ElementSplitter>,
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

impl RequestLines {
    /// A reader of a body whose lines may have so many bytes.
    pub(super) fn new(body: BodyDataStream, max_line_bytes: usize) -> Self {
        let element = max_line_bytes.saturating_sub(LINE_ENVELOPE);
        let splitter = ElementSplitter::new("requests", ElementLimits { element, rest: JSON_BODY_BYTES });
        Self { body, splitter: Some(splitter), count: 0, lines: VecDeque::new(), has_ended: false }
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
                Some(Err(error)) => Err(BodyCut::behind(&error).map_or_else(broken, ApiError::cut)),
                None => self.end(),
            };
            if let Err(error) = read {
                self.has_ended = true;
                return Some(Err(error));
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let Some(splitter) = &mut self.splitter else { return Ok(()) };
        let (mut lines, count) = (Vec::new(), &mut self.count);
        splitter
            .push(chunk, |element| {
                write_line(&mut lines, *count, element)?;
                *count += 1;
                Ok(())
            })
            .map_err(|refusal: Refusal| refusal.into_error(self.count))?;
        if !lines.is_empty() {
            self.lines.push_back(lines.into());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ApiError> {
        self.has_ended = true;
        let rest = self.splitter.take().map(ElementSplitter::finish).unwrap_or_default();
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

/// Why a request is none.
enum Refusal {
    Splitter(ElementError),
    Request(String),
}

impl From<ElementError> for Refusal {
    fn from(error: ElementError) -> Self {
        Self::Splitter(error)
    }
}

impl Refusal {
    /// The error of the request with this number.
    fn into_error(self, number: usize) -> ApiError {
        match self {
            Self::Request(message) => ApiError::invalid(message),
            Self::Splitter(ElementError::ElementTooLong(limit)) => {
                let message = format!("requests.{number}: longer than the {limit} bytes one request may have");
                ApiError::request_too_large(message)
            }
            Self::Splitter(error @ ElementError::RestTooLong(_)) => ApiError::request_too_large(error.to_string()),
        }
    }
}

/// Writes the line of a request.
fn write_line(lines: &mut Vec<u8>, number: usize, element: &[u8]) -> Result<(), Refusal> {
    let wrong = |what: String| Refusal::Request(format!("requests.{number}{what}"));
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
    let start = lines.len();
    let (custom_id, url) = (&request.custom_id, Endpoint::Messages);
    lines.extend(format!(r#"{{"custom_id":"{custom_id}","method":"POST","url":"{url}","body":"#).bytes());
    lines.extend(request.params.get().bytes());
    lines.push(b'}');
    // Line breaks stand between members only: JSON has none in texts.
    for byte in &mut lines[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    lines.push(b'\n');
    Ok(())
}

/// An error without its place, which is that within a part of the body.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn broken() -> ApiError {
    ApiError::invalid("The body of the request cannot be read.")
}
