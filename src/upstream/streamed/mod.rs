//! Calls whose answers come bit by bit (`stream: true`), and are put together into the ordinary object.
//!
//! A streamed answer shows that the server is at work. So a generation may take as long as it likes, one that has
//! stalled is noticed within a minute, and no proxy between breaks an idle connection. But each token costs server and
//! client a message, and members that are not known here can only be kept by a rule. So calls are plain, until one
//! that took long is broken off.

mod events;
mod fold;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::UpstreamError;
use crate::config::StreamMode;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::domain::response::Fields;
use crate::domain::splitter::BYTE_ORDER_MARK;

pub(super) use events::EventStream;
pub(super) use fold::{Fold, Folded};

/// A call that took so long and was broken off may have been broken off for its silence: proxies allow 60 s or more.
const LONG: Duration = Duration::from_secs(29);

const PLAIN: u8 = 0;
const STREAMED: u8 = 1;
/// The server has refused a streamed call.
const REFUSED: u8 = 2;

/// Whether a server's calls are streamed.
#[derive(Debug)]
pub(super) struct Streaming {
    mode: StreamMode,
    /// What answers have shown, for [`StreamMode::Auto`].
    shown: AtomicU8,
    /// Whether any streamed call was answered with success.
    has_streamed: AtomicBool,
}

impl Streaming {
    pub(super) fn new(mode: StreamMode) -> Self {
        Self { mode, shown: AtomicU8::new(PLAIN), has_streamed: AtomicBool::new(false) }
    }

    /// Whether the next call of an endpoint is streamed.
    pub(super) fn is_next(&self, endpoint: Endpoint) -> bool {
        let has_streams = matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Responses);
        has_streams
            && match self.mode {
                StreamMode::Always => true,
                StreamMode::Never => false,
                StreamMode::Auto => self.shown.load(Relaxed) == STREAMED,
            }
    }

    /// Takes in how a plain call ended. One that took long and was broken off has the following ones streamed.
    pub(super) fn learn(&self, upstream: &str, took: Duration, ended: &Result<HttpResponse, UpstreamError>) {
        let is_broken_off = match ended {
            Ok(response) => matches!(response.status, 408 | 504 | 524),
            Err(error) => matches!(error, UpstreamError::Timeout(_) | UpstreamError::Broken(_)),
        };
        if self.mode == StreamMode::Auto
            && took >= LONG
            && is_broken_off
            && self.shown.compare_exchange(PLAIN, STREAMED, Relaxed, Relaxed).is_ok()
        {
            let seconds = took.as_secs();
            tracing::info!(upstream, seconds, "a long call was broken off: from now on, answers are streamed");
        }
    }

    /// Whether an answer to a streamed call shows that the server does not stream. Then the call is to be made again,
    /// and no further one is streamed.
    pub(super) fn is_refused(&self, upstream: &str, response: &HttpResponse) -> bool {
        let is_refusal = matches!(response.status, 400 | 404 | 405 | 422 | 501) && names_stream(&response.body);
        // Once a stream has come, only the row can be meant.
        let is_news = is_refusal && self.shown.load(Relaxed) == STREAMED && !self.has_streamed.load(Relaxed);
        if is_news && self.mode == StreamMode::Auto {
            self.shown.store(REFUSED, Relaxed);
            tracing::info!(upstream, "the upstream does not stream: calls are plain again");
        }
        is_refusal
    }

    /// Notes that a streamed call was answered with success.
    pub(super) fn note_answer(&self) {
        self.has_streamed.store(true, Relaxed);
    }
}

/// Whether a text has the word `stream` in one of its forms, such as `stream_options`. `upstream` is another word.
fn names_stream(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, b"stream").any(|at| at == 0 || !body[at - 1].is_ascii_alphabetic())
}

/// The body of a call that is streamed; `None` if it is no object.
pub(super) fn streamed_body(endpoint: Endpoint, body: &Bytes) -> Option<Bytes> {
    let mut fields = Fields::read(body).ok()?;
    fields.set("stream", &true);
    if endpoint != Endpoint::Responses {
        fields.set("stream_options", &json!({ "include_usage": true }));
    }
    Some(fields.to_json().into())
}

/// The ordinary object of an answer that is a stream although none was asked for; any other answer as it came.
pub(super) fn folded(endpoint: Endpoint, answer: HttpResponse) -> HttpResponse {
    const BEGINNINGS: [&[u8]; 4] = [b"data:", b"event:", b"id:", b": "];
    let beginning = answer.body.trim_ascii_start();
    let beginning = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning);
    if !answer.is_success() || !BEGINNINGS.iter().any(|of_stream| beginning.starts_with(of_stream)) {
        return answer;
    }
    let (mut events, mut fold) = (EventStream::default(), Fold::new(endpoint));
    events.push(&answer.body);
    events.push(b"\n\n");
    let ended = std::iter::from_fn(|| events.next_event()).find_map(|(data, is_error)| fold.add(&data, is_error));
    match ended.or_else(|| fold.at_end_of_connection()) {
        Some(Folded::Whole(status, body)) => HttpResponse { status, body, ..answer },
        Some(Folded::Unreadable(_)) | None => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::NearlyGood;

    #[test]
    fn calls_are_streamed_once_a_long_one_was_broken_off() {
        let answer = |status| Ok(HttpResponse { status, ..HttpResponse::default() });
        let broken = || Err(UpstreamError::Broken(String::new()));
        // How a plain call ended, after how many seconds, and whether the next is streamed.
        let cases = [
            (answer(200), 600, false),
            (answer(504), 60, true),
            (answer(524), 100, true),
            (answer(504), 5, false),
            (answer(500), 60, false),
            (broken(), 60, true),
            (broken(), 1, false),
            (Err(UpstreamError::Timeout(String::new())), 3_600, true),
            (Err(UpstreamError::Unreachable(String::new())), 60, false),
        ];
        for (ended, seconds, expected) in cases {
            let streaming = Streaming::new(StreamMode::Auto);
            streaming.learn("it", Duration::from_secs(seconds), &ended);
            assert_eq!(streaming.is_next(Endpoint::ChatCompletions), expected, "{ended:?} after {seconds} s");
            assert!(!streaming.is_next(Endpoint::Embeddings));

            let never = Streaming::new(StreamMode::Never);
            never.learn("it", Duration::from_secs(seconds), &ended);
            assert!(!never.is_next(Endpoint::ChatCompletions));
        }
    }

    #[test]
    fn a_server_that_refuses_to_stream_is_called_plainly() {
        let refusal = |body: &'static str| HttpResponse { status: 400, body: body.into(), ..HttpResponse::default() };
        let streaming = Streaming::new(StreamMode::Auto);
        streaming.learn("it", LONG, &Err(UpstreamError::Broken(String::new())));

        for of_row in ["the prompt is too long", "the upstream rejected the prompt"] {
            assert!(
                !streaming.is_refused("it", &refusal(of_row)) && streaming.is_next(Endpoint::Responses),
                "{of_row}"
            );
        }
        assert!(
            streaming.is_refused("it", &refusal("stream is not supported")) && !streaming.is_next(Endpoint::Responses)
        );
        streaming.learn("it", LONG, &Err(UpstreamError::Broken(String::new())));
        assert!(!streaming.is_next(Endpoint::Responses), "it is not asked again and again");
    }

    #[test]
    fn a_body_asks_for_a_stream_with_usage_and_is_otherwise_the_same() {
        let body = Bytes::from_static(br#"{"model":"m","stream":false,"n":1.10}"#);
        let chat = streamed_body(Endpoint::ChatCompletions, &body).expect("an object");
        assert_eq!(chat, &br#"{"model":"m","stream":true,"n":1.10,"stream_options":{"include_usage":true}}"#[..]);
        let responses = streamed_body(Endpoint::Responses, &body).expect("an object");
        assert_eq!(responses, &br#"{"model":"m","stream":true,"n":1.10}"#[..]);
        assert_eq!(streamed_body(Endpoint::Responses, &Bytes::from_static(b"[]")), None);
    }

    fn events(bytes: &[u8], chunk: usize) -> Vec<(Vec<u8>, bool)> {
        let (mut stream, mut events) = (EventStream::default(), Vec::new());
        for chunk in bytes.chunks(chunk) {
            stream.push(chunk);
            events.extend(std::iter::from_fn(|| stream.next_event()));
        }
        events
    }

    fn fold_of(endpoint: Endpoint, events: Vec<(Vec<u8>, bool)>) -> Option<Folded> {
        let mut fold = Fold::new(endpoint);
        events.into_iter().find_map(|(data, is_error)| fold.add(&data, is_error))
    }

    #[test]
    fn fuzz_a_stream_is_the_same_in_whatever_pieces_it_comes_and_what_it_ends_in_is_json() {
        let seeds: [&[u8]; 3] = [
            b"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"a\"}}]}\n\n\
              data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\
              \"finish_reason\":\"stop\"}],\"usage\":{}}\n\n\
              data: [DONE]\n\n",
            b": hi\r\n\r\nevent: error\r\ndata: {\"message\":\"no\",\"code\":503}\r\n\r\n",
            b"data: {\"type\":\"response.created\"}\n\n\
              data: {\"type\":\"response.completed\",\"response\":\
              {\"id\":\"r\",\"status\":\"completed\",\"output\":[]}}\n\n",
        ];
        bolero::check!().with_type::<NearlyGood>().with_iterations(3_000).for_each(|made| {
            let bytes = made.bytes(&seeds);
            assert_eq!(events(&bytes, bytes.len().max(1)), events(&bytes, made.chunk()));
            for endpoint in [Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses] {
                let ended = fold_of(endpoint, events(&bytes, made.chunk()));
                let is_json = |body: &[u8]| serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok();
                assert!(!matches!(ended, Some(Folded::Whole(200, body)) if !is_json(&body)), "an answer is JSON");
            }
        });
    }
}
