//! Embeddings of several rows in one call.
//!
//! Rows that are to be sent at about the same time, and that differ in nothing but their input (nor in the headers of
//! their batch's metadata), are one call: its input is the list of theirs, and its answer is split into the objects
//! that their own calls would have had. The first of them makes the call, and the others wait for it. If it is refused,
//! or its answer is not as expected, each row is called by itself.

mod split;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::oneshot;

use super::row_headers::ChosenMetadata;
use super::{Call, ReqwestHttpClient, RowHeaders, UpstreamError};
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::sync::lock;

use self::split::EmbeddingsRow;

/// How long the first row waits for others.
const WINDOW: Duration = Duration::from_millis(1);
/// Bytes that the inputs of a call may have together.
const MOST_BYTES: usize = 1 << 20;
/// After so many merged calls in a row that were refused, no call is merged any more.
const MOST_REFUSALS: u32 = 3;

/// The rows that wait to be sent together.
#[derive(Debug)]
pub(super) struct MergedCalls {
    /// Inputs that a call may have.
    most: usize,
    /// By what their calls have in common.
    groups: Mutex<HashMap<InCommon, Vec<Member>>>,
    /// Merged calls that were refused in a row.
    refusals: AtomicU32,
}

/// What the calls of rows have in common: their bodies but for the input, and the headers of their metadata.
type InCommon = (Bytes, ChosenMetadata);

/// A row of a group.
#[derive(Debug)]
struct Member {
    row: EmbeddingsRow,
    key: String,
    answered: oneshot::Sender<Shared>,
}

/// What a merged call came to for one of its rows: None if the row is to be called by itself.
type Shared = Option<Result<HttpResponse, UpstreamError>>;

impl MergedCalls {
    /// Calls with at most so many inputs; with 1 or less, no call is merged.
    pub(super) fn new(most: usize) -> Self {
        Self { most, groups: Mutex::default(), refusals: AtomicU32::new(0) }
    }

    /// The row, if it may be sent together with others.
    fn row(&self, call: &Call) -> Option<EmbeddingsRow> {
        let may_merge =
            call.endpoint == Endpoint::Embeddings && self.most > 1 && self.refusals.load(Relaxed) < MOST_REFUSALS;
        let row = EmbeddingsRow::read(&call.body).filter(|_| may_merge)?;
        (row.inputs() <= self.most && row.bytes() <= MOST_BYTES).then_some(row)
    }

    /// The answer to a row that was sent together with others. None if it is to be called by itself.
    pub(super) async fn answer(
        &self,
        client: &ReqwestHttpClient,
        upstream: &str,
        (call, headers): (&Call, &RowHeaders),
    ) -> Shared {
        let row = self.row(call)?;
        let metadata = headers.metadata();
        let common = (row.common().clone(), metadata.clone());
        let (answered, answer) = oneshot::channel();
        let is_first = {
            let mut groups = lock(&self.groups);
            let group = groups.entry(common.clone()).or_default();
            group.push(Member { row, key: call.key.clone(), answered });
            group.len() == 1
        };
        if is_first {
            let group = OpenGroup { calls: self, common };
            tokio::time::sleep(WINDOW).await;
            let members = group.close();
            let calls = self.in_calls(members).into_iter();
            join_all(calls.map(|members| self.make(client, upstream, (call, metadata), members))).await;
        }
        // A row whose first has given up is called by itself.
        answer.await.unwrap_or_default()
    }

    /// The members in groups that a call may have.
    fn in_calls(&self, members: Vec<Member>) -> Vec<Vec<Member>> {
        let mut calls: Vec<Vec<Member>> = Vec::new();
        let (mut inputs, mut bytes) = (0, 0);
        for member in members {
            inputs += member.row.inputs();
            bytes += member.row.bytes();
            match calls.last_mut() {
                Some(last) if inputs <= self.most && bytes <= MOST_BYTES => last.push(member),
                _ => {
                    (inputs, bytes) = (member.row.inputs(), member.row.bytes());
                    calls.push(vec![member]);
                }
            }
        }
        calls
    }

    /// Makes a call for rows, and hands its answer out to them.
    async fn make(
        &self,
        client: &ReqwestHttpClient,
        upstream: &str,
        (call, metadata): (&Call, &ChosenMetadata),
        members: Vec<Member>,
    ) {
        // Dropping a member has its row called by itself.
        if members.len() < 2 {
            return;
        }
        let rows: Vec<&EmbeddingsRow> = members.iter().map(|member| &member.row).collect();
        let merged = Call { key: key(&members), body: split::merged(&rows), ..call.clone() };
        let answer = client.call_for_rows(&merged, metadata).await;
        let shared = match &answer {
            Ok(response) if response.is_success() => split::split(response, &rows),
            // It is about the server, and so about all of them.
            Ok(response) if matches!(response.status, 401 | 402 | 429 | 503 | 529) => {
                Some(vec![response.clone(); members.len()])
            }
            Err(error @ UpstreamError::Unreachable(_)) => {
                return members.into_iter().for_each(|member| member.hand_out(Some(Err(error.clone()))));
            }
            // One of the rows may be the cause.
            Err(_) => return,
            Ok(response) if response.status >= 500 => return,
            Ok(_) => None,
        };
        let Some(responses) = shared else {
            if self.refusals.fetch_add(1, Relaxed) + 1 == MOST_REFUSALS {
                tracing::info!(
                    upstream,
                    "the upstream does not take several embeddings in one call: each is sent alone"
                );
            }
            return;
        };
        self.refusals.store(0, Relaxed);
        for (member, response) in members.into_iter().zip(responses) {
            member.hand_out(Some(Ok(response)));
        }
    }
}

/// A group that rows may still join. If its first row gives up, its others are called by themselves.
struct OpenGroup<'a> {
    calls: &'a MergedCalls,
    common: InCommon,
}

impl OpenGroup<'_> {
    /// Lets no further row join.
    fn close(mut self) -> Vec<Member> {
        self.take()
    }

    /// The members, once: no group has an empty key.
    fn take(&mut self) -> Vec<Member> {
        lock(&self.calls.groups).remove(&std::mem::take(&mut self.common)).unwrap_or_default()
    }
}

impl Drop for OpenGroup<'_> {
    fn drop(&mut self) {
        self.take();
    }
}

impl Member {
    fn hand_out(self, shared: Shared) {
        // Its row may have been given up.
        let _ = self.answered.send(shared);
    }
}

/// A key that is the same for the same rows alone.
fn key(members: &[Member]) -> String {
    let mut hasher = DefaultHasher::new();
    for member in members {
        hasher.write(member.key.as_bytes());
    }
    format!("{}.{:016x}", members[0].key, hasher.finish())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::domain::ids::{BatchId, RequestId};
    use crate::domain::time::Clock;
    use crate::upstream::UpstreamSettings;

    #[tokio::test]
    async fn rows_whose_first_gives_up_are_called_by_themselves() {
        let settings = UpstreamSettings {
            base_url: "http://127.0.0.1:9/v1".parse().expect("a URL"),
            headers: HeaderMap::new(),
            tls: None,
            timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            max_idle: 1,
        };
        let client = ReqwestHttpClient::new(&settings, Clock::System).expect("plain settings");
        let body = Bytes::from_static(br#"{"model":"m","input":"a"}"#);
        let call = Call { endpoint: Endpoint::Embeddings, model: "m".into(), key: "k".to_owned(), body, file: None };
        let headers = RowHeaders::of(RequestId { batch: BatchId::new(), row: 0 }, "row");
        let call = (&call, &headers);
        let merged = MergedCalls::new(32);
        let mut first = Box::pin(merged.answer(&client, "it", call));
        let mut second = Box::pin(merged.answer(&client, "it", call));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());

        drop(first);

        let within = Duration::from_secs(5);
        let answered = tokio::time::timeout(within, second).await;
        assert!(answered.expect("it does not wait for what was given up").is_none());
        let later = tokio::time::timeout(within, merged.answer(&client, "it", call)).await;
        assert!(later.expect("nor does a later one").is_none());
    }
}
