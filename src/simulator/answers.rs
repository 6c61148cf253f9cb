//! The answers: complete objects in the form of the contract, with random text.
//!
//! They are formatted as text, not built as JSON values: this is most of the work for a request.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::draws::Draws;
use super::{other_apis, shaped};

/// A constant instead of the clock: an answer depends on its request alone.
const CREATED: u64 = 1_767_225_600;

const DIMENSIONS: usize = 8;

/// Words without anything that JSON escapes.
const WORDS: [&str; 32] = [
    "a", "and", "answer", "batch", "blue", "book", "by", "clear", "day", "each", "every", "far", "from", "good", "in",
    "is", "light", "line", "long", "many", "more", "night", "of", "one", "river", "short", "the", "time", "to",
    "water", "with", "word",
];

/// The categories of a moderation.
const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// Which endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Chat completions.
    Chat,
    /// Completions.
    Completion,
    /// Embeddings.
    Embedding,
    /// Moderations.
    Moderation,
    /// Responses.
    Response,
    /// Anthropic's messages.
    Message,
    /// Scores.
    Score,
    /// Documents by relevance.
    Rerank,
    /// Hidden states.
    Pooling,
    /// Classes.
    Classification,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Chat,
        Self::Completion,
        Self::Embedding,
        Self::Moderation,
        Self::Response,
        Self::Message,
        Self::Score,
        Self::Rerank,
        Self::Pooling,
        Self::Classification,
    ];

    /// Where the endpoint is.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Embedding => "/v1/embeddings",
            Self::Moderation => "/v1/moderations",
            Self::Response => "/v1/responses",
            Self::Message => "/v1/messages",
            Self::Score => "/v1/score",
            Self::Rerank => "/v1/rerank",
            Self::Pooling => "/pooling",
            Self::Classification => "/classify",
        }
    }

    /// Where else it is.
    pub fn other_path(self) -> Option<&'static str> {
        match self {
            Self::Rerank => Some("/v2/rerank"),
            Self::Classification => Some("/v1/classify"),
            _ => None,
        }
    }
}

/// The parts of a request that its answer depends on.
pub struct SimulatedRequest {
    /// The model as a JSON string.
    model: String,
    prompt_tokens: usize,
    /// Those of them that the server knew.
    cached_tokens: usize,
    /// The words of the answer, unless they are drawn.
    output_words: Option<u32>,
    /// The number of texts to embed, to moderate, to score, to rank or to classify.
    inputs: usize,
    /// The schema that the text of the answer has to match.
    schema: Option<Value>,
    draws: Draws,
}

impl SimulatedRequest {
    /// A request of `body_len` bytes, with its `input` member as JSON.
    pub fn new(model: &str, body_len: usize, input: Option<&str>, draws: Draws) -> Self {
        let model = if model.is_empty() { "simulator" } else { model };
        Self {
            model: serde_json::to_string(model).expect("text is JSON"),
            prompt_tokens: 1 + body_len / 4,
            cached_tokens: 0,
            output_words: None,
            inputs: input.map_or(1, count_inputs),
            schema: None,
            draws,
        }
    }

    /// The same request with an answer whose text matches a schema.
    pub fn with_schema(self, schema: Option<Value>) -> Self {
        Self { schema, ..self }
    }

    /// The same request with an answer of so many words, of whose prompt so many tokens were known.
    pub fn with_work(self, output_words: u32, cached_tokens: usize) -> Self {
        Self { output_words: Some(output_words), cached_tokens: cached_tokens.min(self.prompt_tokens), ..self }
    }

    /// Tokens of the request.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The model as a JSON string.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The number of its texts.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// A number from 0 to 1.
    pub fn draw_unit(&mut self) -> f64 {
        self.draws.unit()
    }

    /// 128 bits for an id.
    pub fn draw_id(&mut self) -> u128 {
        self.draws.id()
    }

    /// A chat completion with this message.
    pub fn chat_completion(mut self, message: &str, finish_reason: &str, tokens: Tokens) -> String {
        let (id, model, usage) = (self.draw_id(), self.model, chat_usage(tokens));
        format!(
            r#"{{"id":"chatcmpl-{id:032x}","object":"chat.completion","created":{CREATED},"model":{model},"choices":[{{"index":0,"message":{message},"logprobs":null,"finish_reason":"{finish_reason}"}}],"usage":{usage},"service_tier":"default","system_fingerprint":null}}"#
        )
    }

    /// A response with these output items.
    pub fn response(mut self, output: &str, tokens: Tokens) -> String {
        let (id, model) = (self.draw_id(), self.model);
        let Tokens { prompt, cached, written_to_cache, completion, reasoning } = tokens;
        let total = prompt + completion;
        format!(
            r#"{{"id":"resp_{id:032x}","object":"response","created_at":{CREATED},"status":"completed","error":null,"incomplete_details":null,"instructions":null,"model":{model},"output":{output},"parallel_tool_calls":true,"metadata":{{}},"tool_choice":"auto","tools":[],"temperature":1.0,"top_p":1.0,"usage":{{"input_tokens":{prompt},"input_tokens_details":{{"cached_tokens":{cached},"cache_write_tokens":{written_to_cache}}},"output_tokens":{completion},"output_tokens_details":{{"reasoning_tokens":{reasoning}}},"total_tokens":{total}}}}}"#
        )
    }

    /// The text of the answer in pieces, as they stand in a JSON string.
    pub fn words(&mut self) -> Vec<Cow<'static, str>> {
        if let Some(schema) = &self.schema {
            let text = shaped::instance(schema, &mut self.draws).to_string();
            return text.split_inclusive(',').map(|piece| escape(piece).into()).collect();
        }
        let count = self.output_words.unwrap_or_else(|| 4 + self.draws.below(16));
        (0..count).map(|_| word(&mut self.draws).into()).collect()
    }

    /// What stands between the pieces.
    pub fn space(&self) -> &'static str {
        if self.schema.is_some() { "" } else { " " }
    }

    /// The tokens of the request, and of an answer with these words.
    pub fn tokens(&self, words: &[Cow<'_, str>]) -> Tokens {
        let (prompt, cached, completion) = (self.prompt_tokens, self.cached_tokens, words.len());
        Tokens { prompt, cached, written_to_cache: 0, completion, reasoning: 0 }
    }
}

/// How many tokens a request and its answer took.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// Those of the request.
    pub prompt: usize,
    /// Those of the request that were read from a cache.
    pub cached: usize,
    /// Those of the request that were written to one, which only responses say.
    pub written_to_cache: usize,
    /// Those of the answer, reasoning among them.
    pub completion: usize,
    /// Those of the reasoning.
    pub reasoning: usize,
}

/// The texts in an `input`: one for each element of an array of texts or of token arrays, otherwise one.
fn count_inputs(input: &str) -> usize {
    let first = input.strip_prefix('[').and_then(|rest| rest.trim_ascii_start().bytes().next());
    match first {
        Some(b'"' | b'[') => serde_json::from_str::<Vec<IgnoredAny>>(input).map_or(1, |elements| elements.len()),
        _ => 1,
    }
}

/// The whole answer to a request.
pub fn answer(kind: Kind, request: SimulatedRequest) -> String {
    match kind {
        Kind::Chat => chat(request),
        Kind::Completion => completion(request),
        Kind::Embedding => embeddings(request),
        Kind::Moderation => moderation(request),
        Kind::Response => response(request),
        Kind::Message => other_apis::message(request),
        Kind::Score => other_apis::scores(request),
        Kind::Rerank => other_apis::ranks(request),
        Kind::Pooling => other_apis::pooled(request),
        Kind::Classification => other_apis::classes(request),
    }
}

fn chat(mut request: SimulatedRequest) -> String {
    let words = request.words();
    let text = words.join(request.space());
    let message = format!(r#"{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}}"#);
    let tokens = request.tokens(&words);
    request.chat_completion(&message, "stop", tokens)
}

/// The answer to a chat request as server-sent events: one for each word, and `[DONE]`.
pub fn chat_events(mut request: SimulatedRequest, wants_usage: bool) -> Vec<String> {
    let id = request.draws.id();
    let words = request.words();
    let model = &request.model;
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-{id:032x}\",\"object\":\"chat.completion.chunk\",\"created\":{CREATED},\
             \"model\":{model},\"choices\":[{choices}],\"usage\":{usage}}}\n\n"
        )
    };
    let delta = |delta: &str, finish_reason: &str| {
        let choice = format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}"#);
        event(&choice, "null")
    };

    let mut events = vec![delta(r#"{"role":"assistant","content":"","refusal":null}"#, "null")];
    for (position, word) in words.iter().enumerate() {
        let space = if position == 0 { "" } else { request.space() };
        events.push(delta(&format!(r#"{{"content":"{space}{word}"}}"#), "null"));
    }
    events.push(delta("{}", r#""stop""#));
    if wants_usage {
        events.push(event("", &chat_usage(request.tokens(&words))));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn completion(mut request: SimulatedRequest) -> String {
    let id = request.draws.id();
    let words = request.words();
    let text = words.join(request.space());
    let usage = chat_usage(request.tokens(&words));
    let model = request.model;
    format!(
        r#"{{"id":"cmpl-{id:032x}","object":"text_completion","created":{CREATED},"model":{model},"choices":[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":"stop"}}],"usage":{usage},"system_fingerprint":null}}"#
    )
}

fn chat_usage(tokens: Tokens) -> String {
    let Tokens { prompt, cached, completion, reasoning, .. } = tokens;
    let total = prompt + completion;
    format!(
        r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached},"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":{reasoning},"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
    )
}

fn response(mut request: SimulatedRequest) -> String {
    let message_id = request.draw_id();
    let words = request.words();
    let text = words.join(request.space());
    let output = format!(
        r#"[{{"type":"message","id":"msg_{message_id:032x}","status":"completed","role":"assistant","content":[{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}]}}]"#
    );
    let tokens = request.tokens(&words);
    request.response(&output, tokens)
}

fn embeddings(mut request: SimulatedRequest) -> String {
    let mut out = String::with_capacity(256 + request.inputs * 128);
    out.push_str(r#"{"object":"list","data":["#);
    for index in 0..request.inputs {
        let comma = if index == 0 { "" } else { "," };
        write!(out, r#"{comma}{{"object":"embedding","index":{index},"embedding":["#).expect("a String takes all");
        for dimension in 0..DIMENSIONS {
            let comma = if dimension == 0 { "" } else { "," };
            let number = request.draws.unit() * 2.0 - 1.0;
            write!(out, "{comma}{number:.6}").expect("a String takes all");
        }
        out.push_str("]}");
    }
    let (model, tokens) = (request.model, request.prompt_tokens);
    write!(out, r#"],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#)
        .expect("a String takes all");
    out
}

/// Moderations have no usage. Nothing is ever flagged.
fn moderation(mut request: SimulatedRequest) -> String {
    let id = request.draws.id();
    let by_category = |value: &str| CATEGORIES.map(|category| format!(r#""{category}":{value}"#)).join(",");
    let (flags, types) = (by_category("false"), by_category(r#"["text"]"#));
    let results: Vec<String> = (0..request.inputs)
        .map(|_| {
            let scores =
                CATEGORIES.map(|category| format!(r#""{category}":{:.6}"#, request.draws.unit() / 100.0)).join(",");
            format!(
                r#"{{"flagged":false,"categories":{{{flags}}},"category_scores":{{{scores}}},"category_applied_input_types":{{{types}}}}}"#
            )
        })
        .collect();
    format!(r#"{{"id":"modr-{id:032x}","model":{},"results":[{}]}}"#, request.model, results.join(","))
}

/// The list of models.
pub fn models(names: &[String]) -> String {
    let model = |name| json!({ "id": name, "object": "model", "created": CREATED, "owned_by": "batchwright" });
    let data: Vec<Value> = match names {
        [] => vec![model("simulator")],
        names => names.iter().map(|name| model(name)).collect(),
    };
    json!({ "object": "list", "data": data }).to_string()
}

/// A word.
pub fn word(draws: &mut Draws) -> &'static str {
    WORDS[draws.below(32) as usize]
}

/// A text as it stands between the quotes of a JSON string.
fn escape(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("text is JSON");
    quoted[1..quoted.len() - 1].to_owned()
}
