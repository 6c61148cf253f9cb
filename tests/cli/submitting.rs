//! `submit`.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::stand_in::{StandIn, World, batch_object, error_line, output_line};

/// A directory with an input file, and the file's path.
fn input(name: &str, text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("it can be written");
    let path = path.display().to_string();
    (directory, path)
}

#[tokio::test]
async fn a_batch_is_created_of_what_is_said_and_of_what_the_file_says() {
    let server = StandIn::new(World::default()).await;
    let (_directory, path) = input("rows.jsonl", &rows(2).replace("/v1/chat/completions", "/v1/embeddings"));

    let said = server.cli(&["submit", &path]).exits(0).await;

    assert_eq!(said.out, "batch_1\n");
    assert!(said.err.contains("uploaded") && !said.err.contains('\x1b'), "{said:?}");
    let expected = json!({ "input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h" });
    assert_eq!(server.world().created, expected);
    let (name, text) = server
        .world()
        .files
        .iter()
        .map(|(file, text)| (file["filename"].clone(), text.clone()))
        .next_back()
        .expect("a file");
    assert!(name.as_str().is_some_and(|name| name.starts_with("rows-") && name.len() > "rows-.jsonl".len()), "{name}");
    assert_eq!(text.lines().count(), 2);

    let flags = ["--endpoint", "/v1/completions", "--window", "1h", "--metadata", "a=1=2", "--metadata", "b="];
    let said = server.cli(&[&["submit", "-", "--name", "mine.jsonl", "--output", "json"], &flags[..]].concat());
    let said = said.input("\n{}\n").exits(0).await;
    assert_eq!(serde_json::from_str::<Value>(&said.out).expect("one object")["id"], "batch_2");
    let expected = json!({
        "input_file_id": "file-2", "endpoint": "/v1/completions", "completion_window": "1h",
        "metadata": { "a": "1=2", "b": "" },
    });
    assert_eq!(server.world().created, expected);
}

#[tokio::test]
async fn the_same_command_finds_the_same_batch_with_and_without_idempotency_keys() {
    for has_keys in [false, true] {
        let server = StandIn::new(World { has_keys, ..World::default() }).await;
        let (_directory, path) = input("rows.jsonl", &rows(3));
        let submit = async |flags: &[&str]| server.cli(&[&["submit", &path], flags].concat()).exits(0).await;

        assert_eq!(submit(&[]).await.out, "batch_1\n");
        // More files and batches than one page of the lists has.
        for number in 0..3 {
            submit(&["--metadata", &format!("run={number}")]).await;
        }
        let again = submit(&[]).await;
        assert_eq!(again.out, "batch_1\n", "has_keys {has_keys}");
        assert!(again.err.contains("batch_1 is the batch of this command, and is validating; --again"), "{again:?}");
        assert_eq!(submit(&["--metadata", "run=1"]).await.out, "batch_3\n");
        assert_eq!(submit(&["--again"]).await.out, "batch_5\n");
        assert_eq!(server.count("POST /v1/files"), 1, "an equal file is not uploaded again");

        std::fs::write(&path, rows(4)).expect("it can be written");
        assert_eq!(submit(&[]).await.out, "batch_6\n", "other bytes are another command");
    }
}

#[tokio::test]
async fn a_batch_that_failed_for_more_than_its_lines_is_created_again() {
    for (has_keys, line, found) in [(false, None, "batch_2\n"), (true, None, "batch_2\n"), (true, Some(7), "batch_1\n")]
    {
        let server = StandIn::new(World { has_keys, ..World::default() }).await;
        let (_directory, path) = input("rows.jsonl", &rows(3));
        assert_eq!(server.cli(&["submit", &path]).exits(0).await.out, "batch_1\n");
        let error = json!({ "code": "token_limit_exceeded", "message": "Later.", "param": null, "line": line });
        server.set("errors", json!({ "object": "list", "data": [error] }));
        server.set("status", "failed");

        for _ in 0..2 {
            let again = server.cli(&["submit", &path]).exits(0).await;

            assert_eq!(again.out, found, "has_keys {has_keys}, line {line:?}: {again:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_refused_for_now_is_sent_again() {
    let server = StandIn::new(World { refused_uploads: 2, ..World::default() }).await;
    let (_directory, path) = input("rows.jsonl", &rows(3));

    let said = server.cli(&["submit", &path]).exits(0).await;

    assert_eq!((said.out.as_str(), server.count("POST /v1/files")), ("batch_1\n", 3));
    assert!(said.err.contains("Too many uploads. (HTTP 429); trying again"), "{said:?}");
    assert!(said.err.contains("the server answers again"), "{said:?}");
}

#[tokio::test]
async fn a_command_whose_file_is_gone_does_not_run_the_rows_twice_by_itself() {
    let server = StandIn::new(World { has_keys: true, ..World::default() }).await;
    let (_directory, path) = input("rows.jsonl", &rows(1));
    server.cli(&["submit", &path]).exits(0).await;
    server.cli(&["files", "delete", "file-1"]).exits(0).await;
    // Files are numbered by their count.
    server.world().files.push((json!({ "id": "file-9", "filename": "x", "bytes": 1, "created_at": 1 }), String::new()));

    let said = server.cli(&["submit", &path]).exits(1).await;

    assert!(said.err.contains("--again creates another"), "{said:?}");
    assert_eq!(server.cli(&["submit", &path, "--again"]).exits(0).await.out, "batch_2\n");
}

#[tokio::test]
async fn a_command_that_was_interrupted_goes_on_with_its_batch_and_its_results() {
    let server = StandIn::new(World::default()).await;
    let (directory, path) = input("rows.jsonl", &rows(2));
    let [output, errors] = ["out.jsonl", "err.jsonl"].map(|name| directory.path().join(name).display().to_string());
    let command = ["submit", &path, "--wait", "-o", &output, "-e", &errors];
    let running = server.cli(&command).start();
    running.says("batch_1\n").await;
    running.notes("batch_1 validating").await;

    running.interrupt();
    let said = running.end().await;
    assert_eq!(said.code, 130);
    let hint = "batch_1 goes on; run the same command again to go on, or `batchwright watch batch_1`";
    assert!(said.err.contains(hint), "{said:?}");

    let running = server.cli(&command).start();
    running.notes("batch_1 is the batch of this command").await;
    {
        let mut world = server.world();
        world.results = [output_line("row-0"), error_line("row-1")];
        world.batches[0] = batch_object("batch_1", "completed", [2, 1, 1]);
    }
    let said = running.end().await;

    assert_eq!((said.code, said.out.as_str()), (3, "batch_1\n"), "{said:?}");
    assert_eq!(std::fs::read_to_string(output).expect("it is there"), output_line("row-0"));
    assert_eq!(std::fs::read_to_string(errors).expect("it is there"), error_line("row-1"));
    assert_eq!(server.world().batches.len(), 1);
}

#[tokio::test]
async fn results_on_standard_output_are_alone_there() {
    let server = StandIn::new(World::default()).await;
    let running = server.cli(&["submit", "-", "--wait", "-o", "-"]).input(rows(1)).start();
    until("the batch", || !server.world().batches.is_empty()).await;
    {
        let mut world = server.world();
        world.results[0] = output_line("row-0");
        world.batches[0] = batch_object("batch_1", "completed", [1, 1, 0]);
    }

    let said = running.end().await;

    assert_eq!((said.code, said.out), (0, output_line("row-0")));
    assert!(said.err.contains("batch_1\n"));
}

#[tokio::test]
async fn why_a_file_was_refused_is_told() {
    let server = StandIn::new(World::default()).await;
    let running = server.cli(&["submit", "-", "--wait"]).input(rows(1)).start();
    until("the batch", || !server.world().batches.is_empty()).await;
    {
        let mut world = server.world();
        let error = json!({ "code": "duplicate_custom_id", "message": "Twice\u{1b}[2J.", "param": null, "line": 7 });
        world.batches[0]["errors"] = json!({ "object": "list", "data": [error] });
        world.batches[0]["status"] = "failed".into();
    }

    let said = running.end().await;

    assert_eq!(said.code, 4);
    assert!(said.err.contains("batch_1: line 7: Twice\u{fffd}[2J. (duplicate_custom_id)"), "{said:?}");
}
