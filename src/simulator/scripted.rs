//! Formats scripted answers as complete objects of either API.

use serde_json::{Value, json};

use super::answers::{Kind, SimulatedRequest, Tokens};
use super::script::{Act, Cue, SimulatedCall};

/// Tokens of reasoning that is not shown.
const HIDDEN_REASONING: usize = 3;

/// The whole answer.
pub fn answer(kind: Kind, mut request: SimulatedRequest, cue: &Cue) -> String {
    // Never 0, so that a test notices a count that gets lost.
    let reasoning = cue.reasoning.as_deref().map_or(HIDDEN_REASONING, count_words).max(1);
    let said = match &cue.act {
        Act::Calls(calls) => calls.iter().map(|call| 1 + call.arguments.len() / 4).sum(),
        Act::Says(text) | Act::Refuses(text) => count_words(text),
    };
    let tokens = Tokens {
        prompt: request.prompt_tokens(),
        cached: 1,
        written_to_cache: 2,
        completion: reasoning + said,
        reasoning,
    };
    if kind == Kind::Response {
        let output = Value::from(items(cue, &mut request));
        return request.response(&output.to_string(), tokens);
    }
    let finish_reason = if matches!(cue.act, Act::Calls(_)) { "tool_calls" } else { "stop" };
    request.chat_completion(&message(cue).to_string(), finish_reason, tokens)
}

fn count_words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn message(cue: &Cue) -> Value {
    let mut message = json!({ "role": "assistant", "content": null, "refusal": null, "annotations": [] });
    match &cue.act {
        Act::Calls(calls) => message["tool_calls"] = calls.iter().map(tool_call).collect(),
        Act::Says(text) => message["content"] = json!(text),
        Act::Refuses(text) => message["refusal"] = json!(text),
    }
    if let Some(reasoning) = &cue.reasoning {
        message["reasoning_content"] = json!(reasoning);
    }
    message
}

fn tool_call(call: &SimulatedCall) -> Value {
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
}

/// The items of a response.
fn items(cue: &Cue, request: &mut SimulatedRequest) -> Vec<Value> {
    let mut item = |mut item: Value, prefix: &str| {
        item["id"] = json!(format!("{prefix}_{:032x}", request.draw_id()));
        item["status"] = json!("completed");
        item
    };
    let mut items = Vec::new();
    if let Some(text) = &cue.reasoning {
        let content = json!([{ "type": "reasoning_text", "text": text }]);
        items.push(item(json!({ "type": "reasoning", "summary": [], "content": content }), "rs"));
    }
    let mut message = |part: Value| item(json!({ "type": "message", "role": "assistant", "content": [part] }), "msg");
    match &cue.act {
        Act::Says(text) => {
            items.push(message(json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })));
        }
        Act::Refuses(text) => items.push(message(json!({ "type": "refusal", "refusal": text }))),
        Act::Calls(calls) => items.extend(calls.iter().map(|call| {
            let SimulatedCall { id, name, arguments } = call;
            item(json!({ "type": "function_call", "call_id": id, "name": name, "arguments": arguments }), "fc")
        })),
    }
    items
}
