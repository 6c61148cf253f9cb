//! Dialects: the two APIs that a server's models can be called through for a turn.
//!
//! The loop over a row's steps speaks the items of the Responses API. `native` sends them as they are. `chat`
//! translates them for servers that have chat completions alone.

pub mod chat;
pub mod native;

use std::collections::HashSet;
use std::sync::Arc;

use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::FailureReason;
use crate::domain::response::{BadAnswer, Fields, ItemIds, Turn};
use crate::domain::retry::ShouldRetry;
use crate::upstream::{Call, HttpClient, ResponsesApi};

/// One call of a model for a turn.
pub struct ModelCall<'a> {
    /// A body for `/v1/responses`.
    pub request: &'a Fields,
    /// The model that it names.
    pub model: Arc<str>,
    /// The idempotency key.
    pub key: String,
    /// Ids for the turn's items, and for its calls if they have none of their own or one that is `used`.
    pub ids: ItemIds,
    /// Ids of calls of the turns before.
    pub used: HashSet<String>,
    /// Whether turns before came from `/v1/responses`. Such a conversation goes on there as long as the server has it:
    /// chat completions cannot express all that is in it.
    pub has_native_turns: bool,
    /// Whether the server ignores in `/v1/responses` what the request asks for.
    pub is_ignored: bool,
}

/// Whether a request asks for a form of the answer that some servers know in chat completions only: a schema, or tools.
#[must_use]
pub fn asks_for_form(request: &Fields) -> bool {
    let format = request.get::<Fields>("text").ok().flatten().and_then(|text| text.get::<Fields>("format").ok()?);
    let kind = format.and_then(|format| format.get::<String>("type").ok()?);
    kind.is_some_and(|kind| kind != "text") || request.raw("tools").is_some_and(|tools| tools.get() != "[]")
}

/// Calls a model for a turn, through the API that its server has, of which `api` knows. `http` makes the call.
///
/// # Errors
/// Why there is no turn.
pub async fn call_model(
    api: &ResponsesApi,
    http: &impl HttpClient,
    call: &ModelCall<'_>,
    should_retry: &ShouldRetry,
) -> Result<Turn, FailureReason> {
    let is_native = !call.is_ignored && api.is_next();
    if is_native || (call.has_native_turns && api.may_be_tried()) {
        let body = native::request(call.request, &call.ids).to_json().into();
        let (model, key) = (call.model.clone(), call.key.clone());
        let sent = Call { endpoint: Endpoint::Responses, model, key, body, file: None };
        let response = http.post(sent).await?;
        if !api.is_lacking(&response) {
            let body = response.succeeded(&**should_retry)?.body;
            return native::turn(&body, &call.ids, &call.used).map_err(reason);
        }
    }
    call_chat(http, call, should_retry).await
}

/// Calls a model for a turn through `/v1/chat/completions`.
///
/// # Errors
/// Why there is no turn.
pub async fn call_chat(
    http: &impl HttpClient,
    call: &ModelCall<'_>,
    should_retry: &ShouldRetry,
) -> Result<Turn, FailureReason> {
    let request = chat::request(call.request).map_err(|error| FailureReason::Unsupported(error.to_string()))?;
    let (model, key, body) = (call.model.clone(), call.key.clone(), request.to_json().into());
    let sent = Call { endpoint: Endpoint::ChatCompletions, model, key, body, file: None };
    let body = http.post(sent).await?.succeeded(&**should_retry)?.body;
    chat::turn(&body, &call.ids, &call.used).map_err(reason)
}

fn reason(bad: BadAnswer) -> FailureReason {
    match bad {
        BadAnswer::MayPass(text) => FailureReason::AnswerAborted(text),
        BadAnswer::Final(text) => FailureReason::InvalidAnswer(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_a_form_by_its_schema_or_its_tools() {
        let cases = [
            (r#"{"input":"Hi"}"#, false),
            (r#"{"tools":[],"text":{"verbosity":"low"}}"#, false),
            (r#"{"text":{"format":{"type":"text"}}}"#, false),
            (r#"{"text":{"format":{"type":"json_schema","schema":{}}}}"#, true),
            (r#"{"text":{"format":{"type":"json_object"}}}"#, true),
            (r#"{"tools":[{"type":"function"}]}"#, true),
        ];
        for (request, expected) in cases {
            assert_eq!(asks_for_form(&Fields::read(request.as_bytes()).expect("an object")), expected, "{request}");
        }
    }

    #[test]
    fn an_answer_that_may_pass_is_asked_for_again() {
        assert!(reason(BadAnswer::MayPass(String::new())).is_retriable());
        assert!(!reason(BadAnswer::Final(String::new())).is_retriable());
    }
}
