//! Whether a row names a member twice, of which JSON does not say which one counts.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A row whose known members are there once, whatever they are.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct EachKeyOnce {
    custom_id: IgnoredAny,
    method: IgnoredAny,
    url: IgnoredAny,
    body: EachBodyKeyOnce,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct EachBodyKeyOnce {
    model: Option<IgnoredAny>,
    stream: Option<IgnoredAny>,
}

/// Whether each known member of a row is there once at most, and none of the four that it must have is missing.
pub(super) fn are_there_once(line: &str) -> bool {
    serde_json::from_str::<EachKeyOnce>(line).is_ok()
}
