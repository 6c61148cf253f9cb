//! Which software a server is, as far as its list of models says it.
//!
//! llama.cpp, SGLang and Ollama have `/v1/responses`, and ignore there what they honour in chat completions: schemas,
//! tools, or the choice of one. Their answers do not show it, so rows that ask for such a thing go to chat completions.

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;

use super::served_models::entries;
use super::{BELIEVED_FOR, UpstreamError};
use crate::domain::outcome::HttpResponse;
use crate::domain::time::{Clock, Timestamp};

/// What the members `owned_by` of the lists of such servers are, in this order: llama.cpp, SGLang, Ollama.
const OWNERS: [&str; 3] = ["llamacpp", "sglang", "library"];

/// A server that has no list now is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(5);

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
        let believed = match list.await {
            Ok(answer) if answer.is_success() => {
                known.ignores_form = has_such_owner(&answer.body);
                BELIEVED_FOR
            }
            // Every row that asks for a form waits for the answer, so that a list which hangs is not asked for often.
            Err(UpstreamError::Timeout(_)) => BELIEVED_FOR,
            Ok(_) | Err(_) => ASK_AGAIN,
        };
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
    use std::future::{poll_fn, ready};

    use serde_json::json;

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

    #[tokio::test]
    async fn a_list_that_hangs_is_not_asked_for_again_soon() {
        let clock = Clock::manual(Timestamp(1_000_000));
        let listed = || Ok(HttpResponse::json(200, &json!({ "data": [{ "id": "m", "owned_by": "llamacpp" }] })));
        let broken = || Err(UpstreamError::Broken("reset".to_owned()));
        let hangs = || Err(UpstreamError::Timeout("it had 10 s".to_owned()));
        // What the list is, and how long after it the server is asked again.
        for (list, again_after) in [(listed(), BELIEVED_FOR), (hangs(), BELIEVED_FOR), (broken(), ASK_AGAIN)] {
            let software = ServerSoftware::new(clock.clone());
            let is_listed = list.is_ok();
            assert_eq!(software.ignores_form(ready(list)).await, is_listed);

            clock.advance(again_after / 2);
            assert_eq!(software.ignores_form(poll_fn(|_| panic!("it is not asked"))).await, is_listed);
            clock.advance(again_after / 2);
            assert!(software.ignores_form(ready(listed())).await, "it is asked again");
        }
    }
}
