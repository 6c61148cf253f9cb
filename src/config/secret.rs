//! Secrets, and URLs that may contain secrets.

use std::path::Path;
use std::str::FromStr;
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use serde::Deserialize;
use url::Url;

/// A key, or a URL with a password in it. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The first line of a file, without the spaces around it.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(Self(text.lines().next().unwrap_or_default().trim().to_owned()))
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
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            text.push_str(&value.ok_or_else(|| format!("the environment variable {name} is not set, or empty"))?);
            rest = &rest[start + length + 1..];
        }
        text.push_str(rest);
        Ok(Self(text))
    }
}

/// A URL as it may be shown: without user name, password, query and fragment, any of which may be a secret.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return "(not a URL)".to_owned() };
    // Fails only for URLs that cannot have a user name or a password.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    // In a URL without a host, the rest of the text may be anything.
    if url.cannot_be_a_base() { format!("{}:…", url.scheme()) } else { url.into() }
}

/// Removes user name and password from an http URL, and returns them as the value of an `Authorization` header.
///
/// # Errors
/// The URL is neither http nor https.
pub fn without_credentials(mut url: Url) -> Result<(Url, Option<Secret>), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("a URL must begin with http:// or https://, but this one begins with {}:", url.scheme()));
    }
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let (user, password) = (decoded(url.username()), url.password().map(decoded));
    if user.is_empty() && password.is_none() {
        return Ok((url, None));
    }
    let joined = [&user[..], b":", password.as_deref().unwrap_or_default()].concat();
    url.set_username("").and_then(|()| url.set_password(None)).expect("an http URL has a host");
    Ok((url, Some(Secret(format!("Basic {}", STANDARD.encode(joined))))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_a_secret() {
        let cases = [
            ("http://user:hunter2@host:8000/v1?key=hunter2#hunter2", "http://host:8000/v1"),
            ("s3://hunter2@bucket/prefix", "s3://bucket/prefix"),
            ("postgres://user:hunter2@host/d", "postgres://host/d"),
            ("file:///a/directory", "file:///a/directory"),
            ("mailto:hunter2", "mailto:…"),
            ("http://user:hunter2@[", "(not a URL)"),
        ];

        for (url, shown) in cases {
            assert_eq!(shown_url(url), shown);
        }
    }

    #[test]
    fn user_name_and_password_become_a_header() {
        let cases = [
            ("http://h/v1", "http://h/v1", None),
            ("http://user:pass@h/v1", "http://h/v1", Some("Basic dXNlcjpwYXNz")),
            ("https://us%40er@h/?a=b", "https://h/?a=b", Some("Basic dXNAZXI6")),
        ];

        for (given, url, header) in cases {
            let (left, taken) = without_credentials(given.parse().expect("a URL")).expect("http");
            assert_eq!((left.as_str(), taken.as_ref().map(Secret::reveal)), (url, header));
        }
        let refused = without_credentials("ftp://user:hunter2@h".parse().expect("a URL")).expect_err("not http");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
