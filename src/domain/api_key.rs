//! API keys: whom a client acts for, and what it may do.
//!
//! A key is a text of 256 random bits that only its holder has. The database has its SHA-256 hash and finds it by that.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::ids::KeyId;
use super::owner::Owner;
use super::text_enum::text_enum;
use super::time::Timestamp;

/// What every key begins with.
const PREFIX: &str = "bw-";

/// Characters at the end of a key that lists and refusals show, so that people can tell their keys apart.
const ENDING: usize = 4;

/// Only keys of this length or longer are shown in part: of a shorter text, the part would say too much.
const LONG: usize = 20;

/// A use of a key is written only if the last one that was written is older than this.
pub const USE_RESOLUTION: Duration = Duration::from_mins(1);

text_enum! {
    /// What a key lets its holder do. Each scope includes those before it.
    pub enum KeyScope {
        /// Read what the project has.
        Read = "read",
        /// Change it: upload, create, cancel, delete.
        Write = "write",
        /// Read what concerns every project, such as the metrics.
        Admin = "admin",
    }
}

impl KeyScope {
    fn includes(self, needed: Self) -> bool {
        self as u8 >= needed as u8
    }
}

/// The scopes of a key: one or more, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyScopes(Vec<KeyScope>);

impl KeyScopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Self(KeyScope::ALL.into())
    }

    /// Reads names with commas between them. `None` if one of them is no scope.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named: Vec<KeyScope> = text.split(',').map(|name| KeyScope::parse(name.trim())).collect::<Option<_>>()?;
        Some(Self(KeyScope::ALL.into_iter().filter(|scope| named.contains(scope)).collect()))
    }

    /// Whether one of them is or includes `needed`.
    #[must_use]
    pub fn allow(&self, needed: KeyScope) -> bool {
        self.0.iter().any(|scope| scope.includes(needed))
    }

    /// Their names, in the order of [`KeyScope`].
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|scope| scope.as_str()).collect()
    }
}

/// The names with commas between them, as [`KeyScopes::parse`] reads them.
impl fmt::Display for KeyScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id, which is no secret.
    pub id: KeyId,
    /// The project that its holder acts for.
    pub owner: Owner,
    /// What people call it; may be empty.
    pub name: String,
    /// What it allows.
    pub scopes: KeyScopes,
    /// Its last characters.
    pub ending: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was used last, to about [`USE_RESOLUTION`].
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked. A revoked key allows nothing.
    pub revoked_at: Option<Timestamp>,
}

/// A text of 256 random bits that proves something to whoever has its hash. Not shown by `Debug`.
#[derive(Clone)]
pub struct RandomSecret(String);

impl RandomSecret {
    /// A new key: `bw-` and 43 characters that need no escaping in URLs, headers and shells.
    #[must_use]
    pub fn new_key() -> Self {
        Self(format!("{PREFIX}{}", random_text()))
    }

    /// A new token of a session.
    #[must_use]
    pub fn new_token() -> Self {
        Self(random_text())
    }

    /// The text itself, for the one place that gives it to its holder.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }

    /// What lists show of it.
    #[must_use]
    pub fn ending(&self) -> &str {
        &self.0[self.0.len() - ENDING..]
    }
}

impl fmt::Debug for RandomSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The generator is the thread's, which is a cryptographic one with a seed of the operating system.
fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// The SHA-256 hash of a secret. A slow hash, as passwords need it, would protect nothing more: nobody can try 2^256
/// texts.
///
/// Equality takes the same time wherever two hashes differ, so that no comparison anywhere tells how far a guess was
/// right.
#[derive(Debug, Clone, Copy)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// The hash of a secret that a client has sent.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl Hash for SecretHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A key that a client has sent, as a refusal may show it: its first three and its last four characters. All that is
/// shown is printable ASCII.
#[must_use]
pub fn masked(key: &str) -> String {
    let is_shown = key.len() >= LONG && key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_shown { format!("{}***{}", &key[..PREFIX.len()], &key[key.len() - ENDING..]) } else { "***".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_include_those_before_them() {
        let cases = [
            ("read", [true, false, false]),
            ("write", [true, true, false]),
            ("read,write", [true, true, false]),
            ("admin", [true, true, true]),
        ];
        for (text, allowed) in cases {
            let scopes = KeyScopes::parse(text).expect("they are scopes");
            assert_eq!(KeyScope::ALL.map(|scope| scopes.allow(scope)), allowed, "{text}");
            assert_eq!(scopes.to_string(), text);
        }
    }

    #[test]
    fn scopes_are_read_in_any_order_and_nothing_else_is() {
        assert_eq!(KeyScopes::parse("write, read,write").map(|scopes| scopes.to_string()), Some("read,write".into()));
        for text in ["", "read,", "Read", "read write", "everything"] {
            assert_eq!(KeyScopes::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_key_is_new_and_long_and_needs_no_escaping() {
        let (key, other) = (RandomSecret::new_key(), RandomSecret::new_key());

        assert_ne!(key.reveal(), other.reveal());
        let random = key.reveal().strip_prefix("bw-").expect("the prefix");
        assert_eq!(URL_SAFE_NO_PAD.decode(random).expect("the alphabet").len(), 32);
        assert!(key.reveal().ends_with(key.ending()));
        assert_eq!(format!("{key:?}"), "(secret)");
    }

    #[test]
    fn hashes_are_sha_256_and_equal_only_if_every_byte_is() {
        let hash = SecretHash::of("abc");
        assert_eq!(hash.0[..4], [0xba, 0x78, 0x16, 0xbf]);
        for place in [0, 15, 31] {
            let mut other = hash;
            other.0[place] ^= 1;
            assert_ne!(hash, other);
        }
        assert_eq!(hash, SecretHash::of("abc"));
    }

    #[test]
    fn little_of_a_refused_key_is_shown() {
        let cases = [
            ("bw-abcdefghijklmnopqrstuvwxyz", "bw-***wxyz"),
            ("sk-short", "***"),
            ("", "***"),
            ("bw-ééééééééééééééééééé", "***"),
            ("bw-abcdefghij klmnopqrst", "***"),
        ];
        for (key, shown) in cases {
            assert_eq!(masked(key), shown, "{key}");
        }
    }
}
