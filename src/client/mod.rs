//! A client of the Files and Batch API: upload, create, wait, download.
//!
//! It speaks to batchwright as to any server with OpenAI's API. What a broken connection cannot do twice is sent again:
//! a download goes on where it broke off, waiting outlasts an outage, and a batch with an idempotency key is created
//! once. Files of any size pass through in pieces.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use batchwright::client::{BatchRequest, Client, Polling};
//!
//! # async fn run() -> Result<(), batchwright::client::ClientError> {
//! let client = Client::new("http://127.0.0.1:8080/v1")?;
//! let file = client.upload_file(Path::new("input.jsonl")).await?;
//! let batch = client.create_batch(&BatchRequest::new(&file.id, "/v1/chat/completions")).await?;
//! let batch = client.wait(&batch.id, Polling::default(), |_| ()).await?;
//! if let Some(output) = &batch.output_file_id {
//!     client.download_to(output, Path::new("output.jsonl")).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod attempts;
mod batches;
mod download;
mod error;
mod objects;
mod results;
mod upload;
mod wait;

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use url::Url;

pub use error::{ClientError, ErrorAnswer};
pub use objects::{BatchRequest, RemoteBatch, RemoteFile};
pub use results::ResultLines;
pub use wait::Polling;

use crate::net::{AnswerProgress, BoundedBody, ClientSettings, read_body};

/// How long an answer may take that is not a file's content.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A page of a hundred batches, each with a thousand errors, is smaller.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A client of one server. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base_url: Url,
}

impl Client {
    /// A client of the server at this base URL, such as `http://127.0.0.1:8080/v1`. A user name and a password in it
    /// are sent as basic authentication. No connection is made yet.
    ///
    /// # Errors
    /// The URL is not one of HTTP, or the system's TLS certificates cannot be used.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        let base_url: Url = base_url.parse().map_err(|_| ClientError::BaseUrl)?;
        if !matches!(base_url.scheme(), "http" | "https") {
            return Err(ClientError::BaseUrl);
        }
        let http = ClientSettings::default().build().map_err(ClientError::Setup)?;
        Ok(Self { http, base_url })
    }

    /// The URL of a resource below the base URL.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        url.path_segments_mut().expect("an HTTP URL has a path").pop_if_empty().extend(segments);
        url
    }
}

/// Sends a request and reads the JSON of its answer.
async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ClientError> {
    match read_body(send(request).await?, MAX_ANSWER_BYTES, &AnswerProgress::default()).await? {
        BoundedBody::Whole(body) => {
            serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected(error.to_string()))
        }
        BoundedBody::TooLong(_) => Err(ClientError::Unexpected(format!("it has more than {MAX_ANSWER_BYTES} bytes"))),
    }
}

/// Sends a request. An answer with the status of an error is an error.
async fn send(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await?;
    if response.status().is_success() { Ok(response) } else { Err(ErrorAnswer::read(response).await) }
}

#[cfg(test)]
mod tests;
