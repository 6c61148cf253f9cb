//! How much of its owner's share a batch has beside the owner's other batches.

use std::collections::BTreeMap;

/// The key of a batch's metadata that asks for a priority.
const KEY: &str = "priority";

/// A batch's priority among the batches of its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BatchPriority {
    /// Four times as many rows under way as a normal batch.
    High,
    /// As many as every other.
    #[default]
    Normal,
    /// A quarter of those of a normal batch.
    Low,
}

impl BatchPriority {
    /// What a batch's metadata asks for: `"priority": "high"` or `"low"`. Anything else is normal.
    #[must_use]
    pub fn asked_for(metadata: &BTreeMap<String, String>) -> Self {
        match metadata.get(KEY).map(String::as_str) {
            Some("high") => Self::High,
            Some("low") => Self::Low,
            _ => Self::Normal,
        }
    }

    /// Rows under way count so many times: a batch with a lower number gets more of them.
    #[must_use]
    pub fn divisor(self) -> usize {
        match self {
            Self::High => 1,
            Self::Normal => 4,
            Self::Low => 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_asks_for_its_priority_in_its_metadata() {
        let cases = [
            (Some("high"), BatchPriority::High),
            (Some("low"), BatchPriority::Low),
            (Some("normal"), BatchPriority::Normal),
            (Some("1"), BatchPriority::Normal),
            (None, BatchPriority::Normal),
        ];
        for (value, expected) in cases {
            let metadata = value.map(|value| (KEY.to_owned(), value.to_owned())).into_iter().collect();
            assert_eq!(BatchPriority::asked_for(&metadata), expected, "{value:?}");
        }
    }
}
