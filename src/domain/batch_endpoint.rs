//! The endpoint of a batch: that of all its rows, or each row's own (an extension).

use std::fmt;

use super::endpoint::Endpoint;

/// The endpoint that a batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchEndpoint {
    /// Every row names this one.
    One(Endpoint),
    /// Each row names its own: `*`.
    Any,
}

impl BatchEndpoint {
    /// The text of [`Self::Any`] on the wire and in the database.
    pub const ANY: &'static str = "*";

    /// The text on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One(endpoint) => endpoint.as_str(),
            Self::Any => Self::ANY,
        }
    }

    /// The one with this text, whatever endpoints the settings of today name.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        if text == Self::ANY { Some(Self::Any) } else { Endpoint::named(text).map(Self::One) }
    }

    /// The one for a file whose rows name these urls; `None` if they name none.
    #[must_use]
    pub fn of_urls<'a>(mut urls: impl Iterator<Item = &'a str>) -> Option<Self> {
        let first = urls.next()?;
        if urls.next().is_some() { Some(Self::Any) } else { Self::named(first) }
    }

    /// Whether rows may name this url, in the text of its endpoint.
    #[must_use]
    pub fn includes(self, url: &str) -> bool {
        match self {
            Self::One(endpoint) => endpoint.as_str() == url,
            Self::Any => true,
        }
    }
}

impl From<Endpoint> for BatchEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self::One(endpoint)
    }
}

impl fmt::Display for BatchEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_several_urls_is_for_a_batch_of_any_endpoint() {
        let chat = BatchEndpoint::One(Endpoint::ChatCompletions);
        let cases: [(&[&str], Option<BatchEndpoint>); 3] = [
            (&[], None),
            (&["/v1/chat/completions"], Some(chat)),
            (&["/v1/chat/completions", "/v1/embeddings"], Some(BatchEndpoint::Any)),
        ];
        for (urls, expected) in cases {
            assert_eq!(BatchEndpoint::of_urls(urls.iter().copied()), expected);
        }
        assert!(BatchEndpoint::Any.includes("/v1/embeddings") && !chat.includes("/v1/embeddings"));
        assert_eq!(
            [chat, BatchEndpoint::Any].map(|of| BatchEndpoint::named(of.as_str())),
            [Some(chat), Some(BatchEndpoint::Any)]
        );
    }
}
