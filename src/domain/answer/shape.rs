//! The members of a body by which it is an answer of an endpoint or an error.

use std::fmt;

use memchr::memmem;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::endpoint::Endpoint;
use crate::domain::usage::{Usage, WireUsage};

/// A gateway's own status for what the server behind it has got wrong.
const BAD_GATEWAY: u16 = 502;

/// The members of a body. Of a name that stands twice the last counts. Null is the same as absent.
#[derive(Debug, Default)]
pub(super) struct AnswerShape<'a> {
    /// Whether it is an object, or a list, with something in it.
    is_object: bool,
    is_list: bool,
    error: Option<&'a RawValue>,
    code: Option<&'a RawValue>,
    object: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    choices: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    output: Option<&'a RawValue>,
    content: Option<&'a RawValue>,
    results: Option<&'a RawValue>,
    scores: Option<&'a RawValue>,
    text: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    usage: Option<&'a RawValue>,
}

/// What a body is.
#[derive(Clone, Copy)]
pub(super) enum Judged {
    /// An answer, with its usage.
    Answer(Usage),
    /// An error, with this status.
    Error(u16),
}

impl<'a> AnswerShape<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// In words that follow "is": why it is not JSON.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, String> {
        let text = str::from_utf8(body).map_err(|error| format!("not UTF-8: {error}"))?;
        serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))
    }

    /// The tokens that it says were used.
    pub(super) fn usage(&self) -> Usage {
        self.usage.map(usage).unwrap_or_default()
    }

    /// Whether it is an answer of an endpoint.
    pub(super) fn judge(&self, endpoint: Endpoint) -> Judged {
        let says_error = |member: Option<&RawValue>| member.is_some_and(|member| member.get() == "\"error\"");
        if says_error(self.object) || says_error(self.kind) {
            let named = self.code.and_then(status).or_else(|| self.error.and_then(status_of_error));
            return Judged::Error(named.unwrap_or(BAD_GATEWAY));
        }
        if !self.has_result(endpoint) {
            return Judged::Error(self.error.and_then(status_of_error).unwrap_or(BAD_GATEWAY));
        }
        match self.choices.and_then(status_of_choices) {
            Some(status) => Judged::Error(status),
            None => Judged::Answer(self.usage()),
        }
    }

    /// Whether the result is there that an answer of the endpoint must have.
    fn has_result(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => self.choices.is_some_and(is_filled_list),
            // Some servers answer with the vectors alone.
            Endpoint::Embeddings => self.is_list || self.data.is_some_and(has_all_vectors),
            Endpoint::ImagesGenerations | Endpoint::ImagesEdits => self.data.is_some_and(is_filled_list),
            // A response that failed is an answer (contract §10.6).
            Endpoint::Responses => match self.status.map(RawValue::get) {
                None => self.output.is_some(),
                Some(status) => matches!(status, "\"completed\"" | "\"failed\"" | "\"incomplete\""),
            },
            Endpoint::AudioTranscriptions | Endpoint::AudioTranslations => self.text.is_some() && self.error.is_none(),
            // A message may have nothing to say.
            Endpoint::Messages => self.content.is_some_and(is_list) && self.error.is_none(),
            // SGLang's are `scores`; some servers answer with the list of results alone.
            Endpoint::Score => [self.data, self.scores].into_iter().flatten().any(is_filled_list),
            Endpoint::Rerank | Endpoint::RerankV2 => self.is_list || self.results.is_some_and(is_filled_list),
            Endpoint::Pooling | Endpoint::Classify | Endpoint::ClassifyUnversioned => {
                self.is_list || self.data.is_some_and(is_filled_list)
            }
            Endpoint::Moderations | Endpoint::Videos | Endpoint::Extra(_) => self.is_object && self.error.is_none(),
        }
    }
}

fn is_list(value: &RawValue) -> bool {
    value.get().starts_with('[')
}

fn is_filled_list(value: &RawValue) -> bool {
    let inner = value.get().strip_prefix('[').map(str::trim_ascii_start);
    inner.is_some_and(|inner| inner != "]" && !inner.starts_with("null"))
}

/// Whether every entry of a list has a vector.
fn has_all_vectors(data: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Vector<'a> {
        #[serde(borrow)]
        embedding: Option<&'a RawValue>,
    }
    let is_doubtful =
        ["\"error\"", "null"].iter().any(|text| memmem::find(data.get().as_bytes(), text.as_bytes()).is_some());
    let all = || {
        serde_json::from_str::<Vec<Vector<'_>>>(data.get())
            .is_ok_and(|all| all.iter().all(|one| one.embedding.is_some()))
    };
    is_filled_list(data) && (!is_doubtful || all())
}

/// The status that an error names by its `code`, or that its words stand for.
#[must_use]
pub fn status_of_error(error: &RawValue) -> Option<u16> {
    #[derive(serde::Deserialize)]
    struct ErrorCode<'a> {
        #[serde(borrow)]
        code: Option<&'a RawValue>,
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
    }
    // LM Studio's words for a path that it does not have.
    if error.get().starts_with("\"Unexpected endpoint") {
        return Some(404);
    }
    let error: ErrorCode<'_> = serde_json::from_str(error.get()).ok()?;
    error.code.and_then(status).or_else(|| status_of_kind(error.kind?))
}

/// The status that one of Anthropic's kinds of errors comes with. Of the others the same words are used with other
/// statuses.
fn status_of_kind(kind: &RawValue) -> Option<u16> {
    Some(match kind.get().trim_matches('"') {
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => return None,
    })
}

/// An error status, as a number or a text.
fn status(code: &RawValue) -> Option<u16> {
    let text = code.get().trim_matches('"');
    if matches!(text, "rate_limit_exceeded" | "insufficient_quota") {
        return Some(429);
    }
    let number = text.strip_suffix(".0").unwrap_or(text);
    number.parse().ok().filter(|status| (400..600).contains(status))
}

/// The status of a choice that ended by an error, or that is one.
fn status_of_choices(choices: &RawValue) -> Option<u16> {
    #[derive(serde::Deserialize)]
    struct ChoiceEnd<'a> {
        finish_reason: Option<Value>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
        #[serde(borrow)]
        text: Option<&'a RawValue>,
    }
    memmem::find(choices.get().as_bytes(), b"\"error\"")?;
    let choices: Vec<ChoiceEnd<'_>> = serde_json::from_str(choices.get()).ok()?;
    let failed = choices.iter().find(|choice| {
        let is_error = choice.error.is_some() && choice.message.is_none() && choice.text.is_none();
        is_error || choice.finish_reason.as_ref().is_some_and(|reason| reason == "error")
    })?;
    Some(failed.error.and_then(status_of_error).unwrap_or(BAD_GATEWAY))
}

fn usage(usage: &RawValue) -> Usage {
    // A list could be read as the members in their order.
    let object = Some(usage.get()).filter(|usage| usage.starts_with('{')).unwrap_or("{}");
    serde_json::from_str::<WireUsage>(object).map(Usage::from).unwrap_or_default()
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Member {
    Error,
    Code,
    Object,
    #[serde(rename = "type")]
    Kind,
    Choices,
    Data,
    Output,
    Content,
    Results,
    Scores,
    Text,
    Status,
    Usage,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for AnswerShape<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = AnswerShape<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut shape = AnswerShape::default();
        while let Some(member) = map.next_key::<Member>()? {
            shape.is_object = true;
            let place = match member {
                Member::Error => &mut shape.error,
                Member::Code => &mut shape.code,
                Member::Object => &mut shape.object,
                Member::Kind => &mut shape.kind,
                Member::Choices => &mut shape.choices,
                Member::Data => &mut shape.data,
                Member::Output => &mut shape.output,
                Member::Content => &mut shape.content,
                Member::Results => &mut shape.results,
                Member::Scores => &mut shape.scores,
                Member::Text => &mut shape.text,
                Member::Status => &mut shape.status,
                Member::Usage => &mut shape.usage,
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *place = map.next_value()?;
        }
        Ok(shape)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut is_list = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_list = true;
        }
        Ok(AnswerShape { is_list, ..AnswerShape::default() })
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(AnswerShape::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(AnswerShape::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(AnswerShape::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(AnswerShape::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(AnswerShape::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(AnswerShape::default())
    }
}
