//! A program of your own around batchwright: API, storage and daemon are its, what becomes of a row is yours. This one
//! asks no inference server: it answers each prompt with the same text in capitals.
//!
//! Run it with `cargo run --example custom_processor`.

use anyhow::Context as _;
use async_trait::async_trait;
use batchwright::client::{BatchRequest, Client, Polling};
use batchwright::domain::outcome::HttpResponse;
use batchwright::domain::request::{Claimed, Request, RequestCompletionResult};
use batchwright::domain::time::Clock;
use batchwright::processor::{CancellationFuture, ProcessorError, RequestProcessor, ShouldRetry};
use batchwright::storage::Storage;
use batchwright::upstream::{HttpClient, NoUpstream};
use batchwright::{ServeConfig, Service};
use serde_json::{Value, json};

/// Answers every row at once. A processor that takes longer stops when its `CancellationFuture` resolves.
struct Shout;

#[async_trait]
impl<S: Storage, H: HttpClient> RequestProcessor<S, H> for Shout {
    async fn process(
        &self,
        request: Request<Claimed>,
        _http: H,
        _storage: &S,
        should_retry: ShouldRetry,
        _cancellation: CancellationFuture,
    ) -> Result<RequestCompletionResult, ProcessorError> {
        let body: Value = serde_json::from_slice(&request.data.body)?;
        // An `Err` is an outcome like any other: the row gets an error line with its text.
        let prompt = body["messages"][0]["content"].as_str().ok_or("the first message has no text")?;
        let answer = json!({ "choices": [{ "message": { "role": "assistant", "content": prompt.to_uppercase() } }] });
        Ok(request.process(Clock::System.now()).complete(HttpResponse::json(200, &answer), &*should_retry))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut settings = ServeConfig::default();
    settings.storage.data_dir = directory.path().to_owned();
    let service = Service::embed(settings, NoUpstream, Shout).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base_url = format!("http://{}/v1", listener.local_addr()?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(service.serve(listener, async { drop(stopped.await) }));
    println!("{}", run_a_batch(&base_url).await?);
    drop(stop);
    Ok(serving.await??)
}

/// What a client in any language does: upload, create, wait, download.
async fn run_a_batch(base_url: &str) -> anyhow::Result<String> {
    let client = Client::new(base_url)?;
    let body = json!({ "model": "shout", "messages": [{ "role": "user", "content": "Hello, world" }] });
    let row = json!({ "custom_id": "greeting", "method": "POST", "url": "/v1/chat/completions", "body": body });
    let file = client.upload_bytes("greeting.jsonl", row.to_string()).await?;
    let batch = client.create_batch(&BatchRequest::new(file.id, "/v1/chat/completions")).await?;
    let batch = client.wait(&batch.id, Polling::default(), |_| ()).await?;
    let output = batch.output_file_id.context("the row has no answer")?;
    Ok(String::from_utf8(client.content(&output).await?)?)
}
