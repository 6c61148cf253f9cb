//! The endpoints a batch may be for (contract §8.1).

use std::fmt;

/// An inference endpoint that batch rows may name, with the `/v1` prefix clients write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/responses`
    Responses,
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/completions`
    Completions,
    /// `/v1/moderations`
    Moderations,
    /// `/v1/images/generations`
    ImagesGenerations,
    /// `/v1/images/edits`
    ImagesEdits,
    /// `/v1/videos`
    Videos,
}

impl Endpoint {
    /// Every endpoint, in the order error messages list them.
    pub const ALL: [Self; 8] = [
        Self::Responses,
        Self::ChatCompletions,
        Self::Embeddings,
        Self::Completions,
        Self::Moderations,
        Self::ImagesGenerations,
        Self::ImagesEdits,
        Self::Videos,
    ];

    /// The text clients write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responses => "/v1/responses",
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Completions => "/v1/completions",
            Self::Moderations => "/v1/moderations",
            Self::ImagesGenerations => "/v1/images/generations",
            Self::ImagesEdits => "/v1/images/edits",
            Self::Videos => "/v1/videos",
        }
    }

    /// The path below an upstream's base URL, which ends in `/v1` itself.
    #[must_use]
    pub fn path_below_v1(self) -> &'static str {
        &self.as_str()["/v1/".len()..]
    }

    /// The API's name as error messages have it.
    #[must_use]
    pub fn api_name(self) -> &'static str {
        match self {
            Self::Responses => "Responses",
            Self::ChatCompletions => "Chat Completions",
            Self::Embeddings => "Embeddings",
            Self::Completions => "Completions",
            Self::Moderations => "Moderations",
            Self::ImagesGenerations | Self::ImagesEdits => "Images",
            Self::Videos => "Videos",
        }
    }

    /// Whether a request must name a model; the others have a default of the server's.
    #[must_use]
    pub fn requires_model(self) -> bool {
        match self {
            Self::Responses | Self::ChatCompletions | Self::Embeddings | Self::Completions => true,
            Self::Moderations | Self::ImagesGenerations | Self::ImagesEdits | Self::Videos => false,
        }
    }

    /// The endpoint with exactly this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.as_str() == text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
