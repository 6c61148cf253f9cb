//! Tokens used: read from an answer, summed over a batch.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Token counts in the names the Responses API has, which a batch shows for every endpoint (contract §10.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the prompt that came from a cache.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Tokens of the answer that were reasoning.
    pub reasoning_tokens: u64,
    /// All tokens, as the upstream counts them.
    pub total_tokens: u64,
}

impl Usage {
    /// Adds `other` to this, each count capped rather than wrapped.
    pub fn add(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
        self.total_tokens = self.total_tokens.saturating_add(other.total_tokens);
    }
}

/// The member `usage` of an answer, in the names of either API. Some servers send both sets of names, of which one may
/// be zeros. A member that is no count is as good as absent.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WireUsage {
    input_tokens: Count,
    prompt_tokens: Count,
    output_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_cache_hit_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    input_tokens_details: Details,
    prompt_tokens_details: Details,
    output_tokens_details: Details,
    completion_tokens_details: Details,
}

/// Counts of a part of the tokens. Anything but an object has none.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_field_names, reason = "the names of the wire")]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
    reasoning_tokens: Count,
}

impl WireUsage {
    /// Tokens of the prompt that were written to a cache.
    pub(super) fn cache_write_tokens(&self) -> u64 {
        self.input_tokens_details.cache_write_tokens.or(self.prompt_tokens_details.cache_write_tokens)
    }
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let parts = [wire.input_tokens, wire.prompt_tokens, wire.output_tokens, wire.completion_tokens];
        let counts_parts = parts.iter().any(|count| count.0.is_some());
        let (input, output) = (wire.input_tokens_details, wire.output_tokens_details);
        // Anthropic's `input_tokens` are those that the cache had nothing to do with.
        let [cache_read, cache_written] =
            [wire.cache_read_input_tokens, wire.cache_creation_input_tokens].map(|count| count.0.unwrap_or(0));
        let input_tokens = wire.input_tokens.or(wire.prompt_tokens) + cache_read + cache_written;
        let output_tokens = wire.output_tokens.or(wire.completion_tokens);
        let total_tokens = wire.total_tokens.0.unwrap_or(input_tokens + output_tokens);
        // Some servers that rank documents count all tokens only.
        let input_tokens = if counts_parts { input_tokens } else { total_tokens };
        let cached_tokens = input.cached_tokens.or(wire.prompt_tokens_details.cached_tokens);
        Self {
            input_tokens,
            cached_tokens: cached_tokens.max(wire.prompt_cache_hit_tokens.0.unwrap_or(0)).max(cache_read),
            output_tokens,
            reasoning_tokens: output.reasoning_tokens.or(wire.completion_tokens_details.reasoning_tokens),
            total_tokens,
        }
    }
}

/// A whole number of at least 0, such as `3` or `3.0`; none for any other value. A count beyond 32 bits is noise, and a
/// sum of noise would overflow the databases' integers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Count(Option<u64>);

impl Count {
    fn of(count: u64) -> Self {
        Self(Some(count.min(u64::from(u32::MAX))))
    }

    /// The larger of the counts that two names have.
    fn or(self, other: Self) -> u64 {
        self.0.max(other.0).unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        #[expect(clippy::struct_field_names, reason = "the names of the wire")]
        struct Members {
            cached_tokens: Count,
            cache_write_tokens: Count,
            reasoning_tokens: Count,
        }
        let read = Box::<RawValue>::deserialize(deserializer)?;
        // A list could be read as the members in their order.
        let object = Some(read.get()).filter(|read| read.starts_with('{')).unwrap_or("{}");
        let Members { cached_tokens, cache_write_tokens, reasoning_tokens } =
            serde_json::from_str(object).unwrap_or_default();
        Ok(Self { cached_tokens, cache_write_tokens, reasoning_tokens })
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E>(self, count: u64) -> Result<Count, E> {
        Ok(Count::of(count))
    }

    fn visit_i64<E>(self, count: i64) -> Result<Count, E> {
        Ok(u64::try_from(count).map_or(Count(None), Count::of))
    }

    fn visit_f64<E>(self, count: f64) -> Result<Count, E> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is checked to be neither")]
        let whole = (count >= 0.0 && count.fract().abs() < f64::EPSILON).then_some(count as u64);
        Ok(whole.map_or(Count(None), Count::of))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
        Ok(Count(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Count, E> {
        Ok(Count(None))
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Count(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Count(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_read_by_itself() {
        let all = Usage { input_tokens: 3, cached_tokens: 1, output_tokens: 2, reasoning_tokens: 1, total_tokens: 5 };
        let plain = Usage { cached_tokens: 0, reasoning_tokens: 0, ..all };
        let cases = [
            (
                r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1,
                    "audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":1}}"#,
                all,
            ),
            (
                r#"{"input_tokens":3,"output_tokens":2,"input_tokens_details":{"cached_tokens":1},
                    "output_tokens_details":{"reasoning_tokens":1}}"#,
                all,
            ),
            (r#"{"prompt_tokens":3.0,"completion_tokens":2e0,"total_tokens":5.0}"#, plain),
            (r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":-1}"#, plain),
            (r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":[1]}"#, plain),
            (r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0.5}}"#, plain),
            (r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":null,"cost":0.25}"#, plain),
            (r#"{"input_tokens":0,"output_tokens":0,"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}"#, plain),
            (
                r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_cache_hit_tokens":1}"#,
                Usage { cached_tokens: 1, ..plain },
            ),
            (
                r#"{"input_tokens":1,"cache_creation_input_tokens":1,"cache_read_input_tokens":1,"output_tokens":2}"#,
                Usage { cached_tokens: 1, ..plain },
            ),
            (r#"{"input_tokens":3,"cache_read_input_tokens":null,"output_tokens":2}"#, plain),
            (r#"{"prompt_tokens":"3","completion_tokens":{},"total_tokens":[1]}"#, Usage::default()),
            (r#"{"total_tokens":3}"#, Usage { input_tokens: 3, total_tokens: 3, ..Usage::default() }),
            (r#"{"prompt_tokens":3.5,"completion_tokens":true,"total_tokens":null}"#, Usage::default()),
            ("{}", Usage::default()),
        ];
        for (wire, expected) in cases {
            let read: WireUsage = serde_json::from_str(wire).expect("whatever the members are");
            assert_eq!(Usage::from(read), expected, "{wire}");
        }
    }
}
