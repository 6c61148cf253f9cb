//! Reading, listing and deleting files.

use serde::Deserialize;

use super::{ANSWER_TIMEOUT, Client, ClientError, RemoteFile, json, send};
use crate::domain::page::Page;

#[derive(Deserialize)]
struct FileList {
    data: Vec<RemoteFile>,
    // OpenAI's reference has it, and some servers forget it.
    #[serde(default)]
    has_more: bool,
}

impl Client {
    /// What the server says of a file.
    ///
    /// # Errors
    /// There is no such file, or the server could not be reached.
    pub async fn file(&self, id: &str) -> Result<RemoteFile, ClientError> {
        json(self.http.get(self.url(&["files", id])).timeout(ANSWER_TIMEOUT)).await
    }

    /// The newest files: as many as the server gives at once or at most `limit`, and only those older than the one with
    /// the id `after`.
    ///
    /// # Errors
    /// The server could not be reached.
    pub async fn files(
        &self,
        purpose: Option<&str>,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<RemoteFile>, ClientError> {
        let mut url = self.url(&["files"]);
        url.query_pairs_mut()
            .extend_pairs(purpose.map(|purpose| ("purpose", purpose)))
            .extend_pairs(after.map(|id| ("after", id)))
            .extend_pairs(limit.map(|limit| ("limit", limit.to_string())));
        let FileList { data, has_more } = json(self.http.get(url).timeout(ANSWER_TIMEOUT)).await?;
        Ok(Page { data, has_more })
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// There is no such file, or the server could not be reached.
    pub async fn delete_file(&self, id: &str) -> Result<(), ClientError> {
        send(self.http.delete(self.url(&["files", id])).timeout(ANSWER_TIMEOUT)).await?;
        Ok(())
    }
}
