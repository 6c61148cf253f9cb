//! The cases of `requests.jsonl` and `lines.jsonl`.
//!
//! In the texts of both, `{{xFF}}` is a byte, `{{a*9}}` is the text before the star nine times, `{{file}}` and
//! `{{batch}}` are the ids of the objects of a [`Stage`], and a line end is CRLF where it is written so.
//!
//! | member of a request | meaning |
//! |---|---|
//! | `name` | what it is about |
//! | `send` | all bytes, or else the next four |
//! | `method`, `path` | the request line |
//! | `headers` | header lines; `Host`, `Connection: close` and the `Content-Length` of a body are added |
//! | `body` | the body |
//! | `ends` | whether the client stops sending behind it, so that no more can come |
//! | `status` | the status of the answer; null: the connection closes without one |
//! | `code`, `param` | those of the error in the envelope |
//! | `has` | what the text of the answer contains |
//!
//! There is exactly one answer. A line has `name`, `line`, `code` and `param`.

use serde::Deserialize;
use serde_json::Value;

use crate::common::builders::rows;
use crate::common::test_app::TestApp;

/// What is there before.
pub struct Stage {
    pub file: String,
    pub batch: String,
}

impl Stage {
    pub async fn on(app: &TestApp) -> Self {
        let file = app.upload(rows(3)).await;
        let batch = app.create_batch(&file).await;
        app.wait_for(&batch, "completed").await;
        Self { file, batch }
    }
}

/// A request, and its answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostileRequest {
    pub name: String,
    send: Option<String>,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: Vec<String>,
    body: Option<String>,
    #[serde(default)]
    pub ends: bool,
    status: Option<u16>,
    code: Option<String>,
    param: Option<String>,
    has: Option<String>,
}

/// A line of an input file, and its error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostileLine {
    pub name: String,
    line: String,
    pub code: String,
    pub param: Option<String>,
}

pub fn requests() -> Vec<HostileRequest> {
    read(include_str!("requests.jsonl"))
}

pub fn lines() -> Vec<HostileLine> {
    read(include_str!("lines.jsonl"))
}

fn read<T: for<'a> Deserialize<'a>>(file: &str) -> Vec<T> {
    file.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

impl HostileRequest {
    pub fn bytes(&self, stage: &Stage) -> Vec<u8> {
        if let Some(send) = &self.send {
            return spelled(send, Some(stage));
        }
        let [method, path] = [&self.method, &self.path].map(|text| text.as_deref().expect("it has one"));
        let mut bytes = spelled(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n"), Some(stage));
        bytes.extend_from_slice(b"Connection: close\r\n");
        for header in &self.headers {
            bytes.extend([&*spelled(header, Some(stage)), b"\r\n"].concat());
        }
        let body = self.body.as_ref().map(|body| spelled(body, Some(stage)));
        if let Some(body) = &body {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        [bytes, b"\r\n".to_vec(), body.unwrap_or_default()].concat()
    }

    /// How an answer differs from what is expected.
    pub fn differs(&self, answer: &str) -> Option<String> {
        let statuses: Vec<u16> = answer
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|answer| answer.get(..3).and_then(|status| status.parse().ok()).unwrap_or_default())
            .collect();
        let expected: Vec<u16> = self.status.into_iter().collect();
        if statuses != expected {
            return Some(format!("answered {statuses:?} instead of {expected:?}"));
        }
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let error = serde_json::from_str::<Value>(body).unwrap_or_default()["error"].clone();
        let is_bare = self.status.is_none_or(|status| status < 400);
        if !is_bare && error["message"].as_str().is_none_or(str::is_empty) {
            return Some("it has no message in the envelope".to_owned());
        }
        let stated = (error["code"].as_str(), error["param"].as_str());
        let expected = (self.code.as_deref(), self.param.as_deref());
        if stated != expected {
            return Some(format!("it states {stated:?} instead of {expected:?}"));
        }
        let has = self.has.as_deref().unwrap_or_default();
        (!answer.contains(has)).then(|| format!("it lacks {has:?}"))
    }
}

impl HostileLine {
    pub fn bytes(&self) -> Vec<u8> {
        spelled(&self.line, None)
    }
}

/// The bytes that a text stands for.
fn spelled(text: &str, stage: Option<&Stage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (mark, after) = after.split_once("}}").unwrap_or_else(|| panic!("no end of a mark in {text:?}"));
        bytes.extend_from_slice(before.as_bytes());
        bytes.extend(marked(mark, stage).unwrap_or_else(|| panic!("{mark:?} is no mark")));
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn marked(mark: &str, stage: Option<&Stage>) -> Option<Vec<u8>> {
    match mark {
        "file" => return Some(stage?.file.clone().into_bytes()),
        "batch" => return Some(stage?.batch.clone().into_bytes()),
        _ => {}
    }
    if let Some((text, times)) = mark.rsplit_once('*') {
        return Some(text.repeat(times.parse().ok()?).into_bytes());
    }
    let byte = u8::from_str_radix(mark.strip_prefix('x')?, 16).ok()?;
    Some(vec![byte])
}
