//! Answers of the APIs that are not OpenAI's: Anthropic's messages, and the scores, ranks, classes and pooled states
//! that vLLM has.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::answers::SimulatedRequest;

/// Labels of classes.
const LABELS: [&str; 2] = ["NEGATIVE", "POSITIVE"];

/// A message of Anthropic's API.
pub fn message(mut request: SimulatedRequest) -> String {
    let (id, words) = (request.draw_id(), request.words());
    let text = words.join(request.space());
    let (tokens, model) = (request.tokens(&words), request.model());
    let (fresh, cached, output) = (tokens.prompt - tokens.cached, tokens.cached, tokens.completion);
    format!(
        r#"{{"id":"msg_{id:032x}","type":"message","role":"assistant","model":{model},"content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":{fresh},"cache_creation_input_tokens":0,"cache_read_input_tokens":{cached},"output_tokens":{output}}}}}"#
    )
}

/// One score for each text.
pub fn scores(request: SimulatedRequest) -> String {
    list("score", request, |index, unit| json!({ "index": index, "object": "score", "score": unit() }))
}

/// The hidden states of each text.
pub fn pooled(request: SimulatedRequest) -> String {
    list("pool", request, |index, unit| json!({ "index": index, "object": "pooling", "data": [[unit(), unit()]] }))
}

/// The class of each text.
pub fn classes(request: SimulatedRequest) -> String {
    list("classify", request, |index, unit| {
        let positive = unit();
        let label = LABELS[usize::from(positive > 0.5)];
        json!({ "index": index, "label": label, "probs": [1.0 - positive, positive], "num_classes": LABELS.len() })
    })
}

/// The documents with the most relevant first.
pub fn ranks(mut request: SimulatedRequest) -> String {
    let id = request.draw_id();
    let mut results: Vec<(usize, f64)> = (0..request.inputs()).map(|index| (index, request.draw_unit())).collect();
    results.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let result = |(index, score): (usize, f64)| json!({ "index": index, "relevance_score": score });
    let results: Vec<Value> = results.into_iter().map(result).collect();
    let usage = json!({ "total_tokens": request.prompt_tokens() });
    let (model, results) = (request.model(), Value::from(results));
    format!(r#"{{"id":"rerank-{id:032x}","model":{model},"usage":{usage},"results":{results}}}"#)
}

/// An item for each text.
fn list(prefix: &str, mut request: SimulatedRequest, item: impl Fn(usize, &mut dyn FnMut() -> f64) -> Value) -> String {
    let id = request.draw_id();
    let data: Vec<Value> = (0..request.inputs()).map(|index| item(index, &mut || request.draw_unit())).collect();
    let (tokens, model, data) = (request.prompt_tokens(), request.model(), Value::from(data));
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    format!(r#"{{"id":"{prefix}-{id:032x}","object":"list","model":{model},"data":{data},"usage":{usage}}}"#)
}

/// An error in Anthropic's envelope.
pub fn error(status: StatusCode, message: &str) -> Response {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    (status, Json(json!({ "type": "error", "error": { "type": kind, "message": message } }))).into_response()
}
