//! The answer of a server to a call: streamed, merged with those of other rows, or plain, and then read.

use tokio::time::Instant;

use super::Server;
use crate::domain::answer;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::upstream::admission::with_quota_judged;
use crate::upstream::answer_budget::made_of;
use crate::upstream::server_client::ServerClient;
use crate::upstream::streamed::{folded, streamed_body};
use crate::upstream::{Call, ReqwestHttpClient, RowHeaders, UpstreamError};

impl Server {
    /// The answer to a call, of which it is known whether it is one.
    pub(super) async fn answer(&self, call: &Call, headers: &RowHeaders) -> Result<HttpResponse, UpstreamError> {
        let answer = self.answer_as_it_came(call, headers).await?;
        let came = answer.body.clone();
        let mut read = answer::read(call.endpoint, folded(call.endpoint, answer));
        if read.body.as_ptr() != came.as_ptr() {
            read.body = made_of(came, read.body);
        }
        Ok(with_quota_judged(read, self.exhausted_quota))
    }

    async fn answer_as_it_came(&self, call: &Call, headers: &RowHeaders) -> Result<HttpResponse, UpstreamError> {
        match &self.client {
            ServerClient::Http(client) if self.streaming.is_next(call.endpoint) => {
                Box::pin(self.answer_of_stream(client, call, headers)).await
            }
            ServerClient::Http(client) if call.endpoint == Endpoint::Embeddings => {
                match Box::pin(self.merged_calls.answer(client, &self.name, (call, headers))).await {
                    Some(ended) => ended,
                    None => self.plain_answer(client, call, headers).await,
                }
            }
            ServerClient::Http(client) => self.plain_answer(client, call, headers).await,
            ServerClient::Embedded(client) => client.post_boxed(call.clone()).await,
        }
    }

    async fn plain_answer(
        &self,
        client: &ReqwestHttpClient,
        call: &Call,
        headers: &RowHeaders,
    ) -> Result<HttpResponse, UpstreamError> {
        let began = Instant::now();
        let ended = client.call(call, headers).await;
        self.streaming.learn(&self.name, began.elapsed(), &ended);
        ended
    }

    async fn answer_of_stream(
        &self,
        client: &ReqwestHttpClient,
        call: &Call,
        headers: &RowHeaders,
    ) -> Result<HttpResponse, UpstreamError> {
        if let Some(body) = streamed_body(call.endpoint, &call.body) {
            let ended = client.call_streamed(call, body, headers).await;
            let is_refused = ended.as_ref().is_ok_and(|answer| self.streaming.is_refused(&self.name, answer));
            if ended.as_ref().is_ok_and(HttpResponse::is_success) {
                self.streaming.note_answer();
            }
            if !is_refused {
                return ended;
            }
        }
        self.plain_answer(client, call, headers).await
    }
}
