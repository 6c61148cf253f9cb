//! Reads the body of a response up to a limit.

use bytes::{Bytes, BytesMut};
use reqwest::{Error, Response};

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

/// Reads a body of at most `limit` bytes. If its `Content-Length` is larger, nothing is read.
///
/// # Errors
/// The connection broke.
pub async fn read_body(response: Response, limit: usize) -> Result<BoundedBody, Error> {
    let length = response.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    match length {
        // A body in one piece is not copied.
        Some(length) if length <= limit => Ok(BoundedBody::Whole(response.bytes().await?)),
        Some(_) => Ok(BoundedBody::TooLong(UnfinishedBody { response, length, read: BytesMut::new() })),
        None => UnfinishedBody { response, length, read: BytesMut::new() }.read_on(limit).await,
    }
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
    pub async fn read_on(mut self, limit: usize) -> Result<BoundedBody, Error> {
        if let Some(length) = self.length {
            self.read.reserve(length.min(limit).saturating_sub(self.read.len()));
        }
        while self.read.len() <= limit {
            let Some(chunk) = self.response.chunk().await? else { return Ok(BoundedBody::Whole(self.read.freeze())) };
            self.read.extend_from_slice(&chunk);
        }
        Ok(BoundedBody::TooLong(self))
    }

    /// Reads until there are `limit` bytes, and cuts off the rest.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn read_beginning(self, limit: usize) -> Result<Bytes, Error> {
        Ok(match self.read_on(limit).await? {
            BoundedBody::Whole(body) => body,
            BoundedBody::TooLong(mut rest) => {
                rest.read.truncate(limit);
                rest.read.freeze()
            }
        })
    }
}
