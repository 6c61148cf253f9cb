//! Reads the body of a response up to a limit.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use reqwest::{Error, Response};
use tokio::time::Instant;

use crate::sync::lock;

/// How much of an answer has come, and when, for its time limits and the words of its failure.
#[derive(Debug, Default)]
pub struct AnswerProgress {
    has_head: AtomicBool,
    bytes: AtomicUsize,
    last: Mutex<Option<Instant>>,
}

impl AnswerProgress {
    /// Notes that the head has come.
    pub fn note_head(&self) {
        self.has_head.store(true, Relaxed);
    }

    /// Notes further bytes of the body.
    pub fn note(&self, chunk: &[u8]) {
        self.bytes.fetch_add(chunk.len(), Relaxed);
        let mut last = lock(&self.last);
        if last.is_some() || !chunk.trim_ascii().is_empty() {
            *last = Some(Instant::now());
        }
    }

    /// When the last bytes have come; `None` before the first that is no white space, which servers and proxies send to
    /// keep a connection open while they work.
    pub fn last_bytes(&self) -> Option<Instant> {
        *lock(&self.last)
    }
}

impl fmt::Display for AnswerProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes.load(Relaxed) {
            0 if !self.has_head.load(Relaxed) => f.write_str("before its answer began"),
            0 => f.write_str("after the head of its answer"),
            bytes => write!(f, "after {bytes} bytes of its answer"),
        }
    }
}

/// The result of reading a body up to a limit.
#[derive(Debug)]
pub enum BoundedBody {
    /// The whole body.
    Whole(Bytes),
    /// The body is longer than the limit, by its `Content-Length` or by the bytes so far.
    TooLong(UnfinishedBody),
}

/// A body that is longer than the limit, with the bytes that were read.
#[derive(Debug)]
pub struct UnfinishedBody {
    response: Response,
    length: Option<usize>,
    read: BytesMut,
}

/// Reads a body of at most `limit` bytes, and counts them. If its `Content-Length` is larger, nothing is read.
///
/// # Errors
/// The connection broke.
pub async fn read_body(mut response: Response, limit: usize, received: &AnswerProgress) -> Result<BoundedBody, Error> {
    let length = response.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if length.is_some_and(|length| length > limit) {
        return Ok(BoundedBody::TooLong(UnfinishedBody { response, length, read: BytesMut::new() }));
    }
    let Some(first) = response.chunk().await? else { return Ok(BoundedBody::Whole(Bytes::new())) };
    received.note(&first);
    // A body in one piece is not copied.
    if length == Some(first.len()) {
        return Ok(BoundedBody::Whole(first));
    }
    let mut read = BytesMut::with_capacity(length.unwrap_or(first.len()));
    read.extend_from_slice(&first);
    UnfinishedBody { response, length, read }.read_on(limit, received).await
}

impl UnfinishedBody {
    /// The `Content-Length`, if the server sent one.
    #[must_use]
    pub fn length(&self) -> Option<usize> {
        self.length
    }

    /// Continues reading, up to a limit for the whole body.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn read_on(mut self, limit: usize, received: &AnswerProgress) -> Result<BoundedBody, Error> {
        if let Some(length) = self.length {
            self.read.reserve(length.min(limit).saturating_sub(self.read.len()));
        }
        while self.read.len() <= limit {
            let Some(chunk) = self.response.chunk().await? else { return Ok(BoundedBody::Whole(self.read.freeze())) };
            received.note(&chunk);
            self.read.extend_from_slice(&chunk);
        }
        Ok(BoundedBody::TooLong(self))
    }

    /// Reads until there are `limit` bytes, and cuts off the rest.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn read_beginning(self, limit: usize, received: &AnswerProgress) -> Result<Bytes, Error> {
        Ok(match self.read_on(limit, received).await? {
            BoundedBody::Whole(body) => body,
            BoundedBody::TooLong(mut rest) => {
                rest.read.truncate(limit);
                rest.read.freeze()
            }
        })
    }
}
