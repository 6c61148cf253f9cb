//! Texts that must not be shown.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A key, or a URL with a password in it. Not shown by `Debug`.
#[derive(Clone, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The text with each `${NAME}` replaced by the environment variable of that name.
    ///
    /// # Errors
    /// Which variable is not set.
    pub fn with_environment(&self) -> Result<Self, String> {
        let mut text = String::new();
        let mut rest = self.0.as_str();
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else { break };
            let name = &rest[start + 2..start + length];
            text.push_str(&rest[..start]);
            #[expect(clippy::disallowed_methods, reason = "the settings file names it, and nothing else reads it")]
            let value = std::env::var(name);
            text.push_str(&value.map_err(|_| format!("the environment variable {name} is not set"))?);
            rest = &rest[start + length + 1..];
        }
        text.push_str(rest);
        Ok(Self(text))
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
