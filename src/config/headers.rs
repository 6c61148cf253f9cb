//! Headers that the settings have sent, and what of a URL is sent as one.

use std::collections::BTreeMap;
use std::str::FromStr;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::{Secret, without_credentials};
use crate::domain::row::shown;

/// Headers by their names. Their values are not shown in logs.
///
/// # Errors
/// Which header cannot be sent.
pub fn headers<'a>(texts: impl Iterator<Item = (&'a String, String)>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in texts {
        let known =
            HeaderName::try_from(name).map_err(|_| format!("'{}' is no name of an HTTP header", shown(name)))?;
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| format!("the value of '{name}' is none that an HTTP header can have"))?;
        value.set_sensitive(true);
        headers.insert(known, value);
    }
    Ok(headers)
}

/// A header that tells an upstream what a batch's metadata has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataHeader {
    /// The key.
    pub key: String,
    /// The header's name: `x-batchwright-metadata-` and the key.
    pub name: HeaderName,
}

impl FromStr for MetadataHeader {
    type Err = String;

    fn from_str(key: &str) -> Result<Self, String> {
        let name = HeaderName::try_from(format!("x-batchwright-metadata-{key}"));
        match name {
            Ok(name) if !key.is_empty() => Ok(Self { key: key.to_owned(), name }),
            _ => Err(format!(
                "'{}' cannot be part of a header's name, which may have ASCII letters, digits, '-', '_' and '.'",
                shown(key)
            )),
        }
    }
}

fn configured_headers(given: &BTreeMap<String, Secret>) -> Result<HeaderMap, String> {
    // A variable often ends with the line break of the file that it came from.
    let texts = given.iter().map(|(name, value)| Ok((name, value.with_environment()?.reveal().trim().to_owned())));
    headers(texts.collect::<Result<Vec<_>, String>>()?.into_iter())
}

/// A URL of the settings without user name and password, and the headers to send: user name and password become one of
/// them.
///
/// # Errors
/// What cannot be sent.
pub fn address(url: &Url, given: &BTreeMap<String, Secret>) -> Result<(Url, HeaderMap), String> {
    let mut headers = configured_headers(given)?;
    let (url, credentials) = without_credentials(url.clone())?;
    if let Some(credentials) = credentials {
        let mut value = HeaderValue::try_from(credentials.reveal()).expect("base64 is ASCII");
        value.set_sensitive(true);
        if headers.insert(AUTHORIZATION, value).is_some() {
            return Err(
                "the URL has a user name or a password in it, and headers have an Authorization too: leave one \
                        of them out"
                    .to_owned(),
            );
        }
    }
    Ok((url, headers))
}
