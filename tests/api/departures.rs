//! Clients that leave once they have sent their request, before its answer: what they asked for is done whole.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::common::raw_http::{form, usual_parts};
use crate::common::test_app::TestApp;

const CLIENTS: usize = 8;

/// The calls that store bytes: a content type, a path, a body, and how many blobs stay.
fn calls(upload: &str) -> [(&'static str, String, Vec<u8>, usize); 4] {
    let content = "x".repeat(1000);
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": content }], "max_tokens": 9 });
    let requests: Vec<_> = (0..1000).map(|_| json!({ "body": body })).collect();
    let of_rows = json!({ "endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": requests });
    let messages: Vec<_> = (0..1000).map(|row| json!({ "custom_id": format!("{row}"), "params": body })).collect();
    let (json, form_of) = ("application/json", "multipart/form-data; boundary=b");
    let data = vec![7; 1 << 20];
    let part = [("Content-Disposition: form-data; name=\"data\"; filename=\"a\"", &data[..])];
    [
        (form_of, "/v1/files".to_owned(), form("b", &usual_parts(rows(5000).as_bytes())), 2),
        (json, "/v1/batches".to_owned(), of_rows.to_string().into(), 2),
        (json, "/v1/messages/batches".to_owned(), json!({ "requests": messages }).to_string().into(), 2),
        (form_of, format!("/v1/uploads/{upload}/parts"), form("b", &part), 1),
    ]
}

#[tokio::test]
async fn a_request_that_came_whole_is_done_although_its_client_has_left() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let new = json!({ "filename": "a.bin", "purpose": "user_data", "bytes": 64 << 20, "mime_type": "text/plain" });
    let upload = app.post("/v1/uploads", &new).await.ok()["id"].as_str().expect("an id").to_owned();

    for (content_type, path, body, blobs) in calls(&upload) {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        let expected = app.blobs().len() + blobs * CLIENTS;

        for client in 0..CLIENTS {
            let mut connection = TcpStream::connect(app.address).await.expect("the server listens");
            connection.write_all(&request).await.expect("the server reads");
            tokio::time::sleep(Duration::from_millis(10 * client as u64)).await;
        }

        until(&format!("{path}: {expected} blobs"), || app.blobs().len() == expected).await;
    }
    let files = app.get("/v1/files?limit=100").await.ok()["data"].as_array().expect("a list").len();
    assert_eq!(files, 3 * CLIENTS, "the uploads, and the input file of each batch");
}
