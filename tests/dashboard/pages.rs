//! What pages have in them.

use reqwest::Method;
use serde_json::json;

use crate::common::builders::{file, line, rows};
use crate::common::eventually::eventually;
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

#[tokio::test]
async fn what_is_not_there_is_a_page_that_says_so() {
    let app = TestApp::start().await;
    let id = app.submit(rows(1)).await;
    let none = "batch_00000000000000000000000000000000";
    let paths = [
        format!("/dashboard/batches/{none}"),
        format!("/dashboard/batches/{none}/rows?custom_id=a"),
        format!("/dashboard/batches/{id}/rows?custom_id=none"),
        format!("/dashboard/batches/{id}/rows/none"),
        format!("/dashboard/batches/{id}/text?custom_id=row-0&part=none"),
        "/dashboard/batches?status=none".to_owned(),
        "/dashboard/batches?after=none".to_owned(),
        "/dashboard/submit/file-none".to_owned(),
        "/dashboard/assets/style.css".to_owned(),
        "/dashboard/assets/0000000000000000-style.css".to_owned(),
    ];
    for path in paths {
        let answer = app.get(&path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("<h1>404 Not Found</h1>"), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_page_that_is_as_it_was_is_not_sent_again() {
    let app = TestApp::start().await;
    let id = app.submit(rows(2)).await;
    app.wait_for(&id, "completed").await;
    for path in ["/dashboard/batches".to_owned(), format!("/dashboard/batches/{id}"), "/dashboard/submit".to_owned()] {
        let first = app.get(&path).await;
        let tag = first.headers["etag"].clone();
        assert_eq!(first.headers["cache-control"], "private, no-cache", "{path}");

        let again =
            app.request(Method::GET, &path).header("if-none-match", tag.clone()).send().await.expect("an answer");
        assert_eq!((again.status().as_u16(), &again.headers()["etag"]), (304, &tag), "{path}");
        assert!(again.bytes().await.expect("whole").is_empty());

        app.submit(rows(1)).await;
        let list = app.request(Method::GET, "/dashboard/batches").header("if-none-match", tag).send().await;
        assert_eq!(list.expect("an answer").status(), 200, "another batch is another page");
    }
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_names_of_their_bytes() {
    let app = TestApp::start().await;
    let id = app.submit(rows(1)).await;
    let page = app.get(&format!("/dashboard/batches/{id}")).await.text();
    let urls: Vec<&str> = page.split('"').filter(|part| part.starts_with("/dashboard/assets/")).collect();
    assert_eq!(urls.len(), 5, "{urls:?}");
    for url in urls {
        let asset = app.get(url).await;
        assert_eq!(asset.status, 200, "{url}");
        assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable", "{url}");
        let kind = match url.rsplit('.').next() {
            Some("css") => "text/css; charset=utf-8",
            _ => "text/javascript; charset=utf-8",
        };
        assert_eq!(asset.headers["content-type"], kind, "{url}");
    }
}

#[tokio::test]
async fn no_page_has_a_script_or_a_style_within() {
    let app = TestApp::start().await;
    let id = app.submit(rows(1)).await;
    app.wait_for(&id, "completed").await;
    let paths = [
        "",
        "/batches",
        "/upstreams",
        "/submit",
        "/none",
        &format!("/batches/{id}"),
        &format!("/batches/{id}/rows/row-0"),
    ];
    for path in paths {
        let html = app.get(&format!("/dashboard{path}")).await.text().to_lowercase();
        assert!(!html.contains("<script>") && !html.contains("<style") && !html.contains(" style="), "{path}");
        assert!(!html.contains(" onclick") && !html.contains("http://") && !html.contains("https://"), "{path}");
    }
}

#[tokio::test]
async fn hostile_texts_are_escaped() {
    const HOSTILE: &str = "<img src=x onerror=alert(1)>&\\\"'";
    let app = TestApp::with(&["--max-retries", "0"]).await;
    app.upstream.reply(|_| {
        let error = json!({ "error": { "message": "<script>alert(1)</script>", "code": "<b>" } });
        Reply::new(400, error.to_string())
    });
    let file_id = app.upload(file([line(HOSTILE)])).await;
    let body = json!({
        "input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": { "<i>key</i>": "<script>alert(2)</script>" }
    });
    let id = app.post("/v1/batches", &body).await.ok()["id"].as_str().expect("an id").to_owned();
    app.wait_for(&id, "completed").await;

    let page = app.get(&format!("/dashboard/batches/{id}")).await.text();
    let url = page.split('"').find(|part| part.contains("/rows?custom_id=")).expect("a link to the sample");
    let row = app.get(url).await;

    assert_eq!(row.status, 200, "{url}");
    for html in [page.clone(), row.text()] {
        for tag in ["<img", "<script>", "<b>", "<i>"] {
            assert!(!html.contains(tag), "{tag}: {html}");
        }
    }
    assert!(page.contains("&#60;i&#62;key&#60;/i&#62;"), "{page}");
}

#[tokio::test]
async fn a_batch_is_cancelled_as_often_as_it_is_asked_and_never_once_it_has_completed() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(5)).await;
    app.wait_for_status(&id, "in_progress").await;
    let cancel = |id: &str| app.request(Method::POST, &format!("/dashboard/batches/{id}/cancel"));
    for _ in 0..2 {
        assert_eq!(cancel(&id).send().await.expect("an answer").status(), 200);
    }
    app.upstream.release();
    app.wait_for(&id, "cancelled").await;
    assert_eq!(cancel(&id).send().await.expect("an answer").status(), 200);

    app.upstream.reply(|_| Reply::ok());
    let id = app.submit(rows(1)).await;
    app.wait_for(&id, "completed").await;
    assert_eq!(cancel(&id).send().await.expect("an answer").status(), 409);
}

#[tokio::test]
async fn the_overview_tells_of_models_and_their_last_minutes() {
    let app = TestApp::start().await;
    let id = app.submit(rows(20)).await;
    app.wait_for(&id, "completed").await;

    // The point of the course in which the rows were recorded is over within 5 s, and told with the next heartbeat.
    let page = eventually("a course", async || {
        let page = app.get("/dashboard").await.text();
        let has_rows = page.contains(" in 5 seconds") && !page.contains("at most 0 in 5 seconds");
        has_rows.then_some(page)
    })
    .await;
    assert!(page.contains("<polyline points="), "{page}");

    let upstreams = app.get("/dashboard/upstreams").await.text();
    assert!(upstreams.contains("alive") && upstreams.contains("In flight"), "{upstreams}");
}

#[tokio::test]
async fn an_upstream_in_trouble_is_named_on_the_overview_and_with_its_last_error() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::new(401, r#"{"error":{"message":"<script>alert(1)</script>"}}"#));
    app.submit(rows(5)).await;
    for path in ["/dashboard", "/dashboard/upstreams"] {
        let page = eventually("trouble", async || {
            let page = app.get(path).await.text();
            page.contains("status down").then_some(page)
        });
        let page = page.await;
        assert!(page.contains("401") && !page.contains("<script>"), "{path}: {page}");
    }
}

#[tokio::test]
async fn a_file_is_checked_for_the_endpoint_that_is_chosen() {
    let app = TestApp::with(&["--role", "api"]).await;
    let file_id = app.upload(rows(2)).await;

    let fits = app.get(&format!("/dashboard/submit/{file_id}")).await.text();
    let other = app.get(&format!("/dashboard/submit/{file_id}?endpoint=/v1/embeddings")).await.text();

    assert!(fits.contains("The file is in order"), "{fits}");
    assert!(other.contains("cannot be run"), "{other}");
}
