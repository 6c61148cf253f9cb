//! What connections cost the process, and what it says about its limits.

use futures::future::join_all;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::Process;
use crate::common::raw_http::{get, open};
use crate::connections::until_closed;

#[tokio::test]
async fn downloads_that_nobody_reads_cost_little() {
    const CLIENTS: u64 = 300;
    /// What all reads may hold that have grown, in KiB.
    const LARGER_READS: u64 = 64 << 10;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = server(&directory).await;
    let client = server.client();
    let file_id = client.upload(vec![b'\n'; 32 << 20]).await;
    let before = server.peak_memory();

    let request = get(&format!("/v1/files/{file_id}/content"));
    let mut unread = join_all((0..CLIENTS).map(|_| open(server.address(), &request))).await;
    for connection in &mut unread {
        connection.read_exact(&mut vec![0; 1 << 20]).await.expect("the download begins");
    }
    // While this goes through, the others are filled as far as they can be.
    assert_eq!(client.content(&file_id).await.bytes.len(), 32 << 20);

    let grown = server.peak_memory() - before;
    assert!(grown < LARGER_READS + (CLIENTS + 20) * 640, "the peak memory grew by {grown} kB");
}

#[tokio::test]
async fn readers_of_results_that_do_not_read_cost_little() {
    const CLIENTS: u64 = 60;
    /// What all reads may hold that have grown, in KiB, as they came and as events.
    const LARGER_READS: u64 = 2 * (64 << 10);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let upstream = FakeUpstream::start();
    upstream.reply(|_| Reply::chat(&"x".repeat(4 << 20)));
    let base_url = format!("http://{}/v1", upstream.address);
    let data = directory.path().to_str().expect("a printable path");
    let flags = ["--upstream", &base_url, "--data-dir", data];
    let mut server = Process::serve(&flags).await;
    let id = server.client().submit(rows(6)).await;
    server.client().wait_for(&id, "completed").await;
    // Started anew, so that what the run took is not in the measure.
    server.terminate().await;
    let server = Process::serve(&flags).await;
    let before = server.peak_memory();

    let path = format!("/v1/batches/{id}/results");
    let page = get(&path);
    let events = page.replace("Host:", "Accept: text/event-stream\r\nHost:");
    let requests = [page, events];
    let open_one = |no: u64| open(server.address(), &requests[usize::from(no.is_multiple_of(2))]);
    let mut unread = join_all((0..CLIENTS).map(open_one)).await;
    for connection in &mut unread {
        connection.read_exact(&mut vec![0; 1 << 20]).await.expect("the results begin");
    }
    assert!(server.client().get(&format!("{path}?order=input")).await.bytes.len() > 24 << 20);

    let grown = server.peak_memory() - before;
    assert!(grown < LARGER_READS + (CLIENTS + 20) * 896, "the peak memory grew by {grown} kB");
}

#[tokio::test]
async fn a_download_that_breaks_off_is_logged_with_file_and_blob() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = server(&directory).await;
    let file_id = server.client().upload(rows(1)).await;
    let blobs = blobs(&directory);

    for blob in &blobs {
        std::fs::remove_file(blob).expect("it is there");
    }
    let text = until_closed(open(server.address(), get(&format!("/v1/files/{file_id}/content"))).await).await;

    assert!(!text.contains("custom_id"), "{text}");
    until("the log to tell of it", || server.log().contains("a download broke off")).await;
    let log = server.log();
    assert!(log.contains(&file_id), "{log}");
    let names = blobs.iter().filter_map(|blob| blob.file_name().and_then(|name| name.to_str()));
    assert!(names.into_iter().any(|name| log.contains(name)), "{log}");
}

#[tokio::test]
async fn a_low_limit_of_open_files_is_raised_or_said() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().to_str().expect("a printable path");
    let said = |log: &str| log.contains("the limit of open files leaves little room for clients");

    for (limit, is_said) in [("ulimit -Sn 300", false), ("ulimit -n 400", true)] {
        let serve = format!(
            "{limit}; exec '{}' serve --listen 127.0.0.1:0 --upstream http://127.0.0.1:9/v1 --data-dir '{data}'",
            env!("CARGO_BIN_EXE_batchwright")
        );
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &serve]).env_clear().stdin(std::process::Stdio::null());
        let server = Process::start(command).await;

        assert_eq!(said(&server.log()), is_said, "{limit} {}", server.log());
        assert_eq!(server.client().get("/healthz").await.status, 200);
    }
}

async fn server(directory: &TempDir) -> Process {
    let data = directory.path().to_str().expect("a printable path");
    Process::serve(&["--role", "api", "--upstream", "http://127.0.0.1:9/v1", "--data-dir", data]).await
}

/// The blobs of the one file that there is.
fn blobs(directory: &TempDir) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(directory.path().join("blobs")).expect("there are blobs").flatten();
    let folders = folders.map(|folder| folder.path()).filter(|path| !path.ends_with("deployment"));
    folders
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|blob| blob.path())
        .collect()
}
