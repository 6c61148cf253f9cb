//! Shortcuts over the library's client, and an upstream that notes arrivals.

use std::time::{Duration, Instant};

use axum::Router;
use batchwright::client::{BatchRequest, Client, RemoteBatch};
use batchwright::domain::batch::BatchStatus;
use serde_json::json;
use tokio::sync::mpsc;

use super::Result;

/// Uploads a batch input file. Returns its id.
pub async fn upload(client: &Client, file: String) -> Result<String> {
    Ok(client.upload_bytes("input.jsonl", file).await?.id)
}

/// Creates a batch. Returns its id.
pub async fn create_batch(client: &Client, file: &str, endpoint: &str) -> Result<String> {
    Ok(client.create_batch(&BatchRequest::new(file, endpoint)).await?.id)
}

/// Reads a batch's status until it has completed. Returns the batch, and how long each read took.
pub async fn wait_for(client: &Client, batch: &str, every: Duration) -> Result<(RemoteBatch, Vec<Duration>)> {
    let mut times = Vec::new();
    loop {
        let started = Instant::now();
        let batch = client.batch(batch).await?;
        times.push(started.elapsed());
        match batch.status {
            BatchStatus::Completed => return Ok((batch, times)),
            status if status.is_terminal() => return Err(format!("{batch:?}").into()),
            _ => tokio::time::sleep(every).await,
        }
    }
}

/// Starts an upstream in this process that sends the time of each request's arrival to the channel.
pub async fn upstream_that_notes_arrivals() -> Result<(String, mpsc::UnboundedReceiver<Instant>)> {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let app = Router::new().fallback(move || {
        let _ = arrived.send(Instant::now());
        async { axum::Json(json!({ "object": "chat.completion" })) }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/v1", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok((address, arrivals))
}
