//! The secret that signs events, as OpenAI's SDKs take it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const PREFIX: &str = "whsec_";
const LONGEST: usize = 512;

/// A secret that signs events: `whsec_` and the key in base64, or any other text, which is then the key itself. Not
/// shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(String);

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is empty or too long.
    #[error("a secret has 1 to {LONGEST} characters")]
    Length,
    /// It begins with `whsec_` and goes on with something else than base64.
    #[error("after 'whsec_' a secret must be base64, with its '=' at the end")]
    NotBase64,
    /// It has a NUL, which a database may not take.
    #[error("a secret has no NUL")]
    Nul,
}

impl SigningSecret {
    /// Reads a secret.
    ///
    /// # Errors
    /// Why the text is none.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(SecretError::Length);
        }
        if text.contains('\0') {
            return Err(SecretError::Nul);
        }
        if let Some(encoded) = text.strip_prefix(PREFIX)
            && STANDARD.decode(encoded).ok().is_none_or(|key| key.is_empty())
        {
            return Err(SecretError::NotBase64);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text, for the database.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The key of the signature.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let decoded = self.0.strip_prefix(PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
        decoded.unwrap_or_else(|| self.0.as_bytes().to_vec())
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_the_sdks_read_it() {
        let long = "x".repeat(LONGEST + 1);
        let cases = [
            ("whsec_aGVsbG8=", Ok(b"hello".to_vec())),
            ("hello", Ok(b"hello".to_vec())),
            ("", Err(SecretError::Length)),
            ("a\0b", Err(SecretError::Nul)),
            (&long, Err(SecretError::Length)),
            ("whsec_", Err(SecretError::NotBase64)),
            ("whsec_not base64", Err(SecretError::NotBase64)),
        ];
        for (text, key) in cases {
            assert_eq!(SigningSecret::parse(text).map(|secret| secret.key()), key, "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", SigningSecret::parse("hunter2").unwrap()), "(secret)");
    }
}
