//! The owner of a file or a batch: the tenant that a client acts for.

use std::fmt;
use std::sync::Arc;

/// The id of an owner. Cheap to clone.
///
/// An id has 1 to 128 characters, each of them printable ASCII and no space: the ids that identity providers, databases
/// and people give to tenants fit, and none breaks a log line or compares differently in one database than in the
/// other. Upper and lower case differ. All ids are of one kind; the id `default` belongs to every client that has no
/// key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// The most characters that an id has.
    pub const MAX_LENGTH: usize = 128;

    /// The owner with this id; `None` for a text that is no id of an owner.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=Self::MAX_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_id.then(|| Self(text.into()))
    }

    /// The id, as the database has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The owner of all that clients without a key make.
impl Default for Owner {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_printable() {
        let longest = "x".repeat(Owner::MAX_LENGTH);
        let cases = [
            ("default", true),
            ("Team-7", true),
            ("a@b.example/c:d|e", true),
            (&longest, true),
            ("", false),
            (&format!("{longest}x"), false),
            ("two words", false),
            ("a\nb", false),
            ("a\0", false),
            ("é", false),
        ];
        for (text, is_id) in cases {
            assert_eq!(Owner::parse(text).map(|owner| owner.to_string()), is_id.then(|| text.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn the_default_owner_has_an_id() {
        assert_eq!(Owner::parse("default"), Some(Owner::default()));
    }
}
