//! A blob store belongs to one database.

use std::path::{Path, PathBuf};
use std::process::Command;

use batchwright::domain::ids::BlobId;
use batchwright::storage::Storage as _;
use batchwright::storage::sql::{Db, SqlStorage};
use tempfile::TempDir;

use crate::common::builders::rows;
use crate::common::process::{Process, batchwright, refusal};

fn serve(data: &Path, flags: &[&str]) -> Command {
    let data = data.display().to_string();
    let always = ["serve", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9/v1", "--data-dir", &data];
    batchwright(&[&always[..], flags].concat())
}

/// A data directory that has been used, and a copy of it.
struct UsedStore {
    data: PathBuf,
    backup: PathBuf,
    /// The file in both.
    file: String,
    _directory: TempDir,
}

impl UsedStore {
    async fn with_backup() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
        let mut server = Process::start(serve(&data, &[])).await;
        let file = server.client().upload(rows(3)).await;
        server.terminate().await;
        copy(&data, &backup);
        Self { data, backup, file, _directory: directory }
    }
}

fn remove_database(data: &Path) {
    for entry in std::fs::read_dir(data).expect("the directory is there") {
        let path = entry.expect("it can be read").path();
        if path.is_file() {
            std::fs::remove_file(path).expect("it can be removed");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("there is a shell's cp");
    assert!(copied.success());
}

#[tokio::test]
async fn a_new_database_takes_over_a_used_blob_store_only_when_it_is_told_to() {
    let UsedStore { data, backup, file, _directory } = UsedStore::with_backup().await;
    remove_database(&data);

    let refused = refusal(serve(&data, &[]), 1).await;
    assert!(refused.contains("belongs to another database") && refused.contains("--adopt-blobs"), "{refused}");
    let again = refusal(serve(&data, &[]), 1).await;
    assert!(again.contains("belongs to another database"), "a refused start changes nothing: {again}");

    let mut adopted = Process::start(serve(&data, &["--adopt-blobs"])).await;
    adopted.client().upload(rows(1)).await;
    adopted.terminate().await;
    Process::start(serve(&data, &[])).await.terminate().await;

    // The old database comes back, over the store that was taken over.
    remove_database(&data);
    for name in ["batchwright.db", "batchwright.db-wal"] {
        // The log is not there if all of it has gone into the database.
        let _ = std::fs::copy(backup.join(name), data.join(name));
    }
    let refused = refusal(serve(&data, &[]), 1).await;
    assert!(refused.contains("not the one that the database was used with before"), "{refused}");
    let restored = Process::start(serve(&data, &["--adopt-blobs"])).await;
    assert_eq!(restored.client().content(&file).await.text(), rows(3));
}

#[tokio::test]
async fn a_second_database_on_one_blob_store_is_refused_also_if_the_store_is_empty() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    let first = Process::start(serve(&one, &[])).await;
    let url = format!("file://{}", one.join("blobs").display());

    let refused = refusal(serve(&other, &["--blob-url", &url]), 1).await;

    assert!(refused.contains("belongs to another database"), "{refused}");
    assert_eq!(first.client().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_data_directory_that_was_restored_from_a_backup_goes_on() {
    let UsedStore { data, backup, file, _directory } = UsedStore::with_backup().await;
    let mut later = Process::start(serve(&data, &[])).await;
    later.client().delete(&format!("/v1/files/{file}")).await.ok();
    later.terminate().await;
    std::fs::remove_dir_all(&data).expect("it can be removed");
    copy(&backup, &data);

    let restored = Process::start(serve(&data, &[])).await;

    assert_eq!(restored.client().content(&file).await.text(), rows(3));
}

#[tokio::test]
async fn a_crash_before_the_store_is_marked_keeps_nobody_from_starting() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("it can be made");
    let db = Db::open_sqlite(&data.join("batchwright.db")).await.expect("it can be opened");
    let storage = SqlStorage::open(db).await.expect("it can be used");
    storage.blob_store_id(BlobId::new()).await.expect("it can be kept");
    drop(storage);

    let mut first = Process::start(serve(&data, &[])).await;
    let file = first.client().upload(rows(3)).await;
    first.terminate().await;

    let second = Process::start(serve(&data, &[])).await;
    assert_eq!(second.client().content(&file).await.text(), rows(3));
}
