//! Who is answered, and the headers that every answer has.

use reqwest::{Method, RequestBuilder};

use crate::common::builders::rows;
use crate::common::client::Answer;
use crate::common::test_app::TestApp;

pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, bytes: response.bytes().await.expect("whole").into() }
}

#[tokio::test]
async fn every_answer_forbids_what_pages_do_not_need() {
    let app = TestApp::start().await;
    let style =
        app.get("/dashboard").await.text().split('"').find(|part| part.ends_with("style.css")).map(str::to_owned);
    let style = style.expect("pages have a style");
    let foreign = app.request(Method::GET, "/dashboard").header("host", "evil.example");
    let answers = [
        (app.get("/dashboard").await, 200),
        (app.get("/dashboard/").await, 200),
        (app.get(&style).await, 200),
        (app.get("/dashboard/none").await, 404),
        (app.get("/dashboard/batches/none").await, 404),
        (app.delete("/dashboard/batches").await, 404),
        (send(foreign).await, 403),
    ];
    for (answer, status) in answers {
        assert_eq!(answer.status, status, "{}", answer.text());
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!((header("x-content-type-options"), header("referrer-policy")), ("nosniff", "no-referrer"));
    }
}

#[tokio::test]
async fn another_name_than_that_of_this_machine_gets_neither_pages_nor_the_api() {
    let app = TestApp::start().await;
    for host in ["evil.example", "evil.example:8080", "10.0.0.1", "localhost.evil.example"] {
        let refused = send(app.request(Method::GET, "/dashboard").header("host", host)).await;
        assert_eq!(refused.status, 403, "{host}");
        assert!(refused.text().contains("127.0.0.1"), "it says what to do: {}", refused.text());

        assert_eq!(send(app.request(Method::GET, "/v1/batches").header("host", host)).await.status, 403, "{host}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let app = TestApp::with(&["--role", "api"]).await;
    let id = app.submit(rows(3)).await;
    let cancel = || app.request(Method::POST, &format!("/dashboard/batches/{id}/cancel"));
    let foreign = [
        cancel().header("sec-fetch-site", "cross-site"),
        cancel().header("sec-fetch-site", "same-site"),
        cancel().header("origin", "http://evil.example"),
        cancel().header("origin", "null"),
    ];
    for request in foreign {
        assert_eq!(send(request).await.status, 403);
    }
    assert_eq!(app.batch(&id).await["status"], "validating");

    let own = cancel().header("sec-fetch-site", "same-origin").header("origin", format!("http://{}", app.address));
    assert_eq!(send(own).await.status, 200, "it leads to the page of the batch");
    assert_eq!(app.batch(&id).await["status"], "cancelling");
}

#[tokio::test]
async fn a_worker_has_no_dashboard() {
    let app = TestApp::with(&["--role", "worker"]).await;

    assert_eq!(app.get("/dashboard").await.status, 404);
}
