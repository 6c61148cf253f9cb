//! Asking an upstream for a response, through the API it has.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::config::Dialect;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::{FailureReason, HttpResponse};
use crate::domain::response::{BadAnswer, Fields, ItemIds, Turn, chat, native};
use crate::processor::ShouldRetry;
use crate::upstream::{Call, HttpClient};

/// Which API the upstream is asked through, and what was found out about it.
pub(super) struct Asker {
    dialect: Dialect,
    /// An answer has shown that there is no `/v1/responses`.
    lacks_responses: AtomicBool,
}

impl Asker {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, lacks_responses: AtomicBool::new(false) }
    }

    /// Whether the upstream is asked through `/v1/responses`.
    pub(super) fn is_native(&self) -> bool {
        match self.dialect {
            Dialect::Native => true,
            Dialect::Chat => false,
            Dialect::Auto => !self.lacks_responses.load(Ordering::Relaxed),
        }
    }

    /// Whether an answer of `/v1/responses` shows that there is no such thing, which is then remembered.
    pub(super) fn finds_none(&self, response: &HttpResponse) -> bool {
        let is_none = self.dialect == Dialect::Auto && shows_no_endpoint(response);
        if is_none && !self.lacks_responses.swap(true, Ordering::Relaxed) {
            tracing::info!("the upstream has no /v1/responses; rows for it are sent to /v1/chat/completions");
        }
        is_none
    }

    /// Asks for one turn. `ids` name its items, and its calls if they have none of their own or one that is `used`.
    pub(super) async fn ask(
        &self,
        http: &impl HttpClient,
        request: &Fields,
        key: &str,
        ids: &ItemIds,
        used: &HashSet<String>,
        should_retry: &ShouldRetry,
    ) -> Result<Turn, FailureReason> {
        if self.is_native() {
            let call = Call { endpoint: Endpoint::Responses, key: key.to_owned(), body: request.to_json().into() };
            let response = http.post(call).await?;
            if !self.finds_none(&response) {
                let body = success(response, should_retry)?;
                return native::turn(&body, ids, used).map_err(reason);
            }
        }
        self.ask_chat(http, request, key, ids, used, should_retry).await
    }

    /// Asks for one turn through `/v1/chat/completions`.
    pub(super) async fn ask_chat(
        &self,
        http: &impl HttpClient,
        request: &Fields,
        key: &str,
        ids: &ItemIds,
        used: &HashSet<String>,
        should_retry: &ShouldRetry,
    ) -> Result<Turn, FailureReason> {
        let request = chat::request(request).map_err(|error| FailureReason::Unsupported(error.to_string()))?;
        let call = Call { endpoint: Endpoint::ChatCompletions, key: key.to_owned(), body: request.to_json().into() };
        let body = success(http.post(call).await?, should_retry)?;
        chat::turn(&body, ids, used).map_err(reason)
    }
}

fn reason(bad: BadAnswer) -> FailureReason {
    match bad {
        BadAnswer::MayPass(text) => FailureReason::Network(text),
        BadAnswer::Final(text) => FailureReason::InvalidAnswer(text),
    }
}

/// The body of an answer that is neither to be tried again nor an error.
fn success(response: HttpResponse, should_retry: &ShouldRetry) -> Result<Bytes, FailureReason> {
    if should_retry(&response) {
        Err(FailureReason::RetriableHttpStatus(response))
    } else if response.is_success() {
        Ok(response.body)
    } else {
        Err(FailureReason::NonRetriableHttpStatus(response))
    }
}

/// An unknown model is answered 404 too, but with its name or the word.
fn shows_no_endpoint(response: &HttpResponse) -> bool {
    matches!(response.status, 404 | 405 | 501)
        && !String::from_utf8_lossy(&response.body).to_ascii_lowercase().contains("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_may_pass_is_asked_for_again() {
        assert!(reason(BadAnswer::MayPass(String::new())).is_retriable());
        assert!(!reason(BadAnswer::Final(String::new())).is_retriable());
    }

    #[test]
    fn a_missing_endpoint_is_told_from_a_missing_model() {
        let cases = [
            (404, r#"{"detail":"Not Found"}"#, true),
            (404, "404 page not found", true),
            (404, r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#, true),
            (405, "", true),
            (501, r#"{"error":{"message":"not implemented"}}"#, true),
            (404, r#"{"object":"error","message":"The model `m` does not exist.","code":404}"#, false),
            (400, r#"{"detail":"Not Found"}"#, false),
            (200, "{}", false),
            (500, "", false),
        ];
        for (status, body, expected) in cases {
            let body = Bytes::from_static(body.as_bytes());
            let response = HttpResponse { status, request_id: None, retry_after: None, body };

            assert_eq!(shows_no_endpoint(&response), expected, "{status}");
            let asker = Asker::new(Dialect::Auto);
            assert!(asker.is_native());
            assert_eq!(asker.finds_none(&response), expected);
            assert_eq!(asker.is_native(), !expected, "it is remembered");
            assert!(!Asker::new(Dialect::Native).finds_none(&response), "who says so is believed");
        }
    }
}
