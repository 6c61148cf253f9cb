//! No answer is a page for a browser, and nobody but its reader keeps it.

use reqwest::multipart::{Form, Part};

use crate::common::client::{Answer, send, text};
use crate::common::test_app::TestApp;

fn headers<'a>(answer: &'a Answer, names: &[&str]) -> Vec<&'a str> {
    names.iter().map(|name| answer.header(name)).collect()
}

#[tokio::test]
async fn every_answer_forbids_guessing_and_keeping() {
    let app = TestApp::start().await;
    for (path, status) in [
        ("/v1/files", 200),
        ("/v1/batches/batch_00000000000000000000000000000000", 404),
        ("/nowhere", 404),
        ("/healthz", 200),
    ] {
        let answer = app.get(path).await;

        let names = ["x-content-type-options", "cross-origin-resource-policy", "cache-control"];
        assert_eq!((answer.status, headers(&answer, &names)), (status, vec!["nosniff", "same-origin", "no-store"]));
        assert_eq!(answer.header("strict-transport-security"), "", "there is no TLS");
    }
}

#[tokio::test]
async fn an_uploaded_page_is_downloaded_and_never_shown() {
    let app = TestApp::start().await;
    let page = Part::bytes(b"<script>alert(1)</script>".to_vec()).file_name("page.html").mime_str("text/html");
    let form = Form::new().text("purpose", "user_data").part("file", page.expect("a type"));
    let file = app.upload_form(form).await.ok();
    let path = format!("/v1/files/{}/content", text(&file["id"]));

    let answer = app.get(&path).await;

    let names = ["content-type", "x-content-type-options", "content-disposition", "cache-control"];
    let expected = ["application/octet-stream", "nosniff", "attachment; filename=\"page.html\"", "private, no-cache"];
    assert_eq!(headers(&answer, &names), expected);
    let known = app.request(reqwest::Method::GET, &path).header("if-none-match", answer.header("etag"));
    let known = send(known).await;
    let names = ["etag", "cache-control", "x-content-type-options"];
    assert_eq!(
        (known.status, headers(&known, &names)),
        (304, vec![answer.header("etag"), "private, no-cache", "nosniff"])
    );
}
