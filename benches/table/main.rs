//! `make bench`: every figure of `benches/README.md`, measured in one run with the release build.
//!
//! Compare the ratios: the bare loop, the disk and the server share one machine and one moment. All processes talk only
//! to 127.0.0.1, are bounded in number, and end by themselves. `cargo bench --bench table -- scale` measures only the
//! bookkeeping, `-- responses` only the rows that call tools, `-- sharing` only a model beside one that never answers,
//! `-- pages` only the dashboard with 10,000 batches.

mod bare;
mod client;
mod compare;
#[path = "../../tests/common/databases.rs"]
mod databases;
mod pages;
mod process;
mod responses;
mod scale;
mod sharing;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use batchwright::client::Client;
use client::{create_batch, upload, wait_for};
use process::Process;

const ROWS: u32 = 50_000;
const CONCURRENCY: u32 = 256;
const CHAT: &str = "/v1/chat/completions";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The bare loop runs in a process of its own, so that its CPU time can be measured.
    if let Some(at) = arguments.iter().position(|argument| argument == "--bare") {
        return runtime.block_on(bare::run(&arguments[at + 1], Path::new(&arguments[at + 2]), CONCURRENCY as usize));
    }
    let directory = tempfile::tempdir()?;
    if let Some(at) = arguments.iter().position(|argument| argument == "compare") {
        let other = arguments.get(at + 1).ok_or("compare needs the path of another build's program")?;
        return runtime.block_on(compare::compare(directory.path(), Path::new(other)));
    }
    let is_chosen = |part: &str| arguments.iter().any(|argument| argument == part);
    head();
    if is_chosen("scale") {
        runtime.block_on(scale::scale(directory.path()))
    } else if is_chosen("responses") {
        runtime.block_on(responses::responses(directory.path()))
    } else if is_chosen("sharing") {
        runtime.block_on(sharing::sharing(directory.path()))
    } else if is_chosen("pages") {
        runtime.block_on(pages::pages(directory.path()))
    } else {
        runtime.block_on(table(directory.path()))
    }
}

async fn table(directory: &Path) -> Result<()> {
    intake(directory).await?;
    creation(directory).await?;
    first_request(directory).await?;
    drain(directory).await?;
    responses::responses(directory).await?;
    sharing::sharing(directory).await?;
    memory(directory).await?;
    scale::scale(directory).await?;
    pages::pages(directory).await
}

fn head() {
    println!("{:<58} {:>14}   note", "measured", "figure");
}

fn row(what: &str, figure: impl std::fmt::Display, note: impl std::fmt::Display) {
    println!("{what:<58} {figure:>14}   {note}");
}

/// A batch input file of about 1.1 KB a row.
fn input(rows: u32) -> String {
    let filler = "The quick brown fox jumps over the lazy dog and then it rests. ".repeat(14);
    let mut input = String::with_capacity(rows as usize * 1150);
    for number in 0..rows {
        let _ = writeln!(
            input,
            "{{\"custom_id\":\"request-{number}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\
             \"body\":{{\"model\":\"m\",\"messages\":[{{\"role\":\"system\",\"content\":\"Answer briefly.\"}},\
             {{\"role\":\"user\",\"content\":\"{filler}{number}\"}}],\"max_tokens\":16}}}}"
        );
    }
    input
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes_a_second(bytes: u64, took: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / took.as_secs_f64())
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The 99th percentile.
fn p99(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn intake(directory: &Path) -> Result<()> {
    let file = input(ROWS);
    let bytes = file.len() as u64;
    let mut disk = Vec::new();
    let server = Process::serve(&directory.join("intake"), "http://127.0.0.1:9/v1", &["--role", "api"])?;
    let client = Client::new(&server.address)?;
    let mut uploads = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let path = directory.join("disk");
        std::fs::write(&path, &file)?;
        std::fs::File::open(&path)?.sync_all()?;
        disk.push(started.elapsed());
        let copy = file.clone();
        let started = Instant::now();
        upload(&client, copy).await?;
        uploads.push(started.elapsed());
    }
    let (uploading, disk) = (median(uploads), median(disk));
    row(
        &format!("intake of {ROWS} rows, {} MB, validated and synced", bytes / 1_000_000),
        megabytes_a_second(bytes, uploading),
        format!("writing and syncing the same bytes alone: {}", megabytes_a_second(bytes, disk)),
    );
    Ok(())
}

async fn creation(directory: &Path) -> Result<()> {
    let limits = ["--role", "api", "--max-batch-rows", "1000000", "--max-batch-bytes", "4GiB"];
    let server = Process::serve(&directory.join("creation"), "http://127.0.0.1:9/v1", &limits)?;
    let client = Client::new(&server.address)?;
    for rows in [1_000, 50_000, 1_000_000] {
        let file = upload(&client, input(rows)).await?;
        let mut times = Vec::new();
        for _ in 0..9 {
            let started = Instant::now();
            create_batch(&client, &file, CHAT).await?;
            times.push(started.elapsed());
        }
        row(&format!("POST /v1/batches for {rows} rows"), millis(median(times)), "median of 9");
    }
    Ok(())
}

async fn first_request(directory: &Path) -> Result<()> {
    let (address, mut arrivals) = client::upstream_that_notes_arrivals().await?;
    let server = Process::serve(&directory.join("first"), &address, &[])?;
    let client = Client::new(&server.address)?;
    let mut times = Vec::new();
    for _ in 0..9 {
        let file = upload(&client, input(1)).await?;
        let started = Instant::now();
        let batch = create_batch(&client, &file, CHAT).await?;
        let arrived = arrivals.recv().await.ok_or("the upstream ended")?;
        times.push(arrived.duration_since(started));
        wait_for(&client, &batch, Duration::from_millis(5)).await?;
    }
    row("from POST /v1/batches to the first upstream request", millis(median(times)), "median of 9");
    Ok(())
}

/// Measures a drain in turns with the bare loop, then the status reads and the download of the same batch.
async fn drain(directory: &Path) -> Result<()> {
    let file = input(ROWS);
    let path = directory.join("input.jsonl");
    std::fs::write(&path, &file)?;
    let upstream = Process::simulate()?;
    let concurrency = CONCURRENCY.to_string();
    let server = Process::serve(&directory.join("drain"), &upstream.address, &["--max-concurrency", &concurrency])?;
    let client = Client::new(&server.address)?;
    let file_id = upload(&client, file).await?;

    let (mut bare_rates, mut rates, mut bare_cpu, mut cpu, mut reads) = (vec![], vec![], vec![], vec![], vec![]);
    let mut output = None;
    for _ in 0..3 {
        let bare = process::bare_loop(&upstream.address, &path)?;
        bare_rates.push(bare.rows_a_second);
        bare_cpu.push(bare.cpu_micros_a_row);

        let cpu_before = server.cpu_time()?;
        let started = Instant::now();
        let id = create_batch(&client, &file_id, CHAT).await?;
        let (ended, times) = wait_for(&client, &id, Duration::from_millis(10)).await?;
        rates.push(f64::from(ROWS) / started.elapsed().as_secs_f64());
        cpu.push(server.cpu_time()?.saturating_sub(cpu_before).as_secs_f64() * 1e6 / f64::from(ROWS));
        reads.extend(times);
        output = ended.output_file_id;
    }
    let (rate, bare_rate) = (middle(rates), middle(bare_rates));
    row(
        "bare reqwest loop over the same bodies",
        format!("{bare_rate:.0} rows/s"),
        "median of 3, in turns with the drain",
    );
    row("bare reqwest loop, CPU", format!("{:.1} µs/row", middle(bare_cpu)), "");
    row(
        &format!("drain of {ROWS} rows at concurrency {CONCURRENCY}"),
        format!("{rate:.0} rows/s"),
        format!("{:.2} of the bare loop, from POST to completed", rate / bare_rate),
    );
    row("drain, CPU of the server", format!("{:.1} µs/row", middle(cpu)), "recording, fsync and status reads included");
    row(
        "GET /v1/batches/{id} while draining, p99",
        millis(p99(&mut reads)),
        format!("median {}, {} reads", millis(reads[reads.len() / 2]), reads.len()),
    );

    let output = output.ok_or("the batch has no output")?;
    let mut downloads = Vec::new();
    let mut bytes = 0;
    for _ in 0..9 {
        let started = Instant::now();
        bytes = client.download(&output, &mut tokio::io::sink()).await?;
        downloads.push(started.elapsed());
    }
    row(
        &format!("download of the output, {} MB", bytes / 1_000_000),
        megabytes_a_second(bytes, median(downloads)),
        "median of 9",
    );
    Ok(())
}

async fn memory(directory: &Path) -> Result<()> {
    let limits = ["--role", "api", "--max-batch-rows", "1000000", "--max-batch-bytes", "4GiB"];
    let server = Process::serve(&directory.join("memory"), "http://127.0.0.1:9/v1", &limits)?;
    let before = server.peak_memory()?;
    let file = input(1_000_000);
    let bytes = file.len() as u64;
    let started = Instant::now();
    upload(&Client::new(&server.address)?, file).await?;
    let took = started.elapsed();
    row(
        &format!("peak memory of the server, upload of {} MB", bytes / 1_000_000),
        format!("{} MB", server.peak_memory()? / 1_000_000),
        format!("{} MB before; {}", before / 1_000_000, megabytes_a_second(bytes, took)),
    );
    Ok(())
}
