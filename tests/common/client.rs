//! What any client does: upload, create, wait, download.

use batchwright::client::{self, BatchRequest};
use batchwright::domain::answer::without_lone_surrogates;
use batchwright::verify::{VerifyArgs, VerifyReport, verify};
use reqwest::header::HeaderMap;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually::eventually;

/// A client of one server. What tests look at as it is on the wire is sent by hand, everything else by the library's
/// own client.
pub struct Client {
    http: reqwest::Client,
    api: client::Client,
    /// The server's address, without `/v1`.
    pub base_url: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

/// What is in the two files of a batch that has ended.
#[derive(Debug, Default)]
pub struct Results {
    pub output: Vec<Value>,
    pub errors: Vec<Value>,
}

impl Client {
    pub fn new(base_url: String) -> Self {
        // First, because it chooses the TLS provider.
        let api = client::Client::new(&format!("{base_url}/v1")).expect("the base URL is one");
        let http = reqwest::ClientBuilder::new()
            .no_proxy()
            .no_gzip()
            .no_zstd()
            .no_brotli()
            .no_deflate()
            .build()
            .expect("a client without settings can be built");
        Self { http, api, base_url }
    }

    /// One that sends a key with every request.
    pub fn with_key(base_url: String, key: &str) -> Self {
        let api = client::Client::with_key(&format!("{base_url}/v1"), key).expect("the base URL is one");
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {key}").parse().expect("a header"));
        let http = reqwest::ClientBuilder::new().no_proxy().default_headers(headers).build();
        Self { http: http.expect("a client without settings can be built"), api, base_url }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base_url))
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    pub async fn upload_form(&self, form: Form) -> Answer {
        send(self.request(Method::POST, "/v1/files").multipart(form)).await
    }

    /// Uploads a batch input file, and returns whatever the answer is.
    pub async fn try_upload(&self, bytes: impl Into<Vec<u8>>) -> Answer {
        let part = Part::bytes(bytes.into()).file_name("input.jsonl");
        self.upload_form(Form::new().text("purpose", "batch").part("file", part)).await
    }

    /// Uploads a batch input file and returns its id.
    pub async fn upload(&self, bytes: impl Into<Vec<u8>>) -> String {
        self.api.upload_bytes("input.jsonl", bytes.into()).await.expect("the file is taken").id
    }

    /// Creates a batch of chat requests and returns its id.
    pub async fn create_batch(&self, file_id: &str) -> String {
        self.create_batch_within(file_id, "24h").await
    }

    pub async fn create_batch_for(&self, file_id: &str, endpoint: &str) -> String {
        let new = BatchRequest::new(file_id, endpoint);
        self.api.create_batch(&new).await.expect("the batch is created").id
    }

    pub async fn create_batch_within(&self, file_id: &str, window: &str) -> String {
        let mut new = BatchRequest::new(file_id, "/v1/chat/completions");
        window.clone_into(&mut new.completion_window);
        self.api.create_batch(&new).await.expect("the batch is created").id
    }

    /// Uploads a file, creates its batch and returns the batch's id.
    pub async fn submit(&self, input: impl Into<Vec<u8>>) -> String {
        let file_id = self.upload(input).await;
        self.create_batch(&file_id).await
    }

    pub async fn cancel(&self, batch_id: &str) -> Answer {
        send(self.request(Method::POST, &format!("/v1/batches/{batch_id}/cancel"))).await
    }

    pub async fn batch(&self, id: &str) -> Value {
        self.get(&format!("/v1/batches/{id}")).await.ok()
    }

    /// Waits for a batch to get this status, which has to be the one it ends with if it ends.
    pub async fn wait_for(&self, id: &str, status: &str) -> Value {
        let batch = self.wait_until(id, status, |batch| batch["status"] == status || has_ended(batch)).await;
        assert_eq!(batch["status"], status, "{batch}");
        batch
    }

    /// Waits for a batch to have this status on its way.
    pub async fn wait_for_status(&self, id: &str, status: &str) {
        self.wait_until(id, status, |batch| batch["status"] == status).await;
    }

    /// Waits until so many rows of a batch have succeeded.
    pub async fn wait_for_completed(&self, id: &str, rows: u64) -> Value {
        let has_completed = |batch: &Value| batch["request_counts"]["completed"].as_u64() >= Some(rows);
        self.wait_until(id, "completed rows", |batch| has_completed(batch) || has_ended(batch)).await
    }

    async fn wait_until(&self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || {
            let batch = self.batch(id).await;
            holds(&batch).then_some(batch)
        })
        .await
    }

    /// Runs a file to the end `completed` and returns its results.
    pub async fn run(&self, input: impl Into<Vec<u8>>) -> Results {
        let id = self.submit(input).await;
        let batch = self.wait_for(&id, "completed").await;
        self.results(&batch).await
    }

    /// Runs a file that is to fail validation, and returns the elements of `errors.data`.
    pub async fn validation_errors(&self, input: impl Into<Vec<u8>>) -> Vec<Value> {
        let id = self.submit(input).await;
        let batch = self.wait_for(&id, "failed").await;
        batch["errors"]["data"].as_array().expect("a failed batch lists errors").clone()
    }

    pub async fn content(&self, file_id: &str) -> Answer {
        self.get(&format!("/v1/files/{file_id}/content")).await
    }

    pub async fn results(&self, batch: &Value) -> Results {
        let output = self.lines(&batch["output_file_id"]).await;
        Results { output, errors: self.lines(&batch["error_file_id"]).await }
    }

    async fn lines(&self, file_id: &Value) -> Vec<Value> {
        let Some(file_id) = file_id.as_str() else { return Vec::new() };
        let bytes = self.api.content(file_id).await.expect("the file can be downloaded");
        assert!(str::from_utf8(&bytes).is_ok(), "results are UTF-8");
        // Half an emoji stays as it came. Most clients can read it; serde_json cannot.
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').map(without_lone_surrogates);
        lines.map(|line| serde_json::from_slice(&line).expect("a result line is JSON")).collect()
    }

    /// Downloads the results of a batch and checks them against its input, as a user would with `batchwright verify`.
    pub async fn verify(&self, input: &str, batch: &Value) -> VerifyReport {
        let directory = tempfile::tempdir().expect("a temporary directory");
        verify(&self.download(input, batch, &directory).await).expect("the files can be read")
    }

    /// Writes the input and the results of a batch into a directory.
    pub async fn download(&self, input: &str, batch: &Value, directory: &TempDir) -> VerifyArgs {
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("input.jsonl"), input).expect("the temporary directory can be written");
        let mut args = VerifyArgs { input: path("input.jsonl"), output: None, errors: None };
        for (member, name, argument) in
            [("output_file_id", "output", &mut args.output), ("error_file_id", "errors", &mut args.errors)]
        {
            if let Some(id) = batch[member].as_str() {
                self.api.download_to(id, &path(name)).await.expect("the file can be downloaded");
                *argument = Some(path(name));
            }
        }
        args
    }
}

impl Results {
    /// The ids clients gave to the rows that succeeded, in order.
    pub fn output_ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.output.iter().map(|line| text(&line["custom_id"])).collect();
        ids.sort_unstable();
        ids
    }

    /// The codes of the error lines.
    pub fn error_codes(&self) -> Vec<&str> {
        self.errors.iter().map(|line| text(&line["error"]["code"])).collect()
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).expect("the answer is UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("not JSON: {} {:?}", self.status, String::from_utf8_lossy(&self.bytes)))
    }

    /// The JSON of an answer that has to be a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are ASCII"))
    }
}

/// Sends a request and reads the answer.
pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.expect("the answer can be read").to_vec();
    Answer { status, headers, bytes }
}

/// The parameters of a batch of chat requests.
pub fn new_batch(file_id: &str, window: &str) -> Value {
    json!({ "input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": window })
}

/// The body of an answer that is an error of the request.
pub fn error(message: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({ "error": { "message": message, "type": "invalid_request_error", "param": param, "code": code } })
}

fn has_ended(batch: &Value) -> bool {
    matches!(text(&batch["status"]), "completed" | "failed" | "expired" | "cancelled")
}

/// A text in a JSON value; empty if it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
