//! A client of the measured server.

use std::time::{Duration, Instant};

use axum::Router;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Result;

/// Talks to one server.
pub struct Client {
    http: reqwest::Client,
    base_url: String,
}

impl Client {
    pub fn new(base_url: &str) -> Self {
        let http = reqwest::ClientBuilder::new().build().expect("a plain client");
        Self { http, base_url: base_url.to_owned() }
    }

    /// Uploads a batch input file. Returns its id.
    pub async fn upload(&self, file: String) -> Result<String> {
        let part = reqwest::multipart::Part::bytes(file.into_bytes()).file_name("input.jsonl");
        let form = reqwest::multipart::Form::new().text("purpose", "batch").part("file", part);
        let file = answer(self.http.post(self.url("files")).multipart(form)).await?;
        Ok(file["id"].as_str().ok_or("no file id")?.to_owned())
    }

    /// Creates a batch. Returns its id.
    pub async fn create_batch(&self, file: &str, endpoint: &str) -> Result<String> {
        let new = json!({ "input_file_id": file, "endpoint": endpoint, "completion_window": "24h" });
        let batch = answer(self.http.post(self.url("batches")).json(&new)).await?;
        Ok(batch["id"].as_str().ok_or("no batch id")?.to_owned())
    }

    /// Reads a batch's status until it has completed. Returns the batch, and how long each read took.
    pub async fn wait_for(&self, batch: &str, every: Duration) -> Result<(Value, Vec<Duration>)> {
        let mut times = Vec::new();
        loop {
            let started = Instant::now();
            let batch = answer(self.http.get(self.url(&format!("batches/{batch}")))).await?;
            times.push(started.elapsed());
            match batch["status"].as_str() {
                Some("completed") => return Ok((batch, times)),
                Some("failed" | "expired" | "cancelled") => return Err(batch.to_string().into()),
                _ => tokio::time::sleep(every).await,
            }
        }
    }

    /// Downloads a file and throws it away. Returns its size.
    pub async fn download(&self, file: &str) -> Result<u64> {
        let response = self.http.get(self.url(&format!("files/{file}/content"))).send().await?.error_for_status()?;
        let mut chunks = response.bytes_stream();
        let mut bytes = 0;
        while let Some(chunk) = chunks.next().await {
            bytes += chunk?.len() as u64;
        }
        Ok(bytes)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base_url)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value> {
    Ok(request.send().await?.error_for_status()?.json().await?)
}

/// An upstream in this process that says when each request came.
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
