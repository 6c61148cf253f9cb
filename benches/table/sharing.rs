//! What a model that never answers costs another model, by the time that a batch of the other takes.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Json;
use batchwright::client::Client;
use serde_json::{Value, json};

use crate::client::{create_batch, upload, wait_for};
use crate::process::Process;
use crate::{CHAT, Result, median, millis, row};

const ROWS: u32 = 1_000;
const CALLS: &str = "8";
/// How long an answer takes: far longer than the server's work for a row, so that the batch waits for calls.
const LATENCY: Duration = Duration::from_millis(10);
const ROUNDS: u32 = 3;

pub async fn sharing(directory: &Path) -> Result<()> {
    let directory = directory.join("sharing");
    std::fs::create_dir(&directory)?;
    let upstream = upstream().await?;
    let server = Process::serve(&directory.join("data"), &upstream, &["--max-concurrency", CALLS])?;
    let client = Client::new(&server.address)?;
    let (quick, hanging) = (upload(&client, file("quick")).await?, upload(&client, file("hanging")).await?);

    let alone = rounds(&client, &quick).await?;
    create_batch(&client, &hanging, CHAT).await?;
    // It takes the calls that nobody uses, as it would in a quiet hour.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let beside = rounds(&client, &quick).await?;

    row(&format!("{ROWS} rows at {CALLS} calls, alone"), millis(alone), format!("median of {ROUNDS}"));
    row(
        "the same beside a model that never answers",
        millis(beside),
        format!("{:.2} times as long", beside.as_secs_f64() / alone.as_secs_f64()),
    );
    Ok(())
}

async fn rounds(client: &Client, file: &str) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let batch = create_batch(client, file, CHAT).await?;
        wait_for(client, &batch, Duration::from_millis(5)).await?;
        times.push(started.elapsed());
    }
    Ok(median(times))
}

fn file(model: &str) -> String {
    let mut file = String::new();
    for number in 0..ROWS {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Hi" }] });
        let line = json!({ "custom_id": number.to_string(), "method": "POST", "url": CHAT, "body": body });
        let _ = writeln!(file, "{line}");
    }
    file
}

/// An upstream in this process, one of whose models never answers.
async fn upstream() -> Result<String> {
    let app = Router::new().fallback(async |Json(body): Json<Value>| {
        if body["model"] == "hanging" {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LATENCY).await;
        Json(json!({ "object": "chat.completion" }))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/v1", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(address)
}
