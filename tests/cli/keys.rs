//! `keys`, and what the other commands do where calls need a key.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Cli, Said};
use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::common::process::Process;

/// `keys` with these arguments, on the database in a directory.
fn keys(directory: &TempDir, arguments: &[&str]) -> Cli {
    let data = directory.path().join("data");
    Cli::new(&[&["keys"], arguments].concat()).env("BATCHWRIGHT_DATA_DIR", data.to_str().expect("text"))
}

async fn listed(directory: &TempDir, arguments: &[&str]) -> Vec<Value> {
    let said = keys(directory, &[&["list", "--output", "json"], arguments].concat()).exits(0).await;
    serde_json::from_str(&said.out).expect("a list")
}

#[tokio::test]
async fn a_key_is_printed_once_and_then_only_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");

    let Said { out, err, .. } =
        keys(&directory, &["create", "--project", "team-a", "--name", "nightly"]).exits(0).await;
    let second = keys(&directory, &["create", "--project", "team-b", "--scopes", "admin"]).exits(0).await;

    let key = out.strip_suffix('\n').expect("one line");
    assert!(key.starts_with("bw-") && key.len() == 46, "{out}");
    assert!(err.contains("team-a") && err.contains("the first key") && !err.contains(key), "{err}");
    let place = directory.path().join("data").display().to_string();
    assert!(err.contains(&place) && err.contains("No service has run there yet"), "{err}");
    assert!(!second.err.contains("the first key") && !second.err.contains("No service"), "{second:?}");
    let all = listed(&directory, &[]).await;
    let expected = [("team-a", "nightly", "[\"read\",\"write\"]"), ("team-b", "", "[\"admin\"]")];
    for (listed, (project, name, scopes)) in all.iter().zip(expected) {
        assert_eq!((&listed["project"], &listed["name"]), (&Value::from(project), &Value::from(name)));
        assert_eq!((listed["scopes"].to_string().as_str(), &listed["revoked_at"]), (scopes, &Value::Null));
    }
    assert_eq!(all[0]["ending"], key[key.len() - 4..]);
    let table = keys(&directory, &["list", "--output", "table"]).exits(0).await;
    assert!(table.out.starts_with("ID ") && table.out.contains("nightly"), "{table:?}");
    for said in [listed(&directory, &["--project", "team-a"]).await, all.clone()] {
        assert!(!said.iter().any(|listed| listed.to_string().contains(key)));
    }

    let id = all[0]["id"].as_str().expect("an id");
    keys(&directory, &["revoke", id]).exits(0).await;
    assert!(listed(&directory, &["--project", "team-a"]).await[0]["revoked_at"].is_i64());
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_said() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for arguments in [&["list"][..], &["revoke", "key_0"]] {
        let said = keys(&directory, arguments).exits(1).await;
        assert!(said.err.contains("there is no database in"), "{said:?}");
        assert!(!directory.path().join("data").exists(), "a mistyped directory is not made");
    }
    keys(&directory, &["create", "--project", "a"]).exits(0).await;
    let cases: [(&[&str], i32, &str); 5] = [
        (&["create"], 2, "--project"),
        (&["create", "--project", "two words"], 2, "no space"),
        (&["create", "--project", "a", "--scopes", "all"], 2, "the scopes are read, write, admin"),
        (&["revoke", "key_0"], 1, "no key with the id 'key_0'"),
        (&["revoke", "key_00000000000000000000000000000000"], 1, "keys list"),
    ];
    for (arguments, code, message) in cases {
        let said = keys(&directory, arguments).exits(code).await;
        assert!(said.err.contains(message), "{said:?}");
    }
}

#[tokio::test]
async fn commands_send_their_key_and_say_when_it_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let simulator = Process::simulate(&[]).await;
    let data = directory.path().join("data").display().to_string();
    let server = Process::serve(&["--upstream", &format!("{}/v1", simulator.base_url), "--data-dir", &data]).await;
    // Beside the server, which uses the directory.
    let key = keys(&directory, &["create", "--project", "team-a"]).exits(0).await.out.trim().to_owned();
    let reader = keys(&directory, &["create", "--project", "team-a", "--scopes", "read"]).exits(0).await;
    let input = directory.path().join("in.jsonl").display().to_string();
    fs::write(&input, rows(5)).expect("it can be written");
    let cli = |key: &str, arguments: &[&str]| {
        Cli::new(arguments).env("OPENAI_BASE_URL", &server.base_url).env("OPENAI_API_KEY", key)
    };
    let refused = async || (cli("", &["list"]).run().await.code != 0).then_some(());
    eventually("calls to need a key", refused).await;

    let submitted = cli(&key, &["submit", &input, "--wait"]).exits(0).await;
    cli(&key, &["status", submitted.out.trim()]).exits(0).await;
    let cases = [
        ("bw-wrong-wrong-wrong-wrong", vec!["submit", &input], "Incorrect API key provided: bw-***rong"),
        ("", vec!["submit", &input], "Missing bearer authentication"),
        (reader.out.trim(), vec!["submit", "--again", &input], "does not have the scope 'write'"),
    ];
    for (wrong, arguments, message) in cases {
        let said = cli(wrong, &arguments).exits(1).await;
        assert!(said.err.contains(message) && said.err.contains("refuses the key"), "{said:?}");
    }
}
