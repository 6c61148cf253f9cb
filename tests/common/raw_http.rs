//! Requests written by hand, for what no HTTP library would send.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer as it came.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub text: String,
}

impl RawAnswer {
    /// The JSON body, which must not be chunked.
    pub fn json(&self) -> Value {
        let (_, body) = self.text.split_once("\r\n\r\n").expect("an answer has a head");
        serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }
}

/// One part of a form: its headers, without the last line end, and its bytes.
pub type Part<'a> = (&'a str, &'a [u8]);

/// The parts every upload has, for a file with these bytes.
pub fn usual_parts(file: &[u8]) -> [Part<'_>; 2] {
    [
        ("Content-Disposition: form-data; name=\"purpose\"", b"batch"),
        ("Content-Disposition: form-data; name=\"file\"; filename=\"input.jsonl\"", file),
    ]
}

/// A form's body.
pub fn form(boundary: &str, parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (headers, bytes) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n{headers}\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

/// The head of an upload. `framing` is the header that says how long the body is.
pub fn upload_head(content_type: &str, framing: &str) -> Vec<u8> {
    format!(
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\n{framing}\r\n\r\n"
    )
    .into_bytes()
}

/// Uploads a form with a `Content-Length`.
pub async fn upload(address: SocketAddr, content_type: &str, body: &[u8]) -> RawAnswer {
    let mut request = upload_head(content_type, &format!("Content-Length: {}", body.len()));
    request.extend_from_slice(body);
    exchange(address, &request).await
}

/// Sends a request that says `Connection: close`, and reads the answer.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> RawAnswer {
    let mut connection = TcpStream::connect(address).await.expect("the server listens");
    connection.write_all(request).await.expect("the server reads");
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).await.expect("the server answers");
    let text = String::from_utf8(bytes).expect("the answer is UTF-8");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    RawAnswer { status: status.unwrap_or_else(|| panic!("not an answer: {text:?}")), text }
}

/// Opens a connection and sends something that may not be a whole request.
pub async fn open(address: SocketAddr, sent: impl AsRef<[u8]>) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.expect("the server listens");
    connection.write_all(sent.as_ref()).await.expect("the server reads");
    connection
}

/// The head of a request without a body, for a connection that stays open.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// An upload whose file has begun and goes on for 10 MB.
pub fn begun_upload() -> Vec<u8> {
    let mut request = upload_head("multipart/form-data; boundary=b", "Content-Length: 10000000");
    let whole = form("b", &usual_parts(&[b'\n'; 100]));
    request.extend_from_slice(&whole[..whole.len() - 50]);
    request
}

/// What still comes on a connection until its end.
pub async fn rest_of(mut connection: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is reset has ended as well.
    let _ = connection.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Cuts a body into chunks of `size` bytes.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body.chunks(size) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks
}
