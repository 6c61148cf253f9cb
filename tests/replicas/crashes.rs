//! A crash at each point of a request that creates or changes something: afterwards it was done or it was not, never
//! by half, and the request can be repeated.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{Client, new_batch, send, text};
use crate::common::process::Process;
use crate::stage::Stage;

const API: [&str; 2] = ["--role", "api"];

/// The points, and how often each is passed before the crash: a batch of rows writes three blobs.
const CRASHES: [(&str, u32); 9] = [
    ("blob.put", 0),
    ("blob.put", 1),
    ("blob.put", 2),
    ("blob.written", 0),
    ("blob.written", 1),
    ("blob.written", 2),
    ("transaction.begun", 0),
    ("commit.sent", 0),
    ("commit.answered", 0),
];

/// A request that creates something, of what is prepared if it needs that.
type Creation = (&'static str, fn(&Client, &Prepared) -> RequestBuilder);

const CREATIONS: [Creation; 7] = [
    ("file", |client, _| {
        let file = Part::bytes(rows(3).into_bytes()).file_name("input.jsonl");
        client.request(Method::POST, "/v1/files").multipart(Form::new().part("file", file).text("purpose", "batch"))
    }),
    ("upload", |client, _| client.request(Method::POST, "/v1/uploads").json(&new_upload())),
    ("part", |client, prepared| {
        let part = Part::bytes(rows(3).into_bytes()).file_name("part");
        let path = format!("/v1/uploads/{}/parts", prepared.upload);
        client.request(Method::POST, &path).multipart(Form::new().part("data", part))
    }),
    ("completion", |client, prepared| {
        let path = format!("/v1/uploads/{}/complete", prepared.upload);
        client.request(Method::POST, &path).json(&json!({ "part_ids": [prepared.part] }))
    }),
    ("batch of a file", |client, prepared| {
        client.request(Method::POST, "/v1/batches").json(&new_batch(&prepared.file, "24h"))
    }),
    ("batch of rows", |client, _| {
        let requests: Vec<Value> =
            rows(3).lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect();
        let body = json!({ "requests": requests, "endpoint": "/v1/chat/completions", "completion_window": "24h" });
        client.request(Method::POST, "/v1/batches").json(&body)
    }),
    (MESSAGE_BATCH, |client, _| {
        let params = json!({ "model": "m", "max_tokens": 1, "messages": [{ "role": "user", "content": "Hi" }] });
        let request = |no: usize| json!({ "custom_id": format!("row-{no}"), "params": params });
        let requests: Vec<Value> = (0..3).map(request).collect();
        client.request(Method::POST, "/v1/messages/batches").json(&json!({ "requests": requests }))
    }),
];

/// It takes no key, so that a repeated request may make a second one.
const MESSAGE_BATCH: &str = "message batch";

/// A request that changes something.
struct Change {
    path: &'static str,
    /// Where the change shows; nowhere but in the answer if it is empty.
    seen_at: &'static str,
    pointer: &'static str,
    /// What is there before and after it.
    states: [&'static str; 2],
}

const CHANGES: [Change; 5] = [
    Change {
        path: "/v1/batches/{batch}/cancel",
        seen_at: "/v1/batches/{batch}",
        pointer: "/status",
        states: ["validating", "cancelling"],
    },
    Change {
        path: "/v1/batches/{batch}/pause",
        seen_at: "/v1/batches/{batch}/progress",
        pointer: "/phase",
        states: ["validating", "paused"],
    },
    Change {
        path: "/v1/batches/{paused}/resume",
        seen_at: "/v1/batches/{paused}/progress",
        pointer: "/phase",
        states: ["paused", "validating"],
    },
    Change {
        path: "/v1/messages/batches/{message_batch}/cancel",
        seen_at: "/v1/messages/batches/{message_batch}",
        pointer: "/processing_status",
        states: ["in_progress", "canceling"],
    },
    Change { path: "/v1/uploads/{upload}/cancel", seen_at: "", pointer: "/status", states: ["pending", "cancelled"] },
];

/// What a change writes.
const CRASHES_OF_CHANGES: [&str; 3] = ["transaction.begun", "commit.sent", "commit.answered"];

struct Prepared {
    file: String,
    upload: String,
    part: String,
}

fn new_upload() -> Value {
    json!({ "filename": "a.jsonl", "purpose": "batch", "bytes": rows(3).len(), "mime_type": "x" })
}

async fn prepared(client: &Client) -> Prepared {
    let file = client.upload(rows(3)).await;
    let upload = text(&client.post("/v1/uploads", &new_upload()).await.ok()["id"]).to_owned();
    let part = Part::bytes(rows(3).into_bytes()).file_name("part");
    let request = client.request(Method::POST, &format!("/v1/uploads/{upload}/parts"));
    let part = send(request.multipart(Form::new().part("data", part))).await.ok();
    Prepared { file, upload, part: text(&part["id"]).to_owned() }
}

/// How many files and batches there are, and that every file can be read whole.
async fn kept(client: &Client) -> (usize, usize) {
    let files = client.get("/v1/files?limit=10000").await.ok();
    let files = files["data"].as_array().expect("a list");
    for file in files {
        assert_eq!(client.content(text(&file["id"])).await.text().lines().count(), 3);
    }
    let batches = client.get("/v1/batches?limit=100").await.ok();
    (files.len(), batches["data"].as_array().expect("a list").len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cuts_off_is_there_or_not_and_can_be_repeated() {
    let stage = Stage::sqlite(&[]).await;
    let mut process = stage.serve(&API).await;
    for creation in CREATIONS {
        for crash in CRASHES {
            process = cut_off(&stage, process, creation, crash).await;
        }
    }
}

/// A server that crashes when it has passed a point so often.
async fn crashing(stage: &Stage, point: &str, passed: u32) -> Process {
    let mut command = stage.command_at("127.0.0.1:0", &API);
    command.env("FAILPOINTS", format!("{point}={passed}*off->1*return(crash)"));
    Process::start(command).await
}

/// Has a server crash in a request, and sends the request again to the next one, which is returned.
async fn cut_off(stage: &Stage, process: Process, (kind, request): Creation, (point, passed): (&str, u32)) -> Process {
    let case = format!("{kind} at {point} after {passed}");
    let client = process.client();
    let (prepared, before) = (prepared(&client).await, kept(&client).await);
    drop(process);
    let crashing = crashing(stage, point, passed).await;
    let send_once = async |client: Client| request(&client, &prepared).header("Idempotency-Key", &case).send().await;

    let first = match send_once(crashing.client()).await {
        Ok(answer) => answer.json::<Value>().await.ok(),
        Err(_) => None,
    };
    drop(crashing);
    let process = stage.serve(&API).await;
    let again = send_once(process.client()).await.expect("the server answers");

    assert_eq!(again.status(), 200, "{case}");
    let again: Value = again.json().await.expect("an object");
    let (files, batches) = kept(&process.client()).await;
    let made = (files - before.0, batches - before.1);
    if kind == MESSAGE_BATCH {
        assert!([(1, 1), (2, 2)].contains(&made), "each has its file, and no file is left alone: {made:?}, {case}");
        return process;
    }
    if let Some(first) = first {
        assert_eq!(first["id"], again["id"], "{case}");
    }
    let is_batch = kind.starts_with("batch of");
    let is_file = kind == "batch of rows" || kind == "file" || kind == "completion";
    assert_eq!(made, (usize::from(is_file), usize::from(is_batch)), "{case}");
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cuts_off_is_changed_or_not_and_can_be_repeated() {
    let stage = Stage::sqlite(&[]).await;
    let mut process = stage.serve(&API).await;
    for change in CHANGES {
        for point in CRASHES_OF_CHANGES {
            process = change_cut_off(&stage, process, &change, point).await;
        }
    }
}

/// Has a server crash in a change, and sends the request again to the next one, which is returned.
async fn change_cut_off(stage: &Stage, process: Process, change: &Change, point: &str) -> Process {
    let client = process.client();
    let prepared = prepared(&client).await;
    let (_, create) = CREATIONS.iter().find(|(kind, _)| *kind == MESSAGE_BATCH).expect("it is among them");
    let message_batch = send(create(&client, &prepared)).await.ok();
    let Prepared { file, upload, .. } = prepared;
    let (batch, paused) = (client.create_batch(&file).await, client.create_batch(&file).await);
    client.post(&format!("/v1/batches/{paused}/pause"), &json!({})).await.ok();
    let ids = [
        ("{batch}", &*batch),
        ("{paused}", &*paused),
        ("{message_batch}", text(&message_batch["id"])),
        ("{upload}", &*upload),
    ];
    let with_ids = |path: &str| ids.iter().fold(path.to_owned(), |path, (name, id)| path.replace(name, id));
    let (path, seen_at, before) = (with_ids(change.path), with_ids(change.seen_at), kept(&client).await);
    let case = format!("{} at {point}", change.path);
    drop(process);
    let crashing = crashing(stage, point, 0).await;

    let first = crashing.client().request(Method::POST, &path).json(&json!({})).send().await;

    assert!(first.is_err(), "it crashes: {case}");
    drop(crashing);
    let process = stage.serve(&API).await;
    let client = process.client();
    let [old, new] = change.states;
    if !seen_at.is_empty() {
        let state = client.get(&seen_at).await.ok();
        let state = text(state.pointer(change.pointer).expect("it has a state"));
        assert!(if point == "commit.answered" { state == new } else { [old, new].contains(&state) }, "{state}: {case}");
    }
    let again = client.post(&path, &json!({})).await;
    if seen_at.is_empty() {
        let is_cancelled = again.status == 200 || again.text().contains(new);
        assert!(is_cancelled, "{case}: {again:?}");
    } else {
        assert_eq!(again.status, 200, "{case}");
        assert_eq!(text(client.get(&seen_at).await.ok().pointer(change.pointer).expect("a state")), new, "{case}");
    }
    assert_eq!(kept(&client).await, before, "nothing else is changed: {case}");
    process
}
