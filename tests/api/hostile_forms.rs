//! Forms that are made to cost something: each meets a bound, and holds next to no memory.

use std::net::SocketAddr;

use futures::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::process::Process;
use crate::common::raw_http::{begun_upload, chunked, exchange, form, open, upload, upload_head, usual_parts};
use crate::common::test_app::TestApp;

const FORM: &str = "multipart/form-data; boundary=b";
const OTHER: &str = "Content-Disposition: form-data; name=\"other\"";

/// What is large, the form with its content type, and what the refusal says, if it is too large.
type Case = (&'static str, (String, Vec<u8>), Option<&'static str>);

/// A server of its own, whose memory is measured.
async fn server(directory: &TempDir) -> Process {
    let data = directory.path().to_str().expect("a printable path");
    Process::serve(&["--role", "api", "--upstream", "http://127.0.0.1:9/v1", "--data-dir", data]).await
}

fn forms() -> [Case; 17] {
    let input = rows(1);
    let usual = usual_parts(input.as_bytes());
    let padded = |headers: &str, length: usize| format!("{headers}\r\nX-Padding: {}", "x".repeat(length));
    let with = |part: (&str, &[u8])| form("b", &[part, usual[0], usual[1]]);
    let preamble = |length: usize| [&vec![b'x'; length], &b"\r\n"[..], &form("b", &usual)].concat();
    let many = |count: usize| form("b", &[vec![(OTHER, &b""[..]); count], usual.to_vec()].concat());
    let after = |length: usize| [form("b", &usual), vec![b'x'; length]].concat();
    let long_boundary = |length: usize| {
        let boundary = "b".repeat(length);
        (format!("multipart/form-data; boundary={boundary}"), form(&boundary, &usual))
    };
    [
        ("preamble", (FORM.into(), preamble(50_000)), None),
        ("preamble", (FORM.into(), preamble(300_000)), Some("no part within 64 KiB")),
        ("no boundary at all", (FORM.into(), vec![b'x'; 1 << 20]), Some("no part within 64 KiB")),
        ("only line ends", (FORM.into(), b"\r\n".repeat(1 << 19)), Some("no part within 64 KiB")),
        ("header of a part", (FORM.into(), with((&padded(OTHER, 50_000), b""))), None),
        ("header of a part", (FORM.into(), with((&padded(OTHER, 300_000), b""))), Some("no part within 64 KiB")),
        (
            "header of the file",
            (FORM.into(), form("b", &[usual[0], (&padded(usual[1].0, 300_000), b"x")])),
            Some("no part within 64 KiB"),
        ),
        (
            "padding of a boundary",
            (FORM.into(), [b"--b", &b" ".repeat(300_000)[..]].concat()),
            Some("no part within 64 KiB"),
        ),
        ("parts", (FORM.into(), many(98)), None),
        ("parts", (FORM.into(), many(99)), Some("too many parts: it may have 100")),
        ("part that is ignored", (FORM.into(), with((OTHER, &vec![b'x'; 1 << 20]))), None),
        (
            "part that is ignored",
            (FORM.into(), with((OTHER, &vec![b'x'; (1 << 20) + 1]))),
            Some("may have 1 MiB together"),
        ),
        (
            "purpose",
            (FORM.into(), with((usual[0].0, &vec![b'x'; 5_000]))),
            Some("\\\"purpose\\\" exceeded the size limit: 4096 bytes"),
        ),
        ("boundary", long_boundary(200), None),
        ("boundary", long_boundary(201), Some("may have 200 characters")),
        (
            "file",
            (FORM.into(), form("b", &[usual[0], (usual[1].0, &vec![b'\n'; (3 << 20) + 1])])),
            Some("File is too large."),
        ),
        ("what stands behind the form", (FORM.into(), after(1 << 20)), None),
    ]
}

#[tokio::test]
async fn a_form_beyond_its_bounds_is_refused_with_the_bound() {
    let app = TestApp::with(&["--max-file-bytes", "3MiB", "--max-batch-bytes", "1MiB"]).await;

    for (what, (content_type, body), refused) in forms() {
        let whole = upload(app.address, &content_type, &body).await;
        let mut request = upload_head(&content_type, "Transfer-Encoding: chunked");
        request.extend(chunked(&body, 10_000));
        let in_chunks = exchange(app.address, &request).await;

        let expected = if refused.is_some() { 400 } else { 200 };
        for answer in [whole, in_chunks] {
            assert_eq!(answer.status, expected, "{what} {answer:?}");
            assert!(answer.text.contains(refused.unwrap_or_default()), "{what} {answer:?}");
        }
    }
}

#[tokio::test]
async fn no_form_is_held_in_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = server(&directory).await;
    let whole = form("b", &usual_parts(b""));
    let heads = [
        &b"x"[..],
        b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\nX-Padding: ",
        b"--b\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\n",
        b"--b",
        &whole,
    ];
    let before = server.peak_memory();

    for head in heads {
        let status = send_for_long(server.address(), head, &vec![b' '; 1 << 16], 2_000).await;

        assert!(matches!(status, 200 | 400), "{status} {:?}", String::from_utf8_lossy(head));
    }

    let grown = server.peak_memory() - before;
    assert!(grown < 40_000, "the peak memory grew by {grown} kB");
}

#[tokio::test]
async fn bytes_that_come_one_by_one_cost_no_more_than_others() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = server(&directory).await;
    let lines = vec![b'\n'; 1 << 20];
    let mut request = upload_head(FORM, "Transfer-Encoding: chunked");
    request.extend(chunked(&form("b", &usual_parts(&lines)), 1));
    let before = server.peak_memory();

    let answer = exchange(server.address(), &request).await;

    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    let grown = server.peak_memory() - before;
    assert!(grown < 30_000, "the peak memory grew by {grown} kB");
}

#[tokio::test]
async fn slow_uploads_stand_in_nobodys_way() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = server(&directory).await;
    let client = server.client();
    let kept = client.upload(rows(3)).await;
    let mut slow = join_all((0..600).map(|_| open(server.address(), begun_upload()))).await;
    until("all of them to be taken in", || unfinished(&directory) == 600).await;
    for connection in &mut slow {
        connection.write_all(b"\n").await.expect("the server reads on");
    }

    assert_eq!(client.content(&kept).await.text(), rows(3));
    let file = client.upload(rows(2)).await;
    assert_eq!(client.content(&file).await.text(), rows(2));

    drop(slow);
    until("what was written to be removed", || unfinished(&directory) == 0).await;
}

#[tokio::test]
async fn the_extended_form_of_a_filename_wins_and_loses_its_directories_too() {
    let app = TestApp::start().await;
    let cases = [
        ("filename=\"a.jsonl\"; filename*=utf-8''b.jsonl", "b.jsonl"),
        ("filename*=utf-8''b.jsonl; filename=\"a.jsonl\"", "b.jsonl"),
        ("filename*=UTF-8'en'%e2%82%ac.jsonl", "€.jsonl"),
        ("filename*=utf-8''dir%2F..%5Cb.jsonl", "b.jsonl"),
        ("filename=\"=?utf-8?B?ZGlyL9GPLmpzb25s?=\"", "я.jsonl"),
        ("filename*=latin1''b.jsonl", "upload"),
        ("filename*=utf-8''%zz", "upload"),
        ("filename*=utf-8''%FF", "upload"),
    ];

    for (sent, kept) in cases {
        let header = format!("Content-Disposition: form-data; name=\"file\"; {sent}");
        let input = rows(1);
        let parts = [usual_parts(b"")[0], (header.as_str(), input.as_bytes())];
        let answer = upload(app.address, FORM, &form("b", &parts)).await;

        assert_eq!(answer.json()["filename"], kept, "{sent}");
    }
}

/// How many blobs are being written.
fn unfinished(directory: &TempDir) -> usize {
    let folders = std::fs::read_dir(directory.path().join("blobs")).expect("there are blobs");
    let folders = folders.map(|folder| folder.expect("it can be read").path()).filter(|path| path.is_dir());
    let names = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    names.filter(|entry| entry.file_name().as_encoded_bytes().contains(&b'#')).count()
}

/// Sends an upload whose body is `head` and then `times` times `more`; the status of the answer. The server may have
/// had enough before the end.
async fn send_for_long(address: SocketAddr, head: &[u8], more: &[u8], times: usize) -> u16 {
    let length = head.len() + more.len() * times;
    let mut connection = open(address, upload_head(FORM, &format!("Content-Length: {length}"))).await;
    let (mut answer, mut body) = connection.split();
    let send = async {
        body.write_all(head).await?;
        for _ in 0..times {
            body.write_all(more).await?;
        }
        std::io::Result::Ok(())
    };
    let mut read = Vec::new();
    let (_, read_to_end) = tokio::join!(send, answer.read_to_end(&mut read));
    read_to_end.expect("the server answers");
    let text = String::from_utf8_lossy(&read).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {text:?}"))
}
