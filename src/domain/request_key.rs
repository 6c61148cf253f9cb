//! Idempotency keys: a request that is sent again with the same key has the effect of one.

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// How long a key is known after its first use.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The idempotency key of a request, and what the request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The key, which is the client's.
    pub key: String,
    /// The hash of everything that the request asks for.
    pub fingerprint: String,
}

/// The first use of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The fingerprint of the first request.
    pub fingerprint: String,
    /// The id of the object that it made, as clients see it.
    pub object: String,
}

/// The hash of everything that a request asks for, which is added piece by piece.
#[derive(Debug, Clone)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// For a request of this kind: requests of two kinds are never the same.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        let mut fingerprint = Self(Sha256::new());
        fingerprint.add(kind.as_bytes());
        fingerprint
    }

    /// Adds a piece. Its length is added too, so that no byte can move from one piece to the next.
    pub fn add(&mut self, piece: &[u8]) {
        self.0.update((piece.len() as u64).to_be_bytes());
        self.0.update(piece);
    }

    /// The fingerprint in hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        hexadecimal(&self.0.finalize())
    }
}

/// The hash of bytes that come in chunks of any size.
#[derive(Debug, Clone, Default)]
pub struct BytesHash(Sha256);

impl BytesHash {
    /// Adds the next chunk.
    pub fn add(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    /// The hash.
    #[must_use]
    pub fn finish(self) -> String {
        hexadecimal(&self.0.finalize())
    }
}

/// Bytes in lowercase hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, pieces: &[&str]) -> String {
        let mut fingerprint = Fingerprint::of(kind);
        for piece in pieces {
            fingerprint.add(piece.as_bytes());
        }
        fingerprint.finish()
    }

    #[test]
    fn pieces_do_not_run_into_each_other() {
        let cases = [of("a", &["b", "c"]), of("a", &["bc"]), of("ab", &["c"]), of("a", &["b", "c", ""])];
        for (no, one) in cases.iter().enumerate() {
            assert!(cases[no + 1..].iter().all(|other| other != one));
        }
        assert_eq!(of("a", &["b", "c"]), cases[0]);
    }
}
