//! Uploading the input file of a batch.

use std::path::Path;

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use tokio::fs::File;
use tokio::io::AsyncSeekExt as _;
use tokio_util::io::ReaderStream;

use super::{Client, ClientError, RemoteFile, json};
use crate::domain::file::Purpose;

/// Bytes that are read from a file at once.
const PIECE: usize = 256 << 10;

impl Client {
    /// Uploads a local file as the input of a batch, in pieces as they are read.
    ///
    /// # Errors
    /// The file cannot be read, the server refused it, or the server could not be reached. An upload is not sent again:
    /// the file may be there.
    pub async fn upload_file(&self, path: &Path) -> Result<RemoteFile, ClientError> {
        let file = File::open(path).await?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.upload_open_file(file, name.unwrap_or_default(), |_| ()).await
    }

    /// Uploads an open local file, from its current position on, under this name. `sent` is called with the size of
    /// each piece as it is sent.
    ///
    /// # Errors
    /// As of [`upload_file`](Self::upload_file).
    pub async fn upload_open_file(
        &self,
        mut file: File,
        filename: String,
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<RemoteFile, ClientError> {
        let length = file.metadata().await?.len() - file.stream_position().await?;
        let pieces = ReaderStream::with_capacity(file, PIECE).inspect(move |piece| {
            if let Ok(piece) = piece {
                sent(piece.len() as u64);
            }
        });
        self.upload(Part::stream_with_length(Body::wrap_stream(pieces), length).file_name(filename)).await
    }

    /// Uploads bytes as the input of a batch.
    ///
    /// # Errors
    /// As of [`upload_file`](Self::upload_file).
    pub async fn upload_bytes(&self, filename: &str, bytes: impl Into<Bytes>) -> Result<RemoteFile, ClientError> {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        self.upload(Part::stream_with_length(bytes, length).file_name(filename.to_owned())).await
    }

    /// No time-out: how long an upload takes depends on its size.
    async fn upload(&self, file: Part) -> Result<RemoteFile, ClientError> {
        // The purpose comes first, so that the server knows how to read the file.
        let form = Form::new().text("purpose", Purpose::Batch.as_str()).part("file", file);
        json(self.http.post(self.url(&["files"])).multipart(form)).await
    }
}
