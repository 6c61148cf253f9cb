//! The endpoints that rows may be for (contract §8.1), those of other servers, and those that only the settings name.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// An inference endpoint that batch rows may name. Its text is the path that clients write.
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
    /// `/v1/audio/transcriptions`, whose rows name a file as those of vLLM's `run-batch` do.
    AudioTranscriptions,
    /// `/v1/audio/translations`, the same.
    AudioTranslations,
    /// `/v1/messages`: Anthropic's, which vLLM, SGLang and llama.cpp have too.
    Messages,
    /// `/v1/score`
    Score,
    /// `/v1/rerank`
    Rerank,
    /// `/v2/rerank`
    RerankV2,
    /// `/v1/pooling`, which vLLM has as `/pooling`.
    Pooling,
    /// `/v1/classify`, as SGLang has it.
    Classify,
    /// `/classify`, as vLLM has it.
    ClassifyUnversioned,
    /// A path that only the settings name. Every JSON object is an answer of it.
    Extra(&'static str),
}

impl Endpoint {
    /// The endpoints with a judgement of their own, in the order in which error messages list them.
    pub const ALL: [Self; 17] = [
        Self::Responses,
        Self::ChatCompletions,
        Self::Embeddings,
        Self::Completions,
        Self::Moderations,
        Self::ImagesGenerations,
        Self::ImagesEdits,
        Self::Videos,
        Self::AudioTranscriptions,
        Self::AudioTranslations,
        Self::Messages,
        Self::Score,
        Self::Rerank,
        Self::RerankV2,
        Self::Pooling,
        Self::Classify,
        Self::ClassifyUnversioned,
    ];

    /// The text on the wire and in the database.
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
            Self::AudioTranscriptions => "/v1/audio/transcriptions",
            Self::AudioTranslations => "/v1/audio/translations",
            Self::Messages => "/v1/messages",
            Self::Score => "/v1/score",
            Self::Rerank => "/v1/rerank",
            Self::RerankV2 => "/v2/rerank",
            Self::Pooling => "/v1/pooling",
            Self::Classify => "/v1/classify",
            Self::ClassifyUnversioned => "/classify",
            Self::Extra(path) => path,
        }
    }

    /// The endpoint with a judgement of its own that a client means by a path. A path without a version, as Azure's
    /// rows have it, means the first version.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let find = |path: &str| Self::ALL.into_iter().find(|endpoint| endpoint.as_str() == path);
        find(path).or_else(|| find(&format!("/v1{path}")))
    }

    /// The endpoint with this path, whether the settings of today name it or those of the day when it was written.
    /// `None` for a text that is no path.
    ///
    /// A path that is none of [`Self::ALL`] is kept for the rest of the process. Only the settings and the database
    /// have such paths, so they are few.
    #[must_use]
    pub fn named(path: &str) -> Option<Self> {
        static PATHS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        if let Some(known) = Self::parse(path) {
            return Some(known);
        }
        if !is_path(path) {
            return None;
        }
        let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = paths.get(path).copied().unwrap_or_else(|| Box::leak(path.into()));
        paths.insert(kept);
        Some(Self::Extra(kept))
    }

    /// The path at an inference server: below its base URL, which ends in `/v1` itself, or beside that.
    #[must_use]
    pub fn upstream_path(self) -> UpstreamPath {
        match self {
            Self::Pooling => UpstreamPath::BesideV1("/pooling"),
            _ => match self.as_str().strip_prefix("/v1/") {
                Some(below) => UpstreamPath::BelowV1(below),
                None => UpstreamPath::BesideV1(self.as_str()),
            },
        }
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
            Self::AudioTranscriptions | Self::AudioTranslations => "Audio",
            Self::Messages => "Messages",
            Self::Score => "Score",
            Self::Rerank | Self::RerankV2 => "Rerank",
            Self::Pooling => "Pooling",
            Self::Classify | Self::ClassifyUnversioned => "Classify",
            Self::Extra(path) => path,
        }
    }

    /// Whether a request must name a model; the others have a default of the server's.
    #[must_use]
    pub fn requires_model(self) -> bool {
        matches!(self, Self::Responses | Self::ChatCompletions | Self::Embeddings | Self::Completions | Self::Messages)
    }

    /// Whether a request must have messages.
    #[must_use]
    pub fn requires_messages(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Messages)
    }

    /// Whether a request has a prompt that the server goes on from, token by token.
    #[must_use]
    pub fn has_prompt(self) -> bool {
        matches!(self, Self::Responses | Self::ChatCompletions | Self::Completions | Self::Messages)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an inference server has an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamPath {
    /// Below the base URL; without a slash before it.
    BelowV1(&'static str),
    /// Beside the `/v1` that the base URL ends in; with a slash before it.
    BesideV1(&'static str),
}

/// The endpoints that batches of a deployment may be for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Besides [`Endpoint::ALL`].
    pub extra: Vec<Endpoint>,
    /// If there are any: these instead of all.
    pub only: Vec<Endpoint>,
}

impl Endpoints {
    /// [`Endpoint::ALL`].
    pub const KNOWN: Self = Self { extra: Vec::new(), only: Vec::new() };

    /// The endpoint that a client means by a path, if batches may be for it.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Endpoint> {
        let extra = || self.all().find(|endpoint| endpoint.as_str() == path);
        let found = Endpoint::parse(path).or_else(extra)?;
        self.all().find(|endpoint| *endpoint == found)
    }

    /// All of them, in the order in which error messages list them.
    pub fn all(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let usual = self.only.is_empty().then_some(Endpoint::ALL).into_iter().flatten();
        usual.chain(self.only.iter().copied()).chain(self.extra.iter().copied())
    }
}

/// Whether a text is the path of a URL and nothing else: segments of letters, digits, `-`, `_`, `.` and `~`.
fn is_path(text: &str) -> bool {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    };
    text.len() <= 200 && text.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_found_by_its_text_and_without_a_version() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::parse(endpoint.as_str()), Some(endpoint));
            assert_eq!(Endpoint::named(endpoint.as_str()), Some(endpoint));
        }
        let cases = [
            ("/chat/completions", Some(Endpoint::ChatCompletions)),
            ("/pooling", Some(Endpoint::Pooling)),
            ("/classify", Some(Endpoint::ClassifyUnversioned)),
            ("/v1/v1/chat/completions", None),
            ("chat/completions", None),
            ("/v1/chat/completions/", None),
            ("", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Endpoint::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn other_paths_are_endpoints_of_the_settings() {
        assert_eq!(Endpoint::named("/v1/foo"), Some(Endpoint::Extra("/v1/foo")));
        for text in ["", "/", "v1/foo", "/v1/foo/", "/v1/../foo", "/v1//foo", "/foo?a=1", "/foo#a", "/f o", "*"] {
            assert_eq!(Endpoint::named(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_deployment_can_have_more_endpoints_or_fewer() {
        let (foo, chat) = (Endpoint::Extra("/v1/foo"), Endpoint::ChatCompletions);
        let (none, more) = (Endpoints::KNOWN, Endpoints { extra: vec![foo], only: vec![] });
        let (few, both) =
            (Endpoints { extra: vec![], only: vec![chat] }, Endpoints { extra: vec![foo], only: vec![chat] });
        // A path, and by which of these it is found.
        let cases = [
            ("/v1/chat/completions", [true; 4]),
            ("/chat/completions", [true; 4]),
            ("/v1/embeddings", [true, true, false, false]),
            ("/v1/foo", [false, true, false, true]),
            ("/foo", [false; 4]),
        ];
        for (path, expected) in cases {
            assert_eq!([&none, &more, &few, &both].map(|of| of.find(path).is_some()), expected, "{path}");
        }
    }
}
