//! API keys, made and revoked as an operator does it: by the program itself, beside a service that runs.

use std::path::Path;

use serde_json::Value;

use super::client::Client;
use super::process::{batchwright, run, said};

/// A key that was made.
pub struct Key {
    pub id: String,
    pub secret: String,
}

impl Key {
    /// Makes one in the database of a data directory.
    pub async fn create(data: &Path, project: &str, scopes: &str) -> Self {
        let secret = keys(data, &["create", "--project", project, "--scopes", scopes]).await.trim().to_owned();
        let ending = &secret[secret.len() - 4..];
        let list = keys(data, &["list", "--project", project, "--output", "jsonl"]).await;
        let mut listed = list.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
        let key = listed.find(|key| key["ending"] == ending).expect("it is listed");
        Self { id: key["id"].as_str().expect("an id").to_owned(), secret }
    }

    /// Revokes it.
    pub async fn revoke(&self, data: &Path) {
        keys(data, &["revoke", &self.id]).await;
    }

    /// A client that has it.
    pub fn client(&self, base_url: &str) -> Client {
        Client::with_key(base_url.to_owned(), &self.secret)
    }
}

/// What a command about keys prints, which has to succeed.
async fn keys(data: &Path, arguments: &[&str]) -> String {
    let data = data.to_str().expect("a printable path");
    let output = run(batchwright(&[&["keys"], arguments, &["--data-dir", data]].concat())).await;
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("it prints text")
}
