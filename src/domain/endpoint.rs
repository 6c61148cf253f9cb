//! The endpoints a batch may be for (contract §8.1).

use super::text_enum::text_enum;

text_enum! {
    /// An inference endpoint that batch rows may name, with the `/v1` prefix clients write. In the order in which error
    /// messages list them.
    pub enum Endpoint {
        Responses = "/v1/responses",
        ChatCompletions = "/v1/chat/completions",
        Embeddings = "/v1/embeddings",
        Completions = "/v1/completions",
        Moderations = "/v1/moderations",
        ImagesGenerations = "/v1/images/generations",
        ImagesEdits = "/v1/images/edits",
        Videos = "/v1/videos",
    }
}

impl Endpoint {
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

    /// Whether a request has a prompt that the server goes on from, token by token.
    #[must_use]
    pub fn has_prompt(self) -> bool {
        matches!(self, Self::Responses | Self::ChatCompletions | Self::Completions)
    }
}
