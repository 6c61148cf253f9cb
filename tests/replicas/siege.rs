//! A siege: slow uploads, connections that only wait, and many status reads, while a batch drains. `make siege` runs
//! a large one, which also bounds how much longer the batch may take. The size comes from the environment:
//! `SIEGE_UPLOADS=200 SIEGE_IDLE=2000 SIEGE_HALF_OPEN=2000 SIEGE_READS=500 SIEGE_ROWS=6000 SIEGE_SLOWER=10`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use batchwright::app::raise_limit_of_open_files;
use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::process::Process;
use crate::common::raw_http::{form, get, open, rest_of, upload_head, usual_parts};
use crate::stage::{Stage, setting};

/// How much more memory the server may need, in MB.
const MEMORY: u64 = 256;
/// Connections that read the status, each at its own pace.
const READERS: u64 = 50;
const PIECE_EVERY: Duration = Duration::from_secs(1);
/// Shorter than the server waits for a head, so that its cuts are seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the besiegers saw.
#[derive(Default)]
struct Sights {
    /// Answers to status reads, by status.
    answers: std::sync::Mutex<BTreeMap<u16, usize>>,
    slowest: std::sync::Mutex<Duration>,
    broken_reads: AtomicUsize,
    uploads: AtomicUsize,
    failed_uploads: AtomicUsize,
    waiting: AtomicUsize,
    /// Connections that the server has closed, and that were opened again.
    replaced: AtomicUsize,
}

/// Reads one answer with a length of a connection that stays open; its status.
async fn answer(connection: &mut TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    loop {
        let mut room = [0; 4096];
        let read = connection.read(&mut room).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&room[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
        if body.len() >= length {
            return head.split(' ').nth(1)?.parse().ok();
        }
    }
}

/// Asks for a batch again and again on one connection.
async fn read_status(to: SocketAddr, path: String, a_second: f64, sights: Arc<Sights>) {
    let mut pace = interval(Duration::from_secs_f64(1.0 / a_second));
    loop {
        let mut connection = open(to, "").await;
        loop {
            pace.tick().await;
            let asked = Instant::now();
            let is_sent = connection.write_all(get(&path).as_bytes()).await.is_ok();
            let Some(status) = (if is_sent { answer(&mut connection).await } else { None }) else {
                sights.broken_reads.fetch_add(1, Relaxed);
                break;
            };
            *sights.answers.lock().expect("nobody panics with the lock").entry(status).or_default() += 1;
            let mut slowest = sights.slowest.lock().expect("nobody panics with the lock");
            *slowest = asked.elapsed().max(*slowest);
        }
    }
}

/// Uploads a file, one KiB at a time, until it is told to end.
async fn upload_slowly(to: SocketAddr, ends: CancellationToken, sights: Arc<Sights>) {
    let whole = form("b", &usual_parts(rows(3).as_bytes()));
    let mut connection = open(to, upload_head("multipart/form-data; boundary=b", "Transfer-Encoding: chunked")).await;
    let (begin, rest) = whole.split_at(whole.len() - 200);
    let mut sent = send_chunk(&mut connection, begin).await;
    sights.uploads.fetch_add(1, Relaxed);
    while sent && ends.run_until_cancelled(sleep(PIECE_EVERY)).await.is_some() {
        // Blank lines are no rows.
        sent = send_chunk(&mut connection, &[b'\n'; 1024]).await;
    }
    sent = sent && send_chunk(&mut connection, b"\n").await && send_chunk(&mut connection, rest).await;
    let _ = connection.write_all(b"0\r\n\r\n").await;
    let answer = rest_of(connection).await;
    if !sent || !answer.starts_with("HTTP/1.1 200") {
        sights.failed_uploads.fetch_add(1, Relaxed);
    }
}

async fn send_chunk(connection: &mut TcpStream, bytes: &[u8]) -> bool {
    let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    connection.write_all(&chunk).await.is_ok()
}

/// Keeps a connection open that says no more than this, and opens it again whenever the server has closed it.
async fn wait_about(to: SocketAddr, sent: String, sights: Arc<Sights>) {
    loop {
        let Ok(Ok(mut connection)) = timeout(Duration::from_secs(10), TcpStream::connect(to)).await else {
            sleep(LOOK_EVERY).await;
            continue;
        };
        let _ = connection.write_all(sent.as_bytes()).await;
        sights.waiting.fetch_add(1, Relaxed);
        let mut room = [0; 1024];
        while connection.read(&mut room).await.is_ok_and(|read| read > 0) {}
        sights.waiting.fetch_sub(1, Relaxed);
        sights.replaced.fetch_add(1, Relaxed);
        // Not all at once.
        sleep(LOOK_EVERY.mul_f64(rand::random())).await;
    }
}

/// Runs a batch of so many rows; how long its rows took.
async fn drain(server: &Process, input: &str) -> Duration {
    let client = server.client();
    let file = client.upload(input).await;
    let started = Instant::now();
    let id = client.create_batch(&file).await;
    client.wait_for(&id, "completed").await;
    started.elapsed()
}

/// The besiegers, who go on until they are aborted; the slow uploads, until they are told to end.
struct Siege {
    others: Vec<JoinHandle<()>>,
    uploads: Vec<JoinHandle<()>>,
    ends: CancellationToken,
}

async fn besiege(to: SocketAddr, path: &str, sights: &Arc<Sights>) -> Siege {
    let [uploads, idle, half_open, reads] =
        [("SIEGE_UPLOADS", 20), ("SIEGE_IDLE", 200), ("SIEGE_HALF_OPEN", 200), ("SIEGE_READS", 50)]
            .map(|(name, default)| setting(name, default));
    let ends = CancellationToken::new();
    let uploading = (0..uploads).map(|_| tokio::spawn(upload_slowly(to, ends.clone(), sights.clone())));
    let uploading = uploading.collect();
    until("the uploads to run", || sights.uploads.load(Relaxed) as u64 == uploads).await;
    let mut others = Vec::new();
    for (count, sent) in [(idle, get("/healthz")), (half_open, "GET /v1/batches HTTP/1.1\r\nX-Half: ".to_owned())] {
        others.extend((0..count).map(|_| tokio::spawn(wait_about(to, sent.clone(), sights.clone()))));
    }
    // Those beyond the limit of connections replace others.
    let most = (idle + half_open).min(3000);
    until("the connections to wait", || sights.waiting.load(Relaxed) as u64 >= most).await;
    let a_second = f64::from(u32::try_from(reads).expect("few")) / f64::from(u32::try_from(READERS).expect("few"));
    others.extend((0..READERS).map(|_| tokio::spawn(read_status(to, path.to_owned(), a_second, sights.clone()))));
    Siege { others, uploads: uploading, ends }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_drains_under_siege() {
    raise_limit_of_open_files();
    let input = rows(usize::try_from(setting("SIEGE_ROWS", 600)).expect("it fits"));
    // The upstream is what takes the time, as in use.
    let stage = Stage::sqlite(&["--latency", "100ms"]).await;
    let server = stage
        .serve(&["--concurrency", "fixed", "--max-concurrency", "32", "--log", "warn,batchwright::cli=info"])
        .await;
    let id = server.client().submit(rows(1)).await;
    let alone = drain(&server, &input).await;
    let memory = server.peak_memory();

    let sights = Arc::new(Sights::default());
    let siege = besiege(server.address(), &format!("/v1/batches/{id}"), &sights).await;
    let begun = Instant::now();
    let besieged = drain(&server, &input).await;
    let lasted = begun.elapsed();
    siege.others.iter().for_each(JoinHandle::abort);
    siege.ends.cancel();
    join_all(siege.uploads).await;

    let grown = (server.peak_memory() - memory) / 1024;
    let answers = sights.answers.lock().expect("nobody panics with the lock").clone();
    println!(
        "alone {alone:.1?}, besieged {besieged:.1?}; {answers:?} reads in {lasted:.1?}, the slowest {:.1?}, broken {}; \
         failed uploads {}; connections replaced {}; {grown} MB more memory",
        sights.slowest.lock().expect("nobody panics with the lock"),
        sights.broken_reads.load(Relaxed),
        sights.failed_uploads.load(Relaxed),
        sights.replaced.load(Relaxed),
    );
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [200]);
    assert_eq!(sights.failed_uploads.load(Relaxed), 0);
    assert!(grown < MEMORY, "{grown} MB");
    // In percent. A machine that runs other tests beside says nothing about it.
    let slower = u32::try_from(setting("SIEGE_SLOWER", 0)).expect("small");
    assert!(slower == 0 || besieged < alone * (100 + slower) / 100, "it took {besieged:?}");
}
