//! The beginnings of prompts that a simulated server need not compute again.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher as _};

/// Tokens of a block, and bytes of a token.
const BLOCK_TOKENS: usize = 16;
const TOKEN_BYTES: usize = 4;

/// Blocks of prompts, of which those that were used longest ago are forgotten first.
#[derive(Debug)]
pub(super) struct PrefixCache {
    most: usize,
    /// The number of the last use of each block, which is known by all bytes up to its end.
    used: HashMap<u64, u64>,
    /// The same by the number.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

impl PrefixCache {
    pub(super) fn new(tokens: usize) -> Self {
        Self { most: tokens / BLOCK_TOKENS, used: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// How many tokens at the beginning of a prompt are known. All of it is known from then on.
    pub(super) fn look_up(&mut self, prompt: &[u8]) -> usize {
        let mut hasher = DefaultHasher::new();
        let (mut known, mut is_known) = (0, true);
        for block in prompt.chunks_exact(BLOCK_TOKENS * TOKEN_BYTES) {
            hasher.write(block);
            is_known &= self.use_block(hasher.finish());
            known += usize::from(is_known);
        }
        known * BLOCK_TOKENS
    }

    fn use_block(&mut self, block: u64) -> bool {
        self.uses += 1;
        let before = self.used.insert(block, self.uses);
        if let Some(before) = before {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.uses, block);
        if self.used.len() > self.most
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.used.remove(&oldest);
        }
        before.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_known_as_far_as_it_begins_like_another() {
        let text = |a: usize, b: usize| [vec![b'a'; a * 64], vec![b'b'; b * 64]].concat();
        let mut cache = PrefixCache::new(8 * BLOCK_TOKENS);

        assert_eq!(cache.look_up(&text(4, 2)), 0);
        assert_eq!(cache.look_up(&text(4, 2)), 6 * BLOCK_TOKENS);
        assert_eq!(cache.look_up(&text(4, 0)), 4 * BLOCK_TOKENS);
        assert_eq!(cache.look_up(&text(5, 1)), 4 * BLOCK_TOKENS);
        assert_eq!(cache.look_up(&text(0, 8)), 0);
        assert_eq!(cache.look_up(&text(4, 2)), 0, "it was forgotten");
    }
}
