//! Visitors with a key: how they come in, what they see, and how it ends.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::access::send;
use crate::common::builders::{file, line, rows};
use crate::common::client::{Answer, Client};
use crate::common::eventually::{eventually, within};
use crate::common::fake_upstream::Reply;
use crate::common::keys::Key;
use crate::common::test_app::TestApp;

/// A request with a form, as browsers send it.
fn with_form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

/// A browser that follows no redirect and keeps one cookie.
struct Visitor {
    http: reqwest::Client,
    base_url: String,
    cookie: String,
}

impl Visitor {
    fn of(app: &TestApp) -> Self {
        let http = reqwest::ClientBuilder::new().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let http = http.expect("a client without settings can be built");
        Self { http, base_url: app.base_url.clone(), cookie: String::new() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base_url)).header("cookie", &self.cookie)
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        send(with_form(self.request(Method::POST, path), form)).await
    }

    /// Signs in, and is on the page that comes next.
    async fn sign_in(&mut self, key: &str) -> Answer {
        let answer = self.post("/dashboard/sign-in", &[("key", key), ("next", "/dashboard/batches")]).await;
        let cookie = answer.header("set-cookie");
        cookie.split(';').next().unwrap_or_default().clone_into(&mut self.cookie);
        answer
    }
}

/// A service with a key of `team-a`, and a visitor who is signed in with it.
async fn signed_in(app: &TestApp, scopes: &str) -> (Key, Client, Visitor) {
    let key = Key::create(app.data(), "team-a", scopes).await;
    app.calls_need_a_key().await;
    let mut visitor = Visitor::of(app);
    assert_eq!(visitor.sign_in(&key.secret).await.status, 303);
    let client = key.client(&app.base_url);
    (key, client, visitor)
}

#[tokio::test]
async fn a_visitor_without_a_session_is_led_to_the_sign_in() {
    let app = TestApp::start().await;
    let (.., visitor) = signed_in(&app, "write").await;
    let stranger = Visitor::of(&app);

    for path in ["/dashboard", "/dashboard/", "/dashboard/batches?status=active", "/dashboard/files/file-1/content"] {
        let answer = stranger.get(path).await;
        let to = answer.header("location").to_owned();
        assert_eq!(answer.status, 303, "{path}");
        assert!(to.starts_with("/dashboard/sign-in?next=%2Fdashboard"), "{path}: {to}");
        let form = stranger.get(&to).await.text();
        assert!(form.contains(&format!("name=\"next\" value=\"{path}\"")), "{path}: {form}");
        assert!(!form.contains("/dashboard/batches\" aria-current"), "it has no navigation");
    }
    let poll = send(stranger.request(Method::GET, "/dashboard").header("hx-request", "true")).await;
    assert_eq!(poll.status, 401, "a script is not led anywhere");
    assert_eq!(stranger.post("/dashboard/batches/batch_1/cancel", &[]).await.status, 401);
    assert_eq!(stranger.post("/dashboard/files", &[]).await.status, 401);

    assert_eq!(visitor.get("/dashboard").await.status, 200);
    let elsewhere = send(visitor.request(Method::GET, "/dashboard").header("host", "batch.example")).await;
    assert_eq!(elsewhere.status, 200, "with a key, any name will do");
    let behind_proxy = send(visitor.request(Method::GET, "/dashboard").header("x-forwarded-for", "10.0.0.7")).await;
    assert_eq!(behind_proxy.status, 200);
}

#[tokio::test]
async fn a_session_is_kept_in_a_cookie_for_the_dashboard_alone() {
    let app = TestApp::start().await;
    let key = Key::create(app.data(), "team-a", "write").await;
    app.calls_need_a_key().await;
    let mut visitor = Visitor::of(&app);

    let wrong = visitor.sign_in("bw-wrong").await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, ""));
    assert!(wrong.text().contains("not accepted") && !wrong.text().contains("bw-wrong"), "{}", wrong.text());
    let right = visitor.sign_in(&key.secret).await;

    assert_eq!((right.status, right.header("location")), (303, "/dashboard/batches"));
    let cookie = right.header("set-cookie");
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/dashboard", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(&key.secret), "{cookie}");
    let by_tls = visitor.request(Method::POST, "/dashboard/sign-in").header("x-forwarded-proto", "https");
    let by_tls = send(with_form(by_tls, &[("key", &key.secret)])).await;
    assert!(by_tls.header("set-cookie").ends_with("; Secure"), "{}", by_tls.header("set-cookie"));
    // The session is no key, and the key is no session.
    let token = visitor.cookie.split_once('=').expect("a name").1;
    let api = send(app.request(Method::GET, "/v1/batches").header("authorization", format!("Bearer {token}"))).await;
    assert_eq!(api.status, 401);
    let by_key =
        send(app.request(Method::GET, "/dashboard").header("cookie", format!("batchwright_session={}", key.secret)));
    assert!(by_key.await.text().contains("<h1>Sign in</h1>"));
}

#[tokio::test]
async fn a_session_ends_with_the_sign_out_and_with_its_key() {
    let app = TestApp::start().await;
    let (key, _, mut visitor) = signed_in(&app, "write").await;
    let out = visitor.get("/dashboard").await.text();
    assert!(out.contains("team-a") && out.contains("action=\"/dashboard/sign-out\""), "{out}");

    let left = visitor.post("/dashboard/sign-out", &[]).await;
    assert_eq!((left.status, left.header("location")), (303, "/dashboard/sign-in"));
    assert!(left.header("set-cookie").contains("Max-Age=0"), "{}", left.header("set-cookie"));
    assert_eq!(visitor.get("/dashboard").await.status, 303, "the old cookie is of no use");

    visitor.sign_in(&key.secret).await;
    assert_eq!(visitor.get("/dashboard").await.status, 200);
    key.revoke(app.data()).await;
    assert_eq!(visitor.get("/dashboard").await.status, 303, "at once");
    let refused = async || (visitor.sign_in(&key.secret).await.status == 401).then_some(());
    within(Duration::from_secs(2), "the key to be refused", refused).await;
}

#[tokio::test]
async fn a_page_of_another_site_signs_nobody_in_or_out() {
    let app = TestApp::start().await;
    let (key, _, visitor) = signed_in(&app, "write").await;
    for path in ["/dashboard/sign-in", "/dashboard/sign-out"] {
        let foreign = visitor.request(Method::POST, path).header("sec-fetch-site", "cross-site");
        assert_eq!(send(with_form(foreign, &[("key", &key.secret)])).await.status, 403, "{path}");
    }
    assert_eq!(visitor.get("/dashboard").await.status, 200);
}

#[tokio::test]
async fn a_visitor_sees_the_project_of_the_key_and_no_other() {
    let app = TestApp::start().await;
    let theirs = app.submit(file([line("theirs").model("their-model")])).await;
    app.wait_for(&theirs, "completed").await;
    let their_batch = app.batch(&theirs).await;
    let their_input = their_batch["input_file_id"].as_str().expect("an id").to_owned();
    let (_, client, visitor) = signed_in(&app, "write").await;
    let own = client.submit(rows(1)).await;
    client.wait_for(&own, "completed").await;

    for path in ["/dashboard", "/dashboard/batches"] {
        let text = visitor.get(path).await.text();
        assert!(!text.contains(&theirs) && !text.contains("their-model"), "{path}: {text}");
    }
    assert!(visitor.get("/dashboard/batches").await.text().contains(&own));
    let paths = [
        format!("/dashboard/batches/{theirs}"),
        format!("/dashboard/batches/{theirs}/rows?custom_id=theirs"),
        format!("/dashboard/batches/{theirs}/rows/theirs"),
        format!("/dashboard/batches/{theirs}/text?custom_id=theirs&part=request"),
        format!("/dashboard/submit/{their_input}"),
        format!("/dashboard/files/{their_input}/content"),
    ];
    for path in paths {
        assert_eq!(visitor.get(&path).await.status, 404, "{path}");
    }
    for action in ["cancel", "pause", "resume", "retry"] {
        let path = format!("/dashboard/batches/{theirs}/{action}");
        assert_eq!(visitor.post(&path, &[]).await.status, 404, "{path}");
    }
    let own_batch = client.batch(&own).await;
    let output = own_batch["output_file_id"].as_str().expect("an id");
    let page = visitor.get(&format!("/dashboard/batches/{own}")).await.text();
    let download = format!("/dashboard/files/{output}/content");
    assert!(page.contains(&download), "{page}");
    assert!(visitor.get(&download).await.text().contains("row-0"));
}

#[tokio::test]
async fn a_key_that_may_only_read_has_no_actions_and_changes_nothing() {
    let app = TestApp::with(&["--role", "api"]).await;
    let (_, writer, of_writer) = signed_in(&app, "write").await;
    let (_, _, reader) = signed_in(&app, "read").await;
    let id = writer.submit(rows(2)).await;
    let path = format!("/dashboard/batches/{id}");

    let page = reader.get(&path).await.text();
    for part in ["data-dialog", "<dialog", "/cancel", "href=\"/dashboard/submit\"", "href=\"/dashboard/upstreams\""] {
        assert!(!page.contains(part), "{part}: {page}");
    }
    for path in [format!("{path}/cancel"), format!("{path}/pause"), "/dashboard/files".to_owned()] {
        assert_eq!(reader.post(&path, &[]).await.status, 403, "{path}");
    }
    assert_eq!(reader.get("/dashboard/submit").await.status, 403);
    assert_eq!(writer.batch(&id).await["status"], "validating");

    let page = of_writer.get(&path).await.text();
    assert!(page.contains("data-dialog=\"cancel\"") && page.contains("href=\"/dashboard/submit\""), "{page}");
    assert_eq!(of_writer.post(&format!("{path}/cancel"), &[]).await.status, 303);
    assert_eq!(writer.batch(&id).await["status"], "cancelling");
}

#[tokio::test]
async fn what_concerns_all_projects_is_for_operators() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let theirs = app.submit(file([line("theirs").model("their-model")])).await;
    app.wait_for_status(&theirs, "in_progress").await;
    let (_, _, member) = signed_in(&app, "write").await;
    let (_, _, operator) = signed_in(&app, "admin").await;

    let told = async || operator.get("/dashboard/upstreams").await.text().contains("their-model").then_some(());
    eventually("the model to be told of", told).await;
    assert_eq!(member.get("/dashboard/upstreams").await.status, 403);
    assert!(operator.get("/dashboard").await.text().contains("their-model"));
    let overview = member.get("/dashboard").await.text();
    assert!(!overview.contains("their-model"), "{overview}");
    assert!(overview.contains("<dt>Rows running</dt><dd>0</dd>"), "{overview}");
}

#[tokio::test]
async fn a_file_that_is_uploaded_in_the_browser_is_the_projects_own() {
    let app = TestApp::start().await;
    let (_, client, visitor) = signed_in(&app, "write").await;
    let part = reqwest::multipart::Part::text(rows(2)).file_name("in.jsonl");
    let form = reqwest::multipart::Form::new().text("purpose", "batch").part("file", part);

    let uploaded = send(visitor.request(Method::POST, "/dashboard/files").multipart(form)).await.ok();
    let id = uploaded["id"].as_str().expect("an id");
    let fields = [("endpoint", "/v1/chat/completions"), ("completion_window", "24h"), ("key", "once")];
    let created = visitor.post(&format!("/dashboard/submit/{id}"), &fields).await;

    assert_eq!(created.status, 303, "{}", created.text());
    let batch = created.header("location").rsplit('/').next().expect("an id").to_owned();
    client.wait_for(&batch, "completed").await;
    assert_eq!(client.get(&format!("/v1/files/{id}")).await.ok()["purpose"], json!("batch"));
}
