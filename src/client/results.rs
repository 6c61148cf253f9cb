//! Reading the results of a batch while it runs.

use std::time::Duration;

use reqwest::Response;

use super::attempts::Attempts;
use super::download::in_time;
use super::{Client, ClientError, send};
use crate::domain::result_cursor::{ResultCursor, ResultKind};

/// How long a server waits for a line at most.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Result lines of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultLines {
    /// Whole lines, byte for byte as the output and the error file have them.
    pub lines: Vec<u8>,
    /// The cursor behind them.
    pub next: ResultCursor,
    /// Whether the batch has ended, and no line comes behind these.
    pub has_ended: bool,
}

impl Client {
    /// The result lines of a batch behind a cursor, about 8 MiB at most. If there are none, the server waits for one,
    /// in whole seconds and for a minute at most. A page whose connection breaks is asked for again.
    ///
    /// # Errors
    /// There is no such batch, the cursor is not one of it, a file of it was deleted, or the server could not be
    /// reached several times in a row.
    pub async fn results_page(
        &self,
        batch_id: &str,
        after: &ResultCursor,
        kind: ResultKind,
        wait: Duration,
    ) -> Result<ResultLines, ClientError> {
        let (wait, mut attempts) = (wait.min(LONGEST_WAIT), Attempts::new());
        loop {
            match self.results_once(batch_id, after, kind, wait).await {
                Err(error) => attempts.pause_after(error).await?,
                page => return page,
            }
        }
    }

    async fn results_once(
        &self,
        batch_id: &str,
        after: &ResultCursor,
        kind: ResultKind,
        wait: Duration,
    ) -> Result<ResultLines, ClientError> {
        let mut url = self.url(&["batches", batch_id, "results"]);
        url.query_pairs_mut()
            .append_pair("after", &after.to_string())
            .append_pair("kind", kind.as_str())
            .append_pair("wait", &wait.as_secs().to_string());
        let mut response = in_time(wait, send(self.http.get(url))).await?;
        let next = header(&response, "batchwright-next-cursor").and_then(ResultCursor::parse);
        let has_ended = header(&response, "batchwright-has-ended").and_then(|text| text.parse().ok());
        let (Some(next), Some(has_ended)) = (next, has_ended) else {
            return Err(ClientError::Unexpected(
                "it has no cursor, as only servers of batchwright send one".to_owned(),
            ));
        };
        let mut lines = Vec::new();
        while let Some(piece) = in_time(Duration::ZERO, async { Ok(response.chunk().await?) }).await? {
            lines.extend_from_slice(&piece);
        }
        Ok(ResultLines { lines, next, has_ended })
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}
