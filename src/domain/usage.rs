//! Tokens used: read from an answer, summed over a batch.

use serde::{Deserialize, Serialize};

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

/// The member `usage` of an answer, in the names of either API.
#[derive(Deserialize)]
pub(super) struct AnswerHead {
    #[serde(default)]
    pub(super) usage: Option<WireUsage>,
}

/// Some servers send both sets of names, so they are separate members and not aliases.
#[derive(Deserialize)]
pub(super) struct WireUsage {
    input_tokens: Option<u64>,
    prompt_tokens: Option<u64>,
    output_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    prompt_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
}

#[derive(Deserialize, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the names of the wire")]
struct Details {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// Tokens of the prompt that were written to a cache.
    pub(super) fn cache_write_tokens(&self) -> u64 {
        let input = self.input_tokens_details.or(self.prompt_tokens_details);
        sane(input.and_then(|details| details.cache_write_tokens))
    }
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let input = wire.input_tokens_details.or(wire.prompt_tokens_details);
        let output = wire.output_tokens_details.or(wire.completion_tokens_details);
        let input_tokens = sane(wire.input_tokens.or(wire.prompt_tokens));
        let output_tokens = sane(wire.output_tokens.or(wire.completion_tokens));
        Self {
            input_tokens,
            cached_tokens: sane(input.and_then(|details| details.cached_tokens)),
            output_tokens,
            reasoning_tokens: sane(output.and_then(|details| details.reasoning_tokens)),
            total_tokens: wire.total_tokens.map_or(input_tokens + output_tokens, |total| sane(Some(total))),
        }
    }
}

/// A count beyond 32 bits is noise, and a sum of noise would overflow the databases' integers.
fn sane(count: Option<u64>) -> u64 {
    count.unwrap_or(0).min(u64::from(u32::MAX))
}
