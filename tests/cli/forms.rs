//! The forms of output, on a terminal and elsewhere.

use serde_json::Value;

use crate::stand_in::{StandIn, World, batch_object};

async fn three_batches() -> StandIn {
    let statuses = [("completed", [2, 1, 1]), ("in_progress", [5, 1, 0]), ("completed", [3, 3, 0])];
    let batch = |(number, (status, counts))| batch_object(&format!("batch_{number}"), status, counts);
    let batches = statuses.into_iter().enumerate().map(batch).collect();
    StandIn::new(World { batches, ..World::default() }).await
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
}

#[tokio::test]
async fn lists_have_each_form_and_are_json_lines_without_a_terminal() {
    let server = three_batches().await;
    let list = async |flags: &[&str]| server.cli(&[&["list"], flags].concat()).exits(0).await.out;

    let by_default = objects(&list(&[]).await);
    assert_eq!(by_default.iter().map(|batch| &batch["id"]).collect::<Vec<_>>(), ["batch_2", "batch_1", "batch_0"]);
    assert_eq!(by_default[0]["usage"]["total_tokens"], 12, "what the client does not know is shown too");
    assert_eq!(objects(&list(&["--output", "jsonl"]).await), by_default);
    let array: Vec<Value> = serde_json::from_str(&list(&["--output", "json"]).await).expect("one array");
    assert_eq!(array, by_default);
    let plain = list(&["--output", "plain"]).await;
    assert!(
        plain.starts_with("batch_2\tcompleted\t3\t3\t0\t/v1/chat/completions\t24h\t2026-09-21T14:13:20Z\t"),
        "{plain}"
    );
    let table = list(&["--output", "table"]).await;
    assert!(table.starts_with("ID       STATUS       ROWS  COMPLETED  FAILED  ENDPOINT"), "{table}");
    assert_eq!(table.lines().count(), 4);
}

#[tokio::test]
async fn lists_are_cut_filtered_and_go_on() {
    let server = three_batches().await;
    let cases: [(&[&str], &[&str]); 4] = [
        (&["--limit", "1"], &["batch_2"]),
        (&["--limit", "1", "--status", "in_progress,failed"], &["batch_1"]),
        (&["--after", "batch_2"], &["batch_1", "batch_0"]),
        (&["--status", "completed", "--limit", "2"], &["batch_2", "batch_0"]),
    ];
    for (flags, expected) in cases {
        let said = server.cli(&[&["list"], flags].concat()).exits(0).await;
        let ids: Vec<Value> = objects(&said.out).iter().map(|batch| batch["id"].clone()).collect();
        assert_eq!(ids, expected, "{flags:?}");
    }
}

#[tokio::test]
async fn a_single_object_has_each_form() {
    let server = three_batches().await;
    let status = async |flags: &[&str]| server.cli(&[&["status", "batch_0"], flags].concat()).exits(0).await.out;

    let object: Value = serde_json::from_str(&status(&[]).await).expect("one object");
    assert_eq!(object, server.world().batches[0]);
    assert_eq!(objects(&status(&["--output", "jsonl"]).await), [object]);
    assert!(status(&["--output", "plain"]).await.starts_with("batch_0\tcompleted\t"));
    let table = status(&["--output", "table"]).await;
    assert!(table.starts_with("ID         batch_0\nSTATUS     completed\nROWS       2\n"), "{table}");
}

#[tokio::test]
async fn a_terminal_gets_tables() {
    let server = three_batches().await;

    let (code, list) = server.cli(&["list"]).on_terminal().await;
    assert_eq!(code, 0);
    assert!(list.starts_with("ID       STATUS "), "{list}");
    let (_, status) = server.cli(&["status", "batch_0"]).on_terminal().await;
    assert!(status.starts_with("ID         batch_0"), "{status}");
    assert!(![list, status].concat().contains('\x1b'), "tables have no colours");
    let (_, json) = server.cli(&["list", "--output", "jsonl"]).on_terminal().await;
    assert_eq!(objects(&json).len(), 3);
}

#[tokio::test]
async fn help_has_colours_on_a_terminal_only_if_the_user_wants_some() {
    let help = || crate::command::Cli::new(&["submit", "--help"]);

    assert!(help().on_terminal().await.1.contains("\x1b["));
    assert!(!help().env("NO_COLOR", "1").on_terminal().await.1.contains("\x1b["));
    assert!(!help().exits(0).await.out.contains("\x1b["));
}
