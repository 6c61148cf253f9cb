//! A server with OpenAI's files and batches, which does what the test says. It has batchwright's extensions or lacks
//! them, as most servers do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use serde_json::{Value, json};

use super::command::Cli;

/// What the server has and does.
#[derive(Default)]
pub struct World {
    pub has_extensions: bool,
    /// It knows `Idempotency-Key`.
    pub has_keys: bool,
    /// It answers 503.
    pub is_away: bool,
    /// It answers 429 to so many uploads.
    pub refused_uploads: usize,
    /// Each file's object and content, the oldest first.
    pub files: Vec<(Value, String)>,
    /// The oldest first.
    pub batches: Vec<Value>,
    pub progress: Option<Value>,
    /// The lines of the output and of the error file.
    pub results: [String; 2],
    /// The next answers with results break off after so many bytes.
    pub breaks: Vec<usize>,
    /// All requests: method, path and query.
    pub requests: Vec<String>,
    /// The headers of the last request.
    pub headers: HeaderMap,
    /// The last body that created a batch.
    pub created: Value,
    /// The batch of each idempotency key.
    pub keys: BTreeMap<String, String>,
}

#[derive(Clone)]
pub struct StandIn {
    world: Arc<Mutex<World>>,
    /// Without `/v1`.
    pub base_url: String,
}

type Answer = Result<Response, (StatusCode, Json<Value>)>;
type Queries = Query<BTreeMap<String, String>>;

impl StandIn {
    pub async fn new(world: World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let base_url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let server = Self { world: Arc::new(Mutex::new(world)), base_url };
        let router = Router::new()
            .route("/v1/files", get(list_files).post(upload))
            .route("/v1/files/{id}", get(file).delete(delete_file))
            .route("/v1/files/{id}/content", get(content))
            .route("/v1/batches", get(list_batches).post(create))
            .route("/v1/batches/{id}", get(batch))
            .route("/v1/batches/{id}/{verb}", post(steer).get(extension))
            .layer(from_fn_with_state(server.clone(), note))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    /// One with a single batch, `batch_1`, of this status and with these rows: all, completed and failed.
    pub async fn with_batch(status: &str, counts: [u64; 3], has_extensions: bool) -> Self {
        let batches = vec![batch_object("batch_1", status, counts)];
        Self::new(World { has_extensions, batches, ..World::default() }).await
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no thread panics with the lock")
    }

    /// Changes a member of the first batch.
    pub fn set(&self, member: &str, value: impl Into<Value>) {
        self.world().batches[0][member] = value.into();
    }

    /// Runs a command against this server.
    pub fn cli(&self, arguments: &[&str]) -> Cli {
        Cli::new(arguments).env("OPENAI_BASE_URL", &self.base_url)
    }

    /// How many requests of this kind there were.
    pub fn count(&self, request: &str) -> usize {
        self.world().requests.iter().filter(|made| made.starts_with(request)).count()
    }
}

/// A batch object with the members that OpenAI has.
pub fn batch_object(id: &str, status: &str, [total, completed, failed]: [u64; 3]) -> Value {
    let ended = ["completed", "expired", "cancelled"].contains(&status);
    json!({
        "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "status": status, "errors": null,
        "input_file_id": "file-in", "completion_window": "24h", "created_at": 1_790_000_000, "expires_at": null,
        "output_file_id": (ended && completed > 0).then_some("file-output"),
        "error_file_id": (ended && completed < total).then_some("file-errors"),
        "request_counts": { "total": total, "completed": completed, "failed": failed },
        "metadata": null, "usage": { "total_tokens": 12 },
    })
}

/// A line of the output file.
pub fn output_line(custom_id: &str) -> String {
    let response = json!({ "status_code": 200, "request_id": "r", "body": { "ok": true } });
    json!({ "id": "batch_req_1", "custom_id": custom_id, "response": response, "error": null }).to_string() + "\n"
}

/// A line of the error file.
pub fn error_line(custom_id: &str) -> String {
    let response = json!({ "status_code": 400, "request_id": "r", "body": {} });
    json!({ "id": "batch_req_2", "custom_id": custom_id, "response": response, "error": null }).to_string() + "\n"
}

async fn note(State(server): State<StandIn>, request: Request, next: Next) -> Response {
    let is_away = {
        let mut world = server.world();
        world.requests.push(format!("{} {}", request.method(), request.uri()));
        world.headers = request.headers().clone();
        world.is_away
    };
    if is_away { StatusCode::SERVICE_UNAVAILABLE.into_response() } else { next.run(request).await }
}

fn refused(status: StatusCode, message: &str, param: &str) -> (StatusCode, Json<Value>) {
    let error = json!({ "message": message, "type": "invalid_request_error", "param": param, "code": null });
    (status, Json(json!({ "error": error })))
}

fn not_found(what: &str) -> (StatusCode, Json<Value>) {
    refused(StatusCode::NOT_FOUND, &format!("No such {what}."), "id")
}

fn list(mut newest_first: Vec<Value>, Query(query): Queries) -> Json<Value> {
    if let Some(after) = query.get("after") {
        let at = newest_first.iter().position(|item| item["id"] == *after).map_or(newest_first.len(), |at| at + 1);
        newest_first.drain(..at);
    }
    let limit = query.get("limit").map_or(2, |limit| limit.parse().expect("a number"));
    let has_more = newest_first.len() > limit;
    newest_first.truncate(limit);
    Json(json!({ "object": "list", "data": newest_first, "has_more": has_more }))
}

async fn list_files(State(server): State<StandIn>, query: Queries) -> Json<Value> {
    list(server.world().files.iter().rev().map(|(file, _)| file.clone()).collect(), query)
}

async fn upload(State(server): State<StandIn>, headers: HeaderMap, body: Body) -> Answer {
    let refused_uploads = server.world().refused_uploads;
    if refused_uploads > 0 {
        server.world().refused_uploads -= 1;
        return Err(refused(StatusCode::TOO_MANY_REQUESTS, "Too many uploads.", "file"));
    }
    let boundary = multer::parse_boundary(headers[header::CONTENT_TYPE].to_str().expect("text")).expect("a form");
    let mut form = multer::Multipart::new(body.into_data_stream(), boundary);
    let mut file = None;
    while let Some(field) = form.next_field().await.expect("a part") {
        let name = field.file_name().map(ToOwned::to_owned);
        let text = field.text().await.expect("text");
        file = name.map(|name| (name, text)).or(file);
    }
    let (name, text) = file.expect("a file");
    let mut world = server.world();
    let object = json!({
        "id": format!("file-{}", world.files.len() + 1), "object": "file", "bytes": text.len(), "filename": name,
        "created_at": 1_790_000_000, "expires_at": null, "purpose": "batch",
    });
    world.files.push((object.clone(), text));
    Ok(Json(object).into_response())
}

async fn file(State(server): State<StandIn>, Path(id): Path<String>) -> Answer {
    let world = server.world();
    let found = world.files.iter().find(|(file, _)| file["id"] == id).map(|(file, _)| file.clone());
    let result = ["file-output", "file-errors"].iter().position(|file| *file == id);
    let of_result = |file: usize| {
        let bytes = world.results[file].len();
        json!({ "id": id, "bytes": bytes, "filename": "f", "created_at": 1, "purpose": "batch_output" })
    };
    Ok(Json(found.or(result.map(of_result)).ok_or_else(|| not_found("File"))?).into_response())
}

async fn delete_file(State(server): State<StandIn>, Path(id): Path<String>) -> Answer {
    let mut world = server.world();
    let at = world.files.iter().position(|(file, _)| file["id"] == id).ok_or_else(|| not_found("File"))?;
    world.files.remove(at);
    Ok(Json(json!({ "id": id, "object": "file", "deleted": true })).into_response())
}

async fn content(State(server): State<StandIn>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let world = server.world();
    let text = match id.as_str() {
        "file-output" => &world.results[0],
        "file-errors" => &world.results[1],
        id => &world.files.iter().find(|(file, _)| file["id"] == id).ok_or_else(|| not_found("File"))?.1,
    };
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    match range.and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok()) {
        Some(from) => Ok((StatusCode::PARTIAL_CONTENT, text[from..].to_owned()).into_response()),
        None => Ok(text.clone().into_response()),
    }
}

async fn list_batches(State(server): State<StandIn>, query: Queries) -> Json<Value> {
    list(server.world().batches.iter().rev().cloned().collect(), query)
}

async fn batch(State(server): State<StandIn>, Path(id): Path<String>) -> Answer {
    let world = server.world();
    let found = world.batches.iter().find(|batch| batch["id"] == id);
    Ok(Json(found.ok_or_else(|| not_found("Batch"))?.clone()).into_response())
}

async fn create(State(server): State<StandIn>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let mut world = server.world();
    world.created = body.clone();
    let is_retry = world.has_extensions && body["retry_of"].is_string();
    if !is_retry && !body["input_file_id"].is_string() {
        let message = "Missing required parameter: 'input_file_id'.";
        return Err(refused(StatusCode::BAD_REQUEST, message, "input_file_id"));
    }
    let key = headers.get("idempotency-key").filter(|_| world.has_keys);
    let key = key.map(|key| key.to_str().expect("text").to_owned());
    if let Some(id) = key.as_ref().and_then(|key| world.keys.get(key)) {
        let known = world.batches.iter().find(|batch| batch["id"] == *id).expect("it is there").clone();
        return if is_retry || known["input_file_id"] == body["input_file_id"] {
            Ok(Json(known).into_response())
        } else {
            let error = json!({ "message": "The key was used.", "code": "idempotency_key_reused" });
            Err((StatusCode::BAD_REQUEST, Json(json!({ "error": error }))))
        };
    }
    let mut batch = batch_object(&format!("batch_{}", world.batches.len() + 1), "validating", [0; 3]);
    for member in ["input_file_id", "endpoint", "completion_window", "metadata"] {
        batch[member] = body[member].clone();
    }
    if is_retry {
        batch = batch_object(batch["id"].as_str().expect("text"), "validating", [0; 3]);
    }
    if let Some(key) = key {
        world.keys.insert(key, batch["id"].as_str().expect("text").to_owned());
    }
    world.batches.push(batch.clone());
    Ok(Json(batch).into_response())
}

async fn steer(State(server): State<StandIn>, Path((id, verb)): Path<(String, String)>) -> Answer {
    let mut world = server.world();
    if verb != "cancel" && !world.has_extensions {
        return Err(refused(StatusCode::NOT_FOUND, "Unknown request URL.", ""));
    }
    let batch = world.batches.iter_mut().find(|batch| batch["id"] == id).ok_or_else(|| not_found("Batch"))?;
    match verb.as_str() {
        "cancel" => batch["status"] = "cancelling".into(),
        verb => batch["metadata"] = json!({ "last": verb }),
    }
    Ok(Json(batch.clone()).into_response())
}

async fn extension(State(server): State<StandIn>, Path((id, what)): Path<(String, String)>, query: Queries) -> Answer {
    let batch = {
        let world = server.world();
        let found = world.batches.iter().find(|batch| batch["id"] == id && world.has_extensions).cloned();
        found.ok_or_else(|| not_found("path"))?
    };
    match what.as_str() {
        "progress" => Ok(Json(progress(&server, &batch)).into_response()),
        "results" => results(&server, &query).await,
        _ => Err(not_found("path")),
    }
}

fn progress(server: &StandIn, batch: &Value) -> Value {
    let counts = &batch["request_counts"];
    let left = counts["total"].as_u64().unwrap_or(0) - counts["completed"].as_u64().unwrap_or(0);
    let mut progress = json!({
        "object": "batch.progress", "batch_id": batch["id"], "phase": "running",
        "rows": { "total": counts["total"], "waiting": left, "running": 0, "retrying": 0,
                  "completed": counts["completed"], "failed": 0 },
        "rate": { "rows_per_second": 12.34, "tokens_per_second": 5.0, "seconds": 60 },
        "estimate": null, "window": { "closes_at": 1, "will_be_met": null }, "reason": null, "failures": [],
    });
    let said = server.world().progress.clone().unwrap_or_default();
    for (member, value) in said.as_object().into_iter().flatten() {
        progress[member] = value.clone();
    }
    progress["status"] = batch["status"].clone();
    progress
}

async fn results(server: &StandIn, Query(query): &Queries) -> Answer {
    let is_ended = || {
        let status = server.world().batches[0]["status"].clone();
        ["completed", "cancelled", "expired", "failed"].iter().any(|ended| status == *ended)
    };
    if query.get("order").is_some() {
        if let Some(other) = ["after", "wait", "limit"].into_iter().find(|name| query.contains_key(*name)) {
            return Err(refused(StatusCode::BAD_REQUEST, "One answer has all lines.", other));
        }
        let [output, errors] = server.world().results.clone();
        let end = format!("{}-{}", output.len(), errors.len());
        return Ok(lines(server, output + &errors, &end, true));
    }
    let after = query.get("after").map_or("0-0", String::as_str);
    let places: Vec<usize> = after.split('-').map(|place| place.parse().expect("a number")).collect();
    let wait: u64 = query.get("wait").map_or(0, |wait| wait.parse().expect("a number"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    let kind = query.get("kind").map_or("all", String::as_str);
    loop {
        let was_ended = is_ended();
        let all = server.world().results.clone();
        if places[0] > all[0].len() || places[1] > all[1].len() {
            return Err(refused(StatusCode::BAD_REQUEST, "The cursor is behind the end.", "after"));
        }
        let output = if kind == "errors" { "" } else { &all[0][places[0]..] };
        let errors = if kind == "output" { "" } else { &all[1][places[1]..] };
        if output.len() + errors.len() > 0 || was_ended || tokio::time::Instant::now() >= deadline {
            let next = format!("{}-{}", places[0] + output.len(), places[1] + errors.len());
            return Ok(lines(server, format!("{output}{errors}"), &next, was_ended));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn lines(server: &StandIn, text: String, next: &str, has_ended: bool) -> Response {
    let headers = [("batchwright-next-cursor", next.to_owned()), ("batchwright-has-ended", has_ended.to_string())];
    let breaks_at = server.world().breaks.pop();
    match breaks_at.filter(|at| *at < text.len()) {
        Some(at) => {
            let broken = async {
                // Lets the server send what it has.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("broken"))
            };
            let pieces = futures::StreamExt::chain(stream::iter([Ok(text[..at].to_owned())]), stream::once(broken));
            (headers, Body::from_stream(pieces)).into_response()
        }
        None => (headers, text).into_response(),
    }
}
