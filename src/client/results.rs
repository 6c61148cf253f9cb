//! The result lines of a batch while it runs: an extension of batchwright, which other servers do not have.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::HeaderMap;

use super::{Client, ClientError, in_time, send};
use crate::domain::result_cursor::{ResultCursor, ResultKind};

const NEXT_CURSOR: &str = "batchwright-next-cursor";
const HAS_ENDED: &str = "batchwright-has-ended";

/// Which lines are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsQuery {
    /// Only those behind this cursor.
    pub after: Option<ResultCursor>,
    /// Their kind.
    pub kind: ResultKind,
    /// How long the server may wait for a line, if it has none: at most a minute.
    pub wait: Duration,
    /// In the order of the input file, which only a batch that has ended can give: one answer with all lines. A server
    /// refuses `after` and `wait` beside it.
    pub is_in_input_order: bool,
}

/// Lines that the server sends, with their line ends.
#[derive(Debug)]
pub struct ResultLines {
    response: Response,
    /// The cursor behind the last of the lines.
    pub next_cursor: ResultCursor,
    /// Whether the batch has ended, and no line comes after these.
    pub has_ended: bool,
}

impl Client {
    /// The lines of a batch that are durable, or `None` if the server does not tell before the end. Whether there is
    /// such a batch, only [`batch`](Self::batch) says.
    ///
    /// # Errors
    /// The server refused it, or could not be reached.
    pub async fn results(&self, id: &str, query: &ResultsQuery) -> Result<Option<ResultLines>, ClientError> {
        let mut url = self.url(&["batches", id, "results"]);
        url.query_pairs_mut()
            .extend_pairs(query.after.map(|cursor| ("after", cursor.to_string())))
            .append_pair("kind", query.kind.as_str())
            .extend_pairs((!query.wait.is_zero()).then(|| ("wait", query.wait.as_secs().to_string())))
            .extend_pairs(query.is_in_input_order.then_some(("order", "input")));
        let response = match in_time(query.wait, send(self.http.get(url))).await {
            Ok(response) => response,
            Err(error) if error.is_not_there() => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = |headers: &HeaderMap, name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        // Other servers have other things at this path.
        let next_cursor = header(response.headers(), NEXT_CURSOR).as_deref().and_then(ResultCursor::parse);
        let Some(next_cursor) = next_cursor else { return Ok(None) };
        let has_ended = header(response.headers(), HAS_ENDED).as_deref() == Some("true");
        Ok(Some(ResultLines { response, next_cursor, has_ended }))
    }
}

impl ResultLines {
    /// The next piece of the lines, cut anywhere; `None` after the last.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        in_time(Duration::ZERO, async { Ok(self.response.chunk().await?) }).await
    }
}
