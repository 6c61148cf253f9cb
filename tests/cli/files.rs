//! `files`.

use serde_json::Value;

use crate::stand_in::{StandIn, World};

#[tokio::test]
async fn files_are_uploaded_listed_shown_downloaded_and_deleted() {
    let server = StandIn::new(World::default()).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [input, copy] = ["input.jsonl", "copy.jsonl"].map(|name| directory.path().join(name).display().to_string());
    std::fs::write(&input, "{}\n").expect("it can be written");

    let said = server.cli(&["files", "upload", &input]).exits(0).await;
    let file: Value = serde_json::from_str(&said.out).expect("one object");
    assert_eq!((&file["id"], &file["filename"], &file["bytes"]), (&"file-1".into(), &"input.jsonl".into(), &3.into()));
    server.cli(&["files", "upload", "-", "--name", "a.jsonl"]).input("{}\n{}\n").exits(0).await;
    server.cli(&["files", "upload", "/dev/stdin", "--name", "b.jsonl"]).input("{ }\n").exits(0).await;

    let said = server.cli(&["files", "list", "--output", "plain", "--limit", "2"]).exits(0).await;
    let names: Vec<&str> = said.out.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(names, ["b.jsonl", "a.jsonl"]);
    let said = server.cli(&["files", "get", "file-2", "--output", "table"]).exits(0).await;
    assert!(said.out.starts_with("ID       file-2\nNAME     a.jsonl\nBYTES    6\n"), "{said:?}");
    assert_eq!(server.cli(&["files", "download", "file-2"]).exits(0).await.out, "{}\n{}\n");
    server.cli(&["files", "download", "file-1", "-o", &copy]).exits(0).await;
    assert_eq!(std::fs::read_to_string(&copy).expect("it is there"), "{}\n");

    let said = server.cli(&["files", "delete", "file-1", "file-2"]).exits(0).await;
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", "deleted file-1\ndeleted file-2\n"));
    let said = server.cli(&["files", "get", "file-1"]).exits(1).await;
    assert!(said.err.contains("No such File"), "{said:?}");
}
