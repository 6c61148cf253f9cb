//! Webhooks: the tables `[[webhooks]]` of the settings file, and which addresses events are posted to.

use std::path::Path;

use clap::Args;
use serde::{Deserialize, Deserializer};

use super::{ConfigError, Secret, file};
use crate::domain::owner::Owner;
use crate::domain::webhook::WebhookEvent;

/// The tables of a settings file that name receivers of events.
pub(super) const SECTION: &str = "webhooks";

const LONGEST_NAME: usize = 64;

/// Who is told how batches end.
#[derive(Args, Debug, Clone)]
pub struct WebhooksConfig {
    /// Also post webhooks to private addresses, such as those of this machine and its network, and to `http://` URLs.
    /// Without it, clients could make this service call servers that only it can reach.
    #[arg(long)]
    pub webhook_allow_private: bool,

    /// The receivers of the settings file.
    #[arg(skip)]
    pub receivers: Vec<WebhookTable>,
}

/// `[[webhooks]]`: a receiver of events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookTable {
    /// Its name in logs, and in the database as long as an event waits for it.
    pub name: String,
    /// Where events are posted. `${NAME}` stands for the environment variable of that name.
    pub url: Secret,
    /// What signs them: `whsec_` and base64, or any other text. `${NAME}` stands for the environment variable of that
    /// name.
    pub secret: Secret,
    /// The events that it is told; all if absent.
    #[serde(default = "all_events", deserialize_with = "events")]
    pub events: Vec<WebhookEvent>,
    /// The project whose batches it is told of; those of all projects if absent.
    #[serde(default, deserialize_with = "project")]
    pub project: Option<Owner>,
}

impl WebhookTable {
    /// Reads the tables of a settings file, with the environment variables that they name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, ConfigError> {
        #[derive(Deserialize)]
        struct Tables {
            #[serde(default)]
            webhooks: Vec<WebhookTable>,
        }
        let tables = file::read_tables::<Tables>(path, &[SECTION])?.webhooks;
        let mut read: Vec<Self> = Vec::new();
        for table in tables {
            let name = table.name.clone();
            let is_twice = read.iter().any(|other| other.name == name);
            let resolved = if is_twice { Err("two have this name".to_owned()) } else { table.resolved() };
            read.push(resolved.map_err(|why| ConfigError::BadWebhook { path: path.to_owned(), name, why })?);
        }
        Ok(read)
    }

    fn resolved(self) -> Result<Self, String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=LONGEST_NAME).contains(&self.name.len()) || !self.name.bytes().all(is_name) {
            return Err(format!("a name has 1 to {LONGEST_NAME} letters, digits, '-', '_' and '.'"));
        }
        Ok(Self { url: self.url.with_environment()?, secret: self.secret.with_environment()?, ..self })
    }
}

fn all_events() -> Vec<WebhookEvent> {
    WebhookEvent::ALL.to_vec()
}

fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WebhookEvent>, D::Error> {
    let event = |text: String| {
        let known = WebhookEvent::ALL.map(WebhookEvent::as_str).join(", ");
        WebhookEvent::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("the events are {known}")))
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(event).collect()
}

fn project<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Owner>, D::Error> {
    let project = Owner::parse(&String::deserialize(deserializer)?);
    project.map(Some).ok_or_else(|| serde::de::Error::custom("a project has 1 to 128 printable ASCII characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<WebhookTable>, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("settings.toml");
        std::fs::write(&path, text).expect("it can be written");
        WebhookTable::read_all(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_receiver_is_told_all_events_of_all_projects_unless_it_says_otherwise() {
        let tables = "[[webhooks]]\nname = 'ops'\nurl = 'https://a.example'\nsecret = 's'\n[[webhooks]]\nname = 'b'\n\
                      url = 'https://b.example'\nsecret = 's'\nevents = ['batch.failed']\nproject = 'team'";

        let read = read(tables).unwrap();

        assert_eq!((read[0].events.as_slice(), &read[0].project), (WebhookEvent::ALL.as_slice(), &None));
        assert_eq!(
            (read[1].events.as_slice(), &read[1].project),
            ([WebhookEvent::Failed].as_slice(), &Owner::parse("team"))
        );
    }

    #[test]
    fn a_table_that_cannot_be_used_says_why_and_shows_no_secret() {
        let table = |rest: &str| format!("[[webhooks]]\nurl = 'https://a.example/hunter2'\nsecret = 'hunter2'\n{rest}");
        let cases = [
            (table("name = 'a b'"), "a name has 1 to 64"),
            (table("name = 'a'\nevents = ['batch.created']"), "batch.completed, batch.failed"),
            (table("name = 'a'\nproject = ''"), "a project has 1 to 128"),
            (table("name = 'a'\ntimeout = '1s'"), "unknown field"),
            (table(&format!("name = 'a'\n{}", table("name = 'a'"))), "two have this name"),
        ];
        for (text, why) in cases {
            let error = read(&text).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
