//! Downloading a file.

use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RANGE;
use tokio::fs::{self, File};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::attempts::Attempts;
use super::{Client, ClientError, send};

/// How long the server may send nothing while a file is downloaded.
const QUIET: Duration = Duration::from_secs(60);

impl Client {
    /// Downloads a file to a local path, which has the whole file or is not there: the bytes are kept under
    /// another name until the last has come. Returns the file's size.
    ///
    /// # Errors
    /// As of [`download`](Self::download).
    pub async fn download_to(&self, file_id: &str, path: &Path) -> Result<u64, ClientError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let mut file = File::create(&partial).await?;
        match self.download(file_id, &mut file).await {
            Ok(bytes) => {
                fs::rename(&partial, path).await?;
                Ok(bytes)
            }
            Err(error) => {
                // The error of the download says more than one of the removal.
                let _ = fs::remove_file(&partial).await;
                Err(error)
            }
        }
    }

    /// Downloads a file into memory.
    ///
    /// # Errors
    /// As of [`download`](Self::download).
    pub async fn content(&self, file_id: &str) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        self.download(file_id, &mut bytes).await?;
        Ok(bytes)
    }

    /// Downloads a file to a writer. When the connection breaks it goes on where it broke off. Returns the file's size.
    ///
    /// # Errors
    /// There is no such file, the writer failed, or the server could not be reached several times in a row.
    pub async fn download(&self, file_id: &str, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64, ClientError> {
        let (mut written, mut attempts) = (0, Attempts::new());
        loop {
            let before = written;
            let Err(error) = self.download_rest(file_id, to, &mut written).await else {
                to.flush().await?;
                return Ok(written);
            };
            if written > before {
                attempts = Attempts::new();
            }
            attempts.pause_after(error).await?;
        }
    }

    /// Downloads what comes after the bytes that were written, and counts on.
    async fn download_rest(
        &self,
        file_id: &str,
        to: &mut (impl AsyncWrite + Unpin),
        written: &mut u64,
    ) -> Result<(), ClientError> {
        let mut request = self.http.get(self.url(&["files", file_id, "content"]));
        if *written > 0 {
            request = request.header(RANGE, format!("bytes={written}-"));
        }
        let mut response = in_time(Duration::ZERO, send(request)).await?;
        if *written > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(ClientError::Unexpected("it does not go on with a download that broke off".to_owned()));
        }
        while let Some(piece) = in_time(Duration::ZERO, async { Ok(response.chunk().await?) }).await? {
            to.write_all(&piece).await?;
            *written += piece.len() as u64;
        }
        Ok(())
    }
}

/// Does work that waits for the server, which may be silent for `wait` longer than usual.
pub(super) async fn in_time<T>(
    wait: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(QUIET + wait, work).await.map_err(|_| ClientError::TimedOut)?
}
