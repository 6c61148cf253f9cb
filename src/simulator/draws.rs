//! Repeatable random numbers: those of a request follow from the seed and the request alone.
//!
//! The generator is implemented here, because a library's may give other numbers after an update.

use std::hash::{DefaultHasher, Hasher as _};

/// The numbers drawn for one request, by `SplitMix64`.
pub struct Draws {
    state: u64,
}

impl Draws {
    /// The draws of a request whose `Idempotency-Key` was seen `repeat` times before. With the key, an equal request of
    /// another batch has others; without, the same.
    pub fn new(seed: u64, repeat: u32, key: &[u8], body: &[u8]) -> Self {
        // `DefaultHasher::new` has fixed keys, unlike the hashers of a `HashMap`.
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(seed);
        hasher.write_u32(repeat);
        hasher.write(key);
        hasher.write(body);
        Self { state: hasher.finish() }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).expect("32 bits are left")
    }

    /// A number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        f64::from(self.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    /// A number from 0 to `bound`, without `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        let scaled = (u64::from(self.next_u32()) * u64::from(bound)) >> 32;
        u32::try_from(scaled).expect("smaller than the bound")
    }

    /// 128 bits for an id.
    pub fn id(&mut self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_repeat_key_and_body_decide_together() {
        let first =
            |seed, repeat, key: &str, body: &str| Draws::new(seed, repeat, key.as_bytes(), body.as_bytes()).id();
        let id = first(1, 0, "k", "a");

        assert_eq!(first(1, 0, "k", "a"), id);
        for other in [first(2, 0, "k", "a"), first(1, 1, "k", "a"), first(1, 0, "l", "a"), first(1, 0, "k", "b")] {
            assert_ne!(other, id);
        }
    }

    #[test]
    fn draws_stay_within_their_bounds_and_fill_them() {
        let mut draws = Draws::new(0, 0, b"", b"");
        let mut counts = [0; 4];
        for _ in 0..4000 {
            assert!((0.0..1.0).contains(&draws.unit()));
            counts[draws.below(4) as usize] += 1;
        }

        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
