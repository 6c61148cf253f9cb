//! One line of a batch input file: reading it, and naming its error (contract §8.3 and §9.1).

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::endpoint::{Endpoint, Endpoints};
use super::response::Fields;

/// The members of a valid row that intake needs. Borrows from the line.
#[derive(Debug)]
pub struct RowHead<'a> {
    /// The client's name for the row.
    pub custom_id: Cow<'a, str>,
    /// The endpoint the row is for.
    pub endpoint: Endpoint,
    /// The model the row asks for; empty where the endpoint lets the server choose.
    pub model: Cow<'a, str>,
    /// The members of the body that the prompt begins with, in the order in which chat templates have them.
    prompt: [Option<&'a RawValue>; 6],
}

impl<'a> RowHead<'a> {
    /// The JSON texts of which the prompt is made, from its beginning; none for a row that has no prompt.
    pub fn prompt(&self) -> impl Iterator<Item = &'a str> + Clone + '_ {
        let texts = self.prompt.iter().flatten().map(|text| text.get());
        texts.filter(|_| self.endpoint.has_prompt())
    }
}

/// The members of an accepted row that dispatch needs. Borrows from the line.
#[derive(Deserialize)]
pub struct RowCall<'a> {
    /// The client's name for the row.
    #[serde(borrow)]
    pub custom_id: Cow<'a, str>,
    /// The endpoint the row is for.
    #[serde(borrow)]
    pub url: Cow<'a, str>,
    /// The request body, byte for byte as uploaded.
    #[serde(borrow)]
    pub body: &'a RawValue,
}

/// The error of a line. The variants are in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Not JSON.
    #[error("This line is not parseable as valid JSON.")]
    InvalidJson,
    /// JSON, but not an object.
    #[error("Invalid type for this line: expected an object, but got {got} instead.")]
    NotAnObject {
        /// The type it has, with its article.
        got: &'static str,
    },
    /// Longer than the configured bound, so the line was not read.
    #[error("This line is longer than the {limit} bytes one request could have at its upload (--max-line-bytes).")]
    TooLong {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A member is absent or null.
    #[error("Missing required parameter: '{param}'.")]
    Missing {
        /// The member.
        param: &'static str,
    },
    /// A member has another JSON type than it must have.
    #[error("Invalid type for '{param}': expected {expected}, but got {got} instead.")]
    InvalidType {
        /// The member.
        param: &'static str,
        /// The type it must have, with its article.
        expected: &'static str,
        /// The type it has, with its article.
        got: &'static str,
    },
    /// `custom_id` is the empty string.
    #[error("Invalid 'custom_id': empty string. Expected a string with minimum length 1.")]
    EmptyCustomId,
    /// A method other than POST.
    #[error("Invalid value: '{method}'. Supported values are: 'POST'.")]
    InvalidMethod {
        /// The method given.
        method: String,
    },
    /// An url that no batch can be for.
    #[error("The provided url '{url}' is not supported by the Batch API.")]
    UnknownUrl {
        /// The url given.
        url: String,
    },
    /// No model where one is needed.
    #[error("Model parameter is required.")]
    NoModel,
    /// A model name that is too long or has control characters.
    #[error("The provided model '{model}' is not supported by the Batch API.")]
    BadModel {
        /// The name, with control characters escaped.
        model: String,
    },
    /// More models in one file than it may have.
    #[error("This line names model number {number} of the file; one file may have at most {limit} models.")]
    TooManyModels {
        /// The number of models so far, including this one.
        number: usize,
        /// The bound.
        limit: usize,
    },
    /// A chat row without messages.
    #[error("Messages parameter is required.")]
    NoMessages,
    /// `stream: true`.
    #[error("{api}: Streaming is not supported in the Batch API.")]
    Streaming {
        /// The API's name.
        api: &'static str,
    },
    /// A member stands twice in one object; JSON parsers disagree about which value counts.
    #[error("This line has a key twice in one object; which value counts would be a guess.")]
    RepeatedKey,
    /// Another line has the same `custom_id`.
    #[error(
        "The custom_id '{custom_id}' for this request is a duplicate of another request. \
         The custom_id parameter must be unique for each request in a batch."
    )]
    DuplicateCustomId {
        /// The id.
        custom_id: String,
    },
}

impl RowError {
    /// Every code that [`code`](Self::code) gives, and those of batches whose rows do not fit them.
    pub const CODES: [&'static str; 13] = [
        "invalid_json_line",
        "missing_required_parameter",
        "invalid_type",
        "invalid_value",
        "invalid_method",
        "url_not_found",
        "model_not_found",
        "streaming_unsupported",
        "duplicate_custom_id",
        "invalid_request",
        "invalid_url",
        "mismatched_model",
        "too_many_tasks",
    ];

    /// The error code of the contract's §8.3.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json_line",
            Self::Missing { .. } => "missing_required_parameter",
            Self::InvalidType { .. } | Self::NotAnObject { .. } => "invalid_type",
            Self::EmptyCustomId => "invalid_value",
            Self::InvalidMethod { .. } => "invalid_method",
            Self::UnknownUrl { .. } => "url_not_found",
            Self::BadModel { .. } => "model_not_found",
            Self::Streaming { .. } => "streaming_unsupported",
            Self::DuplicateCustomId { .. } => "duplicate_custom_id",
            Self::TooLong { .. }
            | Self::NoModel
            | Self::TooManyModels { .. }
            | Self::NoMessages
            | Self::RepeatedKey => "invalid_request",
        }
    }

    /// The member at fault, as a dotted path.
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::InvalidJson | Self::NotAnObject { .. } | Self::TooLong { .. } | Self::RepeatedKey => None,
            Self::Missing { param } | Self::InvalidType { param, .. } => Some(param),
            Self::EmptyCustomId | Self::DuplicateCustomId { .. } => Some("custom_id"),
            Self::InvalidMethod { .. } => Some("method"),
            Self::UnknownUrl { .. } => Some("url"),
            Self::NoModel | Self::BadModel { .. } | Self::TooManyModels { .. } => Some("body.model"),
            Self::NoMessages => Some("body.messages"),
            Self::Streaming { .. } => Some("body.stream"),
        }
    }
}

/// `V` is what the members of the prompt are read as.
#[derive(Deserialize)]
struct FastRow<'a, V> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow, bound(deserialize = "V: Deserialize<'de>"))]
    body: FastBody<'a, V>,
}

#[derive(Deserialize)]
struct FastBody<'a, V> {
    #[serde(borrow)]
    model: Option<BorrowedText<'a>>,
    tools: Option<V>,
    instructions: Option<V>,
    system: Option<V>,
    messages: Option<V>,
    input: Option<V>,
    prompt: Option<V>,
    stream: Option<bool>,
}

/// A text that is not copied unless it has escapes, also within an `Option`, in which serde copies a plain `Cow`.
#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

/// Bytes of a line whose prompt is too short for an order by prompts.
const SHORT: usize = 300;

/// Reads a line and makes all checks that need no other line. Its url must be one of `endpoints`.
///
/// A valid row takes one pass without a copy. Only an invalid row is read a second time, to name its error.
///
/// # Errors
/// The first error of the line.
pub fn inspect<'a>(line: &'a str, endpoints: &Endpoints) -> Result<RowHead<'a>, RowError> {
    // Raw values cost a little more, and prompts that are short are not looked at.
    if line.len() < SHORT {
        let read = serde_json::from_str::<FastRow<'_, IgnoredAny>>(line);
        return checked(line, read, endpoints).map(|(head, _)| head);
    }
    let (head, prompt) = checked(line, serde_json::from_str::<FastRow<'_, &RawValue>>(line), endpoints)?;
    Ok(RowHead { prompt, ..head })
}

/// The head of a row without its prompt, and the members of the prompt.
fn checked<'a, V>(
    line: &str,
    read: serde_json::Result<FastRow<'a, V>>,
    endpoints: &Endpoints,
) -> Result<(RowHead<'a>, [Option<V>; 6]), RowError> {
    match read {
        Ok(row) => {
            let endpoint = check_envelope(&row.custom_id, &row.method, &row.url, endpoints)?;
            let FastBody { model, tools, instructions, system, messages, input, prompt, stream } = row.body;
            let model = model.map_or(Cow::Borrowed(""), |model| model.0);
            check_body(endpoint, &model, messages.is_some(), stream)?;
            let head = RowHead { custom_id: row.custom_id, endpoint, model, prompt: [None; 6] };
            Ok((head, [tools, instructions, system, messages, input, prompt]))
        }
        // If nothing else is wrong, a member is there twice.
        Err(error) if error.is_data() => Err(find_fault(line, endpoints).err().unwrap_or(RowError::RepeatedKey)),
        Err(_) => Err(RowError::InvalidJson),
    }
}

/// The slow path: finds the error that stopped the fast one. Reads no more of the line than that does, so that a line
/// is JSON to both or to neither.
fn find_fault(line: &str, endpoints: &Endpoints) -> Result<(), RowError> {
    let value: &RawValue = serde_json::from_str(line).map_err(|_| RowError::InvalidJson)?;
    let not_an_object = |_| RowError::NotAnObject { got: type_of(value) };
    let row: Fields = serde_json::from_str(value.get()).map_err(not_an_object)?;
    let custom_id = text(&row, "custom_id", "custom_id")?;
    let endpoint = check_envelope(&custom_id, &text(&row, "method", "method")?, &text(&row, "url", "url")?, endpoints)?;
    let body = row.raw("body").ok_or(RowError::Missing { param: "body" })?;
    let wrong = |param, expected, got| RowError::InvalidType { param, expected, got: type_of(got) };
    let body: Fields = serde_json::from_str(body.get()).map_err(|_| wrong("body", "an object", body))?;
    let model = match body.raw("model") {
        None => String::new(),
        Some(_) => text(&body, "model", "body.model")?,
    };
    let stream = match body.raw("stream") {
        None => None,
        Some(stream) => {
            Some(serde_json::from_str(stream.get()).map_err(|_| wrong("body.stream", "a boolean", stream))?)
        }
    };
    check_body(endpoint, &model, body.raw("messages").is_some(), stream)
}

/// A member that must be a string.
fn text(of: &Fields, name: &str, param: &'static str) -> Result<String, RowError> {
    let value = of.raw(name).ok_or(RowError::Missing { param })?;
    match serde_json::from_str(value.get()) {
        Ok(text) => Ok(text),
        // Half a surrogate pair, which is no text.
        Err(_) if value.get().starts_with('"') => Err(RowError::InvalidJson),
        Err(_) => Err(RowError::InvalidType { param, expected: "a string", got: type_of(value) }),
    }
}

fn check_envelope(custom_id: &str, method: &str, url: &str, endpoints: &Endpoints) -> Result<Endpoint, RowError> {
    if custom_id.is_empty() {
        return Err(RowError::EmptyCustomId);
    }
    if method != "POST" {
        return Err(RowError::InvalidMethod { method: shown(method) });
    }
    endpoints.find(url).ok_or_else(|| RowError::UnknownUrl { url: shown(url) })
}

fn check_body(endpoint: Endpoint, model: &str, messages: bool, stream: Option<bool>) -> Result<(), RowError> {
    if model.is_empty() && endpoint.requires_model() {
        return Err(RowError::NoModel);
    }
    // Model names become database text and HTTP headers; a control character can be neither.
    if model.len() > MAX_MODEL_BYTES || model.chars().any(char::is_control) {
        return Err(RowError::BadModel { model: shown(model) });
    }
    if endpoint.requires_messages() && !messages {
        return Err(RowError::NoMessages);
    }
    if stream == Some(true) {
        return Err(RowError::Streaming { api: endpoint.api_name() });
    }
    Ok(())
}

const MAX_MODEL_BYTES: usize = 512;

/// A row with these members in its body, in the place of those that it has; those that are null are removed. All else
/// stays as it was written.
///
/// # Errors
/// Why the line is not an object with a body that is one.
pub fn with_members(line: &[u8], members: &Fields) -> serde_json::Result<Vec<u8>> {
    let mut row = Fields::read(line)?;
    let mut body: Fields = row.get("body")?.unwrap_or_default();
    for (name, value) in members.iter() {
        if value.get() == "null" {
            body.remove(name);
        } else {
            body.set(name, value);
        }
    }
    row.set("body", &body);
    Ok(row.to_json())
}

/// A client's text, made short and printable for an error message.
#[must_use]
pub fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    let mut shown: String = text.chars().take(MAX_CHARS).flat_map(printable).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    escaped.into_iter().flatten().chain((!c.is_control()).then_some(c))
}

/// The JSON type of a value, with its article, as OpenAI's messages have it.
#[must_use]
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The same of a value that was not read.
fn type_of(value: &RawValue) -> &'static str {
    match value.get().as_bytes() {
        [b'"', ..] => "a string",
        [b'{', ..] => "an object",
        [b'[', ..] => "an array",
        [b't' | b'f', ..] => "a boolean",
        [b'n', ..] => "null",
        number if number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => "a decimal",
        _ => "an integer",
    }
}

#[cfg(test)]
mod tests;
