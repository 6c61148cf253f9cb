//! Asking an upstream for a response, through the API it has.

use std::collections::HashSet;
use std::sync::OnceLock;

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
    /// Whether it has `/v1/responses`, once an answer has shown that.
    has_responses: OnceLock<bool>,
}

impl Asker {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, has_responses: OnceLock::new() }
    }

    /// Whether the upstream is asked through `/v1/responses`.
    pub(super) fn is_native(&self) -> bool {
        match self.dialect {
            Dialect::Native => true,
            Dialect::Chat => false,
            Dialect::Auto => self.has_responses.get() != Some(&false),
        }
    }

    /// Whether an answer of `/v1/responses` shows that there is no such thing. The first that shows the one or the other
    /// is remembered.
    pub(super) fn finds_none(&self, response: &HttpResponse) -> bool {
        if self.dialect != Dialect::Auto {
            return false;
        }
        if response.is_success() {
            self.has_responses.get_or_init(|| true);
        } else if shows_no_endpoint(response) {
            return !*self.has_responses.get_or_init(|| {
                tracing::info!("the upstream has no /v1/responses; rows for it are sent to /v1/chat/completions");
                false
            });
        }
        false
    }

    /// Asks for one turn.
    pub(super) async fn ask(
        &self,
        http: &impl HttpClient,
        question: &Question<'_>,
        should_retry: &ShouldRetry,
    ) -> Result<Turn, FailureReason> {
        if self.is_native() {
            let body = native_request(question.request).to_json().into();
            let call = Call { endpoint: Endpoint::Responses, key: question.key.clone(), body };
            let response = http.post(call).await?;
            if !self.finds_none(&response) {
                let body = success(response, should_retry)?;
                return native::turn(&body, &question.ids, &question.used).map_err(reason);
            }
        }
        self.ask_chat(http, question, should_retry).await
    }

    /// Asks for one turn through `/v1/chat/completions`.
    pub(super) async fn ask_chat(
        &self,
        http: &impl HttpClient,
        question: &Question<'_>,
        should_retry: &ShouldRetry,
    ) -> Result<Turn, FailureReason> {
        let request = chat::request(question.request).map_err(|error| FailureReason::Unsupported(error.to_string()))?;
        let body = request.to_json().into();
        let call = Call { endpoint: Endpoint::ChatCompletions, key: question.key.clone(), body };
        let body = success(http.post(call).await?, should_retry)?;
        chat::turn(&body, &question.ids, &question.used).map_err(reason)
    }
}

/// What is asked for one turn.
pub(super) struct Question<'a> {
    /// A body for `/v1/responses`.
    pub(super) request: &'a Fields,
    /// The idempotency key.
    pub(super) key: String,
    /// Ids for its items, and for its calls if they have none of their own or one that is `used`.
    pub(super) ids: ItemIds,
    /// Ids of calls of the turns before.
    pub(super) used: HashSet<String>,
}

fn reason(bad: BadAnswer) -> FailureReason {
    match bad {
        BadAnswer::MayPass(text) => FailureReason::AnswerAborted(text),
        BadAnswer::Final(text) => FailureReason::InvalidAnswer(text),
    }
}

/// The request without references to what the upstream was told not to keep: ids of items, and reasoning of which there
/// is nothing but its id.
fn native_request(request: &Fields) -> Fields {
    let is_kept = request.get::<bool>("store").ok().flatten() != Some(false);
    let input: Option<Vec<Fields>> = if is_kept { None } else { request.get("input").ok().flatten() };
    let Some(mut input) = input else { return request.clone() };
    input.retain(|item| {
        let is_reasoning = item.get::<String>("type").ok().flatten().as_deref() == Some("reasoning");
        let has_content = item.raw("content").is_some_and(|content| content.get() != "[]");
        !is_reasoning || has_content || item.raw("encrypted_content").is_some()
    });
    for item in &mut input {
        item.remove("id");
    }
    let mut request = request.clone();
    request.set("input", &input);
    request
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

/// An unknown model is answered 404 too, but with the word; and so is an unknown response or item, but with its id.
fn shows_no_endpoint(response: &HttpResponse) -> bool {
    let body = String::from_utf8_lossy(&response.body).to_ascii_lowercase();
    matches!(response.status, 404 | 405 | 501) && !body.contains("model") && !body.contains("with id")
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
            (404, r#"{"error":{"message":"Response with id 'resp_1' not found.","code":404}}"#, false),
            (404, r#"{"error":{"message":"Item with id 'rs_1' not found. Items are not persisted"}}"#, false),
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

    #[test]
    fn an_endpoint_that_has_answered_is_there() {
        let answer = |status| HttpResponse { status, request_id: None, retry_after: None, body: Bytes::new() };
        let asker = Asker::new(Dialect::Auto);

        assert!(!asker.finds_none(&answer(200)));
        assert!(!asker.finds_none(&answer(404)));
        assert!(asker.is_native());
    }

    #[test]
    fn what_an_upstream_is_told_not_to_keep_is_not_referred_to() {
        let request = |store: &str| {
            let items = r#"[{"type":"reasoning","id":"rs_1","summary":[]},
                {"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"x"},
                {"type":"reasoning","id":"rs_3","summary":[],"content":[{"type":"reasoning_text","text":"so"}]},
                {"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{}"},{"role":"user","content":"Hi"}]"#;
            let request = format!(r#"{{"model":"m","store":{store},"input":{items}}}"#);
            let sent = native_request(&Fields::read(request.as_bytes()).expect("an object"));
            let input: Vec<Fields> = sent.get("input").expect("a list").expect("it is there");
            let id = |item: &Fields| item.get::<String>("id").expect("a text").unwrap_or_default();
            input.iter().map(id).collect::<Vec<_>>()
        };

        assert_eq!(request("true"), ["rs_1", "rs_2", "rs_3", "fc_1", ""]);
        assert_eq!(request("false"), ["", "", "", ""]);
    }
}
