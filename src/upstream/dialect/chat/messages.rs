//! Builds the messages of a conversation from items, which are smaller: one message of the assistant has the reasoning,
//! the text and the calls of several items, and the outputs of these calls follow it.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::response::Fields;

/// The messages built so far.
#[derive(Default)]
pub(super) struct Messages {
    closed: Vec<Fields>,
    /// The assistant's message that calls may still be added to, and the outputs that follow it.
    open: Option<AssistantMessage>,
    /// Reasoning that belongs to what the assistant says next.
    reasoning: String,
}

/// A call of a function.
#[derive(Serialize)]
pub(super) struct ChatToolCall {
    id: String,
    r#type: &'static str,
    function: ChatFunction,
}

#[derive(Serialize)]
struct ChatFunction {
    name: String,
    arguments: Box<RawValue>,
}

impl ChatToolCall {
    /// A call. `arguments` is a string with JSON in it.
    pub(super) fn new(id: String, name: String, arguments: Box<RawValue>) -> Self {
        Self { id, r#type: "function", function: ChatFunction { name, arguments } }
    }
}

struct AssistantMessage {
    message: Fields,
    reasoning: String,
    calls: Vec<ChatToolCall>,
    outputs: Vec<(String, Fields)>,
}

impl AssistantMessage {
    fn is_waiting(&self) -> bool {
        self.calls.iter().any(|call| self.outputs.iter().all(|(id, _)| *id != call.id))
    }
}

impl Messages {
    /// Adds a message of another role than the assistant.
    pub(super) fn say(&mut self, message: Fields) {
        self.close();
        self.closed.push(message);
    }

    /// Adds a message of the assistant.
    pub(super) fn answer(&mut self, message: Fields) {
        // Text between calls and their outputs is put into the message of the calls: no message may stand between them.
        let open = self.open.take_if(|open| open.is_waiting() && open.message.raw("content").is_none());
        match open {
            Some(open) => {
                let reasoning = joined(open.reasoning, &std::mem::take(&mut self.reasoning));
                self.open = Some(AssistantMessage { message, reasoning, ..open });
            }
            None => self.open_with(message),
        }
    }

    /// Adds reasoning of the assistant.
    pub(super) fn think(&mut self, reasoning: &str) {
        self.reasoning = joined(std::mem::take(&mut self.reasoning), reasoning);
    }

    /// Adds a call: to the assistant's message right before it, or to one whose calls are still without an output.
    pub(super) fn call(&mut self, call: ChatToolCall) {
        let goes_on =
            |open: &AssistantMessage| open.outputs.is_empty() && self.reasoning.is_empty() || open.is_waiting();
        if !self.open.as_ref().is_some_and(goes_on) {
            self.open_with(assistant(None));
        }
        if let Some(open) = &mut self.open {
            open.reasoning = joined(std::mem::take(&mut open.reasoning), &std::mem::take(&mut self.reasoning));
            open.calls.push(call);
        }
    }

    /// Adds the output of a call.
    pub(super) fn output(&mut self, call_id: String, message: Fields) {
        match &mut self.open {
            Some(open) => open.outputs.push((call_id, message)),
            None => self.closed.push(message),
        }
    }

    /// All messages.
    pub(super) fn finish(mut self) -> Vec<Fields> {
        self.close();
        self.closed
    }

    fn open_with(&mut self, message: Fields) {
        let reasoning = std::mem::take(&mut self.reasoning);
        self.close();
        self.open = Some(AssistantMessage { message, reasoning, calls: Vec::new(), outputs: Vec::new() });
    }

    fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            // Servers read one of them: SGLang and llama.cpp the first, vLLM and Ollama the second.
            let names = if open.reasoning.is_empty() { &[][..] } else { &["reasoning_content", "reasoning"] };
            for name in names {
                open.message.set(name, &open.reasoning);
            }
            if !open.calls.is_empty() {
                open.message.set("tool_calls", &open.calls);
                // Beside calls `content` may be null or absent, and llama-cpp-python refuses null.
                open.message = open.message.without_nulls();
            }
            self.closed.push(open.message);
            self.closed.extend(open.outputs.into_iter().map(|(_, message)| message));
        }
        if !self.reasoning.is_empty() {
            self.open_with(assistant(Some("")));
            self.close();
        }
    }
}

fn assistant(content: Option<&str>) -> Fields {
    let mut message = Fields::default();
    message.set("role", "assistant");
    message.set("content", &content);
    message
}

fn joined(mut text: String, more: &str) -> String {
    if !text.is_empty() && !more.is_empty() {
        text.push('\n');
    }
    text + more
}
