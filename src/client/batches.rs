//! Creating, reading, listing and cancelling batches.

use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::{ANSWER_TIMEOUT, BatchRequest, Client, ClientError, RemoteBatch, RetryRequest, json};
use crate::domain::page::Page;
use crate::net::IDEMPOTENCY_KEY;

#[derive(Deserialize)]
struct BatchList {
    data: Vec<RemoteBatch>,
    has_more: bool,
}

impl Client {
    /// Creates a batch. The input file is validated afterwards: see [`RemoteBatch::errors`].
    ///
    /// # Errors
    /// The server refused it, or could not be reached. Without an idempotency key it may have been created all the
    /// same.
    pub async fn create_batch(&self, new: &BatchRequest) -> Result<RemoteBatch, ClientError> {
        self.create(new, new.idempotency_key.as_deref()).await
    }

    /// Creates a batch of the rows of another one that did not succeed: an extension of batchwright.
    ///
    /// # Errors
    /// As of [`create_batch`](Self::create_batch).
    pub async fn retry_batch(&self, new: &RetryRequest) -> Result<RemoteBatch, ClientError> {
        self.create(new, new.idempotency_key.as_deref()).await
    }

    async fn create(&self, new: &impl Serialize, key: Option<&str>) -> Result<RemoteBatch, ClientError> {
        let request = || self.http.post(self.url(&["batches"])).json(new).timeout(ANSWER_TIMEOUT);
        let Some(key) = key else { return json(request()).await };
        let mut attempts = Attempts::new();
        loop {
            match json(request().header(&IDEMPOTENCY_KEY, key)).await {
                Err(error) => attempts.pause_after(error).await?,
                created => return created,
            }
        }
    }

    /// A batch as it stands.
    ///
    /// # Errors
    /// There is no such batch, or the server could not be reached.
    pub async fn batch(&self, id: &str) -> Result<RemoteBatch, ClientError> {
        json(self.http.get(self.url(&["batches", id])).timeout(ANSWER_TIMEOUT)).await
    }

    /// The newest batches: at most `limit`, which may be 100, and only those older than the one with the id `after`.
    ///
    /// # Errors
    /// The server could not be reached.
    pub async fn batches(&self, after: Option<&str>, limit: u32) -> Result<Page<RemoteBatch>, ClientError> {
        let mut url = self.url(&["batches"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string()).extend_pairs(after.map(|id| ("after", id)));
        let BatchList { data, has_more } = json(self.http.get(url).timeout(ANSWER_TIMEOUT)).await?;
        Ok(Page { data, has_more })
    }

    /// Cancels a batch. It ends as `cancelled` once its calls have stopped, and keeps what it has.
    ///
    /// # Errors
    /// It has ended already, there is no such batch, or the server could not be reached.
    pub async fn cancel_batch(&self, id: &str) -> Result<RemoteBatch, ClientError> {
        self.steer_batch(id, "cancel").await
    }

    /// Pauses a batch: the calls under way end, and no new row starts. An extension of batchwright.
    ///
    /// # Errors
    /// It has ended already, there is no such batch, the server cannot pause, or it could not be reached.
    pub async fn pause_batch(&self, id: &str) -> Result<RemoteBatch, ClientError> {
        self.steer_batch(id, "pause").await
    }

    /// Lets a paused batch go on. An extension of batchwright.
    ///
    /// # Errors
    /// As of [`pause_batch`](Self::pause_batch).
    pub async fn resume_batch(&self, id: &str) -> Result<RemoteBatch, ClientError> {
        self.steer_batch(id, "resume").await
    }

    async fn steer_batch(&self, id: &str, verb: &str) -> Result<RemoteBatch, ClientError> {
        json(self.http.post(self.url(&["batches", id, verb])).timeout(ANSWER_TIMEOUT)).await
    }
}
