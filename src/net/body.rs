//! Reading a body that may not be longer than a limit.

use bytes::{Bytes, BytesMut};
use reqwest::{Error, Response};

/// What reading a body within a limit came to.
#[derive(Debug)]
pub enum BoundedBody {
    /// The whole body.
    Whole(Bytes),
    /// The body is longer than the limit, by its `Content-Length` or by what has come.
    TooLong(UnfinishedBody),
}

/// A body that is longer than the limit within which it was read.
#[derive(Debug)]
pub struct UnfinishedBody {
    response: Response,
    length: Option<usize>,
    read: BytesMut,
}

/// Reads a body of at most `limit` bytes. Of a body that says it is longer nothing is read.
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
    /// The length that the server gives.
    #[must_use]
    pub fn length(&self) -> Option<usize> {
        self.length
    }

    /// Reads on, within a limit for all of the body.
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
