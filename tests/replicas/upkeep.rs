//! Space is given back: orphans, files that nobody can see any more, and the many small parts of a slow batch.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use batchwright::domain;
use batchwright::domain::file::{FilePart, Purpose};
use batchwright::domain::ids::{BatchId, BlobId, FileId};
use batchwright::domain::owner::Owner;
use batchwright::domain::time::Clock;
use batchwright::storage::blobs::{Blobs, FileBytes};
use batchwright::storage::{BatchStore as _, FileStore as _, NewFile, Upkeep as _};

use futures::future::join_all;
use tracing_subscriber::fmt::MakeWriter;

use crate::common::builders::rows;
use crate::common::eventually::{eventually, until};
use crate::stage::Stage;

const HOUR: Duration = Duration::from_secs(3600);
const SWEEP: Duration = Duration::from_millis(1);

/// Every file below the blob directory but the mark.
pub fn blobs(stage: &Stage) -> Vec<PathBuf> {
    let directory = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).expect("the directory is there");
        entries.map(|entry| entry.expect("it can be read").path()).collect()
    };
    let folders = directory(&stage.directory.path().join("blobs"));
    folders.iter().filter(|path| !path.ends_with("deployment")).flat_map(|path| directory(path)).collect()
}

pub fn path_of(stage: &Stage, blob: BlobId) -> PathBuf {
    let name = blob.to_string();
    stage.directory.path().join("blobs").join(&name[name.len() - 2..]).join(name)
}

/// Makes a file two days old.
#[expect(clippy::disallowed_methods, reason = "the file system's own times")]
pub fn age(path: &Path) {
    let two_days_ago = std::time::SystemTime::now() - 48 * HOUR;
    File::options().write(true).open(path).expect("it is there").set_modified(two_days_ago).expect("it can be set");
}

pub async fn put(blobs: &Blobs) -> BlobId {
    blobs.put("lost").await.expect("the store takes it")
}

#[tokio::test(flavor = "multi_thread")]
async fn old_orphans_are_swept_and_nothing_else() {
    let stage = Stage::postgres(&[]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let file = api.client().upload(rows(5)).await;
    let kept = blobs(&stage);
    for path in &kept {
        age(path);
    }
    let young = path_of(&stage, put(&stage.blobs()).await);
    let orphan = path_of(&stage, put(&stage.blobs()).await);
    let unfinished = orphan.with_file_name("half#1");
    std::fs::write(&unfinished, "ha").expect("it can be written");
    age(&orphan);
    age(&unfinished);

    let daemon = stage.daemon(Clock::System, SWEEP).await;
    until("orphans to be swept", || !orphan.exists() && !unfinished.exists()).await;
    // Once around, so that every directory was looked at.
    let last = path_of(&stage, put(&stage.blobs()).await);
    age(&last);
    until("all directories to be swept", || !last.exists()).await;
    daemon.stop(Duration::ZERO).await;

    assert!(young.exists(), "somebody may be about to refer to it");
    assert!(kept.iter().all(|path| path.exists()), "what is referred to stays");
    assert_eq!(api.client().content(&file).await.text(), rows(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_is_removed_after_an_hour_and_the_input_of_a_batch_after_its_end() {
    let stage = Stage::postgres(&["--latency", "60s"]).await;
    let server = stage.serve(&["--max-concurrency", "4"]).await;
    let client = server.client();
    let input = client.upload(rows(20)).await;
    let id = client.create_batch(&input).await;
    client.wait_for_status(&id, "in_progress").await;
    let pinned = blobs(&stage);
    let other = client.upload(rows(3)).await;
    assert_eq!(blobs(&stage).len(), pinned.len() + 2);
    for file in [&input, &other] {
        client.delete(&format!("/v1/files/{file}")).await.ok();
    }

    // Two hours on, by the clock of whoever gives back space.
    let daemon = stage.daemon(Clock::Ahead(2 * 3_600_000), HOUR).await;
    until("the deleted file to be removed", || blobs(&stage).len() == pinned.len()).await;
    daemon.stop(Duration::ZERO).await;
    assert!(pinned.iter().all(|path| path.exists()), "a batch runs it");
    client.cancel(&id).await.ok();
    let batch = client.wait_for(&id, "cancelled").await;
    assert!(client.verify(&rows(20), &batch).await.holds());
    let daemon = stage.daemon(Clock::Ahead(4 * 3_600_000), HOUR).await;
    until("the input to be removed", || pinned.iter().all(|path| !path.exists())).await;
    daemon.stop(Duration::ZERO).await;

    assert!(client.verify(&rows(20), &batch).await.holds(), "the results stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_batch_ends_in_few_parts() {
    let stage = Stage::sqlite(&["--latency", "20ms"]).await;
    let server = stage.serve(&["--max-concurrency", "2"]).await;
    let client = server.client();
    let input = rows(1_000);
    let id = client.submit(input.clone()).await;

    let batch = client.wait_for(&id, "completed").await;
    let flushes = eventually("the flushes to be counted", async || {
        let metrics = client.get("/metrics").await.text();
        metrics.lines().find_map(|line| line.strip_prefix("batchwright_flushes_total ")?.parse::<usize>().ok())
    })
    .await;

    stage.prove(&client, &input, &batch, vec![server]).await;
    let storage = stage.storage().await;
    let kept = storage.any_batch(BatchId::parse(&id).expect("an id")).await;
    let kept = kept.expect("it can be read").expect("it is there");
    let parts = storage.tiered_parts(kept.output_file_id).await.expect("they can be read");
    println!("{flushes} flushes, {} parts", parts.len());
    assert!(flushes > 24, "{flushes} flushes are too few to show anything");
    assert!(parts.len() <= flushes / 8 + 7 + 8, "{parts:?}");
    assert!(parts.iter().any(|part| part.tier > 0), "{parts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_when_its_parts_are_merged_and_gone() {
    const PARTS: usize = 24;
    let stage = Stage::postgres(&[]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let (storage, store) = (stage.storage().await, stage.blobs());
    let mut parts = Vec::new();
    for part in 0..PARTS {
        let bytes = vec![b'a' + u8::try_from(part).expect("few"); 3 << 20];
        parts.push(FilePart { bytes: bytes.len() as u64, blob: store.put(bytes).await.expect("the store takes it") });
    }
    let file = domain::file::File {
        id: FileId::new(),
        purpose: Purpose::BatchOutput,
        filename: "large.jsonl".to_owned(),
        bytes: parts.iter().map(|part| part.bytes).sum(),
        created_at: Clock::System.now(),
        expires_at: None,
    };
    let new = NewFile { file: file.clone(), parts, indexed: None, key: None };
    storage.create_file(&Owner::default(), &new).await.expect("it can be kept");

    let path = format!("/v1/files/{}/content", file.id);
    let mut download = api.client().request(reqwest::Method::GET, &path).send().await.expect("the server answers");
    let mut read = download.chunk().await.expect("it can be read").expect("there is a first piece").to_vec();
    // More than the sockets between hold: the server cannot have read these yet.
    let last = storage.tiered_parts(file.id).await.expect("they can be read").split_off(PARTS - 8);
    let old = FileBytes::new(last.iter().map(|part| part.part).collect());
    let bytes = old.read(&store, 0..old.len()).await.expect("they are there");
    let merged = FilePart { bytes: old.len(), blob: store.put(bytes).await.expect("the store takes it") };
    let now = Clock::System.now();
    assert!(storage.merge_parts(file.id, &last, merged, now).await.expect("the database answers"));
    for part in &last {
        store.delete(part.part.blob).await.expect("it can be removed");
    }
    while let Some(piece) = download.chunk().await.expect("the download goes on") {
        read.extend_from_slice(&piece);
    }

    assert_eq!(read.len() as u64, file.bytes);
    assert!(read.chunks(3 << 20).zip(b'a'..).all(|(part, byte)| part.iter().all(|read| *read == byte)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_cannot_be_deleted_keeps_no_other() {
    let stage = Stage::postgres(&[]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let stuck = api.client().upload(rows(1)).await;
    let stuck_blobs = blobs(&stage);
    let mut files = vec![stuck];
    for _ in 0..15 {
        files.push(api.client().upload(rows(1)).await);
    }
    for file in &files {
        api.client().delete(&format!("/v1/files/{file}")).await.ok();
    }
    for path in &stuck_blobs {
        std::fs::remove_file(path).expect("it is there");
        std::fs::create_dir(path).expect("it can be made");
    }

    let daemon = stage.daemon(Clock::Ahead(2 * 3_600_000), HOUR).await;
    until("the others to be removed", || blobs(&stage).len() == stuck_blobs.len()).await;
    daemon.stop(Duration::ZERO).await;

    let waiting = stage.storage().await.retired_blobs(Clock::Ahead(2 * 3_600_000).now(), None, 100).await;
    assert_eq!(waiting.expect("they can be read").items.len(), stuck_blobs.len(), "they are tried again");
}

/// Counts the log lines of sweeps that were left out.
#[derive(Clone, Default)]
struct LeftOut(Arc<AtomicUsize>);

impl std::io::Write for LeftOut {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let is_one = String::from_utf8_lossy(line).contains("no orphans are removed");
        self.0.fetch_add(usize::from(is_one), SeqCst);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LeftOut {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

// On one thread, whose log lines are this test's own.
#[tokio::test]
async fn nothing_is_swept_while_another_deployment_has_marked_the_store() {
    let stage = Stage::postgres(&[]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let orphan = path_of(&stage, put(&stage.blobs()).await);
    age(&orphan);
    let left_out = LeftOut::default();
    let lines = tracing_subscriber::fmt().with_writer(left_out.clone()).finish();
    let _guard = tracing::subscriber::set_default(lines);
    let other = BlobId::new();
    stage.blobs().mark(other).await.expect("the store can be marked");

    let daemon = stage.daemon(Clock::System, SWEEP).await;
    // More than once around.
    until("sweeps to be left out", || left_out.0.load(SeqCst) > 300).await;
    assert!(orphan.exists());

    stage.blobs().unmark(other).await.expect("the mark can be removed");
    until("the orphan to be swept", || !orphan.exists()).await;
    daemon.stop(Duration::ZERO).await;
    drop(api);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_on_a_fresh_store_all_start_and_mark_it_once() {
    let stage = Stage::postgres(&[]).await;

    let replicas = join_all((0..8).map(|_| stage.serve(&["--role", "api"]))).await;

    let marks = stage.blobs().marks().await.expect("they can be read");
    assert_eq!(marks.len(), 1, "{marks:?}");
    let file = replicas[0].client().upload(rows(2)).await;
    for replica in &replicas {
        assert_eq!(replica.client().get("/readyz").await.status, 200);
        assert_eq!(replica.client().content(&file).await.text(), rows(2));
    }
}
