//! What the commands have in common: the server, and what is said when the user interrupts.

use std::sync::{Arc, Mutex};

use anyhow::Context as _;

use crate::cli::output::{harmless, say};
use crate::client::{Client, ClientError};
use crate::config::{ServerArgs, shown_url};

/// A server and how to call it.
pub(super) struct CalledServer {
    pub(super) client: Client,
    /// The base URL without what may be a secret, for messages.
    pub(super) url: String,
    /// The flags that choose the same server again.
    flags: String,
}

impl CalledServer {
    /// Finds the server. No connection is made yet.
    pub(super) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let server = args.resolve()?;
        let client = match &server.key {
            Some(key) => Client::with_key(&server.server, key.reveal()),
            None => Client::new(&server.server),
        };
        let url = shown_url(&server.server);
        Ok(Self { client: client.with_context(|| format!("'{url}' cannot be used"))?, url, flags: args.as_flags() })
    }

    /// The command that watches these batches.
    pub(super) fn watch_command(&self, ids: &[String]) -> String {
        format!("batchwright watch {}{}", ids.join(" "), self.flags)
    }

    /// Adds to an error which server it is about, and what to do about it.
    pub(super) fn explain(&self, error: ClientError) -> anyhow::Error {
        let advice = match &error {
            ClientError::Unreachable(_) | ClientError::TimedOut => {
                format!("no answer from {} (is --server right, and does it run?)", self.url)
            }
            ClientError::Refused(answer) if matches!(answer.status, 401 | 403) => {
                format!("{} refuses the key (set OPENAI_API_KEY or choose a --profile)", self.url)
            }
            ClientError::Unexpected(_) => format!("{} does not answer as OpenAI's API (is /v1 missing?)", self.url),
            _ => return error.into(),
        };
        anyhow::Error::from(error).context(advice)
    }

    /// Says why a batch does not go faster, if the server knows it.
    pub(super) async fn say_reason(&self, id: &str) {
        let progress = self.client.progress(id).await;
        if let Some(reason) = progress.ok().flatten().and_then(|progress| progress.reason) {
            say(harmless(&reason.message));
        }
    }

    /// Says that the server lacks an extension, if that is why it refused something about a batch that it has.
    pub(super) async fn explain_extension(&self, error: ClientError, batch: &str, what: &str) -> anyhow::Error {
        if !error.is_not_there() {
            return self.explain(error);
        }
        match self.client.batch(batch).await {
            Ok(_) => anyhow::anyhow!("{} cannot {what} batches: this is an extension that it does not have", self.url),
            Err(error) => self.explain(error),
        }
    }
}

/// What the user is told after Ctrl-C.
#[derive(Clone, Default)]
pub(super) struct Interruption(Arc<Mutex<String>>);

impl Interruption {
    /// From now on, this is true of the batches that the command is about.
    pub(super) fn set(&self, hint: impl Into<String>) {
        *self.0.lock().expect("no thread panics with the lock") = hint.into();
    }

    /// The hint as the end of a sentence; empty if there is none.
    pub(super) fn hint(&self) -> String {
        let hint = self.0.lock().expect("no thread panics with the lock");
        if hint.is_empty() { String::new() } else { format!(": {hint}") }
    }
}
