//! Which software a server is, as far as its list of models says it.
//!
//! llama.cpp, SGLang and Ollama have `/v1/responses`, and ignore there what they honour in chat completions: schemas,
//! tools, or the choice of one. Their answers do not show it, so rows that ask for such a thing go to chat completions.

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::served_models::entries;
use super::server::LIST_PATIENCE;
use super::{BELIEVED_FOR, UpstreamError};
use crate::domain::outcome::HttpResponse;
use crate::domain::time::{Clock, Timestamp};

/// What the members `owned_by` of the lists of such servers are, in this order: llama.cpp, SGLang, Ollama.
const OWNERS: [&str; 3] = ["llamacpp", "sglang", "library"];

/// What is known of a server's software.
#[derive(Debug)]
pub(super) struct ServerSoftware {
    clock: Clock,
    /// Locked while the server is asked, so that it is asked once.
    known: Mutex<KnownSoftware>,
}

#[derive(Debug)]
struct KnownSoftware {
    ignores_form: bool,
    until: Timestamp,
}

impl ServerSoftware {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, known: Mutex::new(KnownSoftware { ignores_form: false, until: Timestamp(0) }) }
    }

    /// Whether the server ignores schemas or tools in `/v1/responses`. `list` asks for its list of models, which is
    /// believed as long as answers are that show which APIs a server has.
    pub(super) async fn ignores_form(&self, list: impl Future<Output = Result<HttpResponse, UpstreamError>>) -> bool {
        let mut known = self.known.lock().await;
        if self.clock.now() < known.until {
            return known.ignores_form;
        }
        let answer = timeout(LIST_PATIENCE, list).await;
        let answer = answer.ok().and_then(Result::ok).filter(HttpResponse::is_success);
        let believed = if answer.is_some() { BELIEVED_FOR } else { Duration::from_secs(5) };
        if let Some(answer) = answer {
            known.ignores_form = has_such_owner(&answer.body);
        }
        known.until = self.clock.now().plus(believed);
        known.ignores_form
    }
}

fn has_such_owner(list: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Owned {
        owned_by: String,
    }
    let entries = entries(list).unwrap_or_default();
    let mut owners = entries.iter().filter_map(|(_, entry)| serde_json::from_str::<Owned>(entry.get()).ok());
    owners.any(|Owned { owned_by }| OWNERS.contains(&&*owned_by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_recognised_by_who_owns_their_models() {
        for (owner, expected) in
            [("llamacpp", true), ("sglang", true), ("library", true), ("vllm", false), ("openai", false)]
        {
            let list = format!(r#"{{"object":"list","data":[{{"id":"m","object":"model","owned_by":"{owner}"}}]}}"#);
            assert_eq!(has_such_owner(list.as_bytes()), expected, "{owner}");
        }
        assert!(!has_such_owner(b"<html>") && !has_such_owner(br#"{"data":[{"id":"m"}]}"#));
    }
}
