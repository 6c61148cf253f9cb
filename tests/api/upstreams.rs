//! Several inference servers: which gets the calls of a model, under which name, and what happens when one is away.

use std::time::Duration;

use crate::common::builders::{file, line, rows};
use crate::common::eventually::{until, within};
use crate::common::fake_upstream::{Call, FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};
use crate::sharing::rows_of;
use serde_json::{Value, json};

const NO_RETRIES: [&str; 2] = ["--max-retries", "0"];

/// A table of the settings file.
pub fn table(name: &str, upstream: &FakeUpstream, more: &str) -> String {
    format!("[[upstreams]]\nname = '{name}'\nurl = 'http://{}/v1'\n{more}\n", upstream.address)
}

/// The list that a server gives of its models.
pub fn list_of(models: &[&str]) -> Reply {
    let data: Vec<Value> = models.iter().map(|model| json!({ "id": model, "object": "model" })).collect();
    Reply::new(200, json!({ "object": "list", "data": data }).to_string())
}

/// Has a server list these models, and answer everything else.
fn lists(upstream: &FakeUpstream, models: &'static [&'static str]) {
    upstream.reply(move |call| if call.path == "/v1/models" { list_of(models) } else { Reply::ok() });
}

/// The calls of rows that a server had.
pub fn row_calls(upstream: &FakeUpstream) -> Vec<Call> {
    upstream.calls().into_iter().filter(|call| !call.key().is_empty()).collect()
}

pub async fn app_of(tables: &[String], flags: &[&str]) -> TestApp {
    Stopped::new(FakeUpstream::down()).start_with_upstreams(&tables.concat(), flags).await
}

pub async fn warnings(app: &TestApp) -> Vec<String> {
    let ready = app.get("/readyz").await;
    assert_eq!(ready.status, 200, "it is ready all the same");
    let warnings = ready.json()["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_model_goes_to_a_server_that_has_it_and_any_other_to_one_that_takes_all() {
    let (a, b, rest) = (FakeUpstream::start(), FakeUpstream::start(), FakeUpstream::start());
    lists(&b, &["n", "llama:latest"]);
    let tables = [table("a", &a, "models = ['m']"), table("b", &b, ""), table("rest", &rest, "models = '*'")];
    let app = app_of(&tables, &NO_RETRIES).await;
    until("the list of models", || !b.lists().is_empty()).await;

    let models = [rows_of("m", 3), rows_of("n", 3), rows_of("llama", 3), rows_of("unheard-of", 3)].concat();
    // Until the list has come, the rows that it names go to the server that takes all.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let results = app.run(models).await;

    assert_eq!(results.output.len(), 12);
    let names = |upstream: &FakeUpstream| {
        let mut names: Vec<String> = row_calls(upstream).iter().map(model_of).collect();
        names.dedup();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names(&a), ["m"]);
    assert_eq!(names(&b), ["llama", "n"]);
    assert_eq!(names(&rest), ["unheard-of"]);
}

fn model_of(call: &Call) -> String {
    let body: Value = serde_json::from_slice(&call.body).expect("a body");
    body["model"].as_str().expect("a name").to_owned()
}

#[tokio::test]
async fn an_alias_is_another_name_for_a_servers_model_and_nothing_else_of_the_body_changes() {
    let a = FakeUpstream::start();
    lists(&a, &["Qwen/Qwen3"]);
    let app = app_of(&[table("a", &a, "aliases = { gpt-4o-mini = 'Qwen/Qwen3' }")], &NO_RETRIES).await;

    let body = r#"{ "temperature" : 1.10, "model":"gpt-4o-mini","messages":[{"role":"user","content":"gpt-4o-mini"}]}"#;
    let results = app.run(file([line("r").body(body)])).await;

    assert_eq!(results.output.len(), 1);
    let calls = row_calls(&a);
    assert_eq!(calls[0].text(), body.replace(r#""model":"gpt-4o-mini""#, r#""model":"Qwen/Qwen3""#));
    let models = app.get("/v1/models").await.ok();
    for entry in models["data"].as_array().expect("a list") {
        let path = format!("/v1/models/{}", entry["id"].as_str().expect("an id"));
        assert_eq!(app.get(&path).await.ok(), *entry);
    }
    let names: Vec<&Value> = models["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["Qwen/Qwen3", "gpt-4o-mini"]);
}

#[tokio::test]
async fn a_priority_is_written_into_bodies_that_have_none_and_no_other_byte_changes() {
    // The endpoint of a row, its body, and what the server gets in place of the first brace.
    let cases = [
        ("/v1/chat/completions", r#"{ "model":"m","n":1.10,"messages":[]}"#, r#"{"priority":100,"#),
        ("/v1/chat/completions", r#"{"priority":-3,"model":"m","messages":[]}"#, "{"),
        ("/v1/completions", r#"{"model":"m","prompt":"Hi","metadata":{"priority":"1"}}"#, r#"{"priority":100,"#),
        ("/v1/responses", r#"{"model":"m","input":"Hi"}"#, r#"{"priority":100,"#),
        ("/v1/embeddings", r#"{"model":"m","input":"Hi"}"#, "{"),
    ];
    let app = TestApp::with(&["--body-priority", "100", "--max-retries", "0"]).await;
    app.upstream.reply(|_| Reply::new(200, r#"{"output":[],"data":[{}],"choices":[{}]}"#));
    for (endpoint, body, begin) in cases {
        let input = app.upload(line("r").url(endpoint).body(body).to_string()).await;
        let id = app.create_batch_for(&input, endpoint).await;
        app.wait_for(&id, "completed").await;

        let call = row_calls(&app.upstream).pop().expect("a call");
        assert_eq!(call.text(), body.replacen('{', begin, 1), "{endpoint}");
    }
}

#[tokio::test]
async fn a_priority_is_that_of_the_server_in_every_call_of_a_row() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    for upstream in [&a, &b] {
        upstream.reply(|call| Reply::chat(if call.text().contains("assistant") { r#"{"n":1}"# } else { "no" }));
    }
    let of_a = "models = ['Qwen/Qwen3']\naliases = { m = 'Qwen/Qwen3' }\nbody_priority = -5";
    let tables = [table("a", &a, of_a), table("b", &b, "models = ['n']")];
    let app = app_of(&tables, &["--body-priority", "-7", "--ensure-schema", "--upstream-responses", "chat"]).await;
    let format = r#"{"type":"json_schema","name":"n","schema":{"type":"object","required":["n"]}}"#;
    let row = |model: &str| {
        let body = format!(r#"{{"model":"{model}","input":"Hi","text":{{"format":{format}}}}}"#);
        line(model).url("/v1/responses").body(&body)
    };

    let input = app.upload(file([row("m"), row("n")])).await;
    let id = app.create_batch_for(&input, "/v1/responses").await;
    app.wait_for_completed(&id, 2).await;

    for (upstream, model, priority) in [(&a, "Qwen/Qwen3", -5), (&b, "n", -7)] {
        let bodies = row_calls(upstream).into_iter().map(|call| serde_json::from_slice(&call.body).expect("a body"));
        let asked: Vec<Value> = bodies.map(|body: Value| json!([body["model"], body["priority"]])).collect();
        assert_eq!(asked, [json!([model, priority]), json!([model, priority])]);
    }
}

#[tokio::test]
async fn fewer_calls_are_sent_while_the_upstreams_own_metrics_say_that_calls_wait_in_it() {
    let upstream = FakeUpstream::start();
    let reply_with = |waiting: u32, answer: fn() -> Reply| {
        upstream.reply(move |call| match call.path.as_str() {
            "/metrics" => Reply::new(200, format!("vllm:num_requests_waiting{{model_name=\"m\"}} {waiting}.0")),
            _ => answer(),
        });
    };
    reply_with(12, || Reply::ok().held());
    let app = app_of(&[table("a", &upstream, "models = '*'\nmetrics = true")], &[]).await;

    let id = app.submit(rows(40)).await;
    within(Duration::from_secs(20), "fewer calls at once", async || {
        let progress = app.get(&format!("/v1/batches/{id}/progress")).await.ok();
        progress["reason"]["message"].as_str().filter(|why| why.contains("would not be answered sooner")).map(drop)
    })
    .await;

    reply_with(0, Reply::ok);
    upstream.release();
    app.wait_for_completed(&id, 40).await;
}

#[tokio::test]
async fn the_key_and_the_headers_of_an_upstream_are_its_own() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    let directory = tempfile::tempdir().expect("a directory");
    let key = directory.path().join("key");
    std::fs::write(&key, "secret-of-b\n").expect("a file");
    let of_b = format!("models = ['n']\nkey_file = '{}'\nheaders = {{ X-Team = 'blue' }}", key.display());
    let tables = [table("a", &a, "models = ['m']\nkey = 'secret-of-a'"), table("b", &b, &of_b)];
    let app = app_of(&tables, &NO_RETRIES).await;

    app.run([rows_of("m", 1), rows_of("n", 1)].concat()).await;

    let sent = |upstream: &FakeUpstream| {
        let call = row_calls(upstream).remove(0);
        [call.header("authorization").to_owned(), call.header("x-team").to_owned()]
    };
    assert_eq!(sent(&a), ["Bearer secret-of-a", ""]);
    assert_eq!(sent(&b), ["Bearer secret-of-b", "blue"]);
}

#[tokio::test]
async fn servers_with_the_same_model_share_its_rows_by_their_weights() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    for upstream in [&a, &b] {
        upstream.reply(|_| Reply::ok().held());
    }
    let tables = [table("a", &a, "models = ['m']\nweight = 3"), table("b", &b, "models = ['m']")];
    let app = app_of(&tables, &["--max-retries", "0", "--max-concurrency", "16", "--concurrency", "fixed"]).await;

    let id = app.submit(rows_of("m", 32)).await;
    // A model that has not answered has all but two of the calls.
    until("the first calls", || a.running() + b.running() == 14).await;
    assert!((10..=11).contains(&a.running()), "{} and {}", a.running(), b.running());

    a.release();
    b.release();
    app.wait_for_completed(&id, 32).await;
}

#[tokio::test]
async fn a_server_has_no_more_calls_than_its_own_limit() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    for upstream in [&a, &b] {
        upstream.reply(|_| Reply::ok().after(Duration::from_millis(20)));
    }
    let tables = [table("a", &a, "models = ['m', 'n']\nmax_concurrency = 2"), table("b", &b, "models = ['m', 'n']")];
    let app = app_of(&tables, &["--max-retries", "0", "--max-concurrency", "16", "--concurrency", "fixed"]).await;

    app.run([rows_of("m", 60), rows_of("n", 60)].concat()).await;

    assert!(a.peak() <= 2, "{}", a.peak());
    assert!(b.peak() > 4, "{}", b.peak());
}

#[tokio::test]
async fn rows_of_a_model_that_nobody_has_wait_with_a_reason_until_somebody_has_it() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    let first = table("a", &a, "models = ['m']");
    let app = app_of(std::slice::from_ref(&first), &NO_RETRIES).await;

    let id = app.submit([rows_of("m", 2), rows_of("n", 2)].concat()).await;
    let warned = within(Duration::from_secs(30), "a warning", async || {
        warnings(&app).await.into_iter().find(|text| text.contains("no upstream has `n`"))
    });
    warned.await;
    within(Duration::from_secs(30), "the rows of the other model", async || {
        (app.batch(&id).await["request_counts"]["completed"] == 2).then_some(())
    })
    .await;

    app.read_upstreams(&[first, table("b", &b, "models = ['n']")].concat()).expect("the file is in order");
    app.wait_for_completed(&id, 4).await;
    assert_eq!((row_calls(&a).len(), row_calls(&b).len()), (2, 2));
    assert!(warnings(&app).await.is_empty());
}

#[tokio::test]
async fn a_batch_with_a_model_that_nobody_has_is_refused_if_so_configured() {
    let a = FakeUpstream::start();
    let app = app_of(&[table("a", &a, "models = ['m']")], &["--unknown-models", "refuse"]).await;

    let errors = app.validation_errors([rows_of("m", 2), rows_of("n", 2)].concat()).await;

    assert_eq!(errors.len(), 1);
    assert_eq!((&errors[0]["code"], &errors[0]["param"]), (&json!("model_not_found"), &json!("body.model")));
    assert!(errors[0]["message"].as_str().expect("a text").contains("'n'"), "{errors:?}");
}

#[tokio::test]
async fn upstreams_are_read_again_while_calls_are_under_way() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    a.reply(|_| Reply::ok().held());
    let app = app_of(&[table("a", &a, "models = '*'")], &NO_RETRIES).await;
    let id = app.submit(rows(40)).await;
    until("calls under way", || a.running() >= 10).await;

    let error = app.read_upstreams("[[upstreams]]\nname = 'b'\n").expect_err("it has no URL");
    assert!(error.to_string().contains("missing field `url`"), "{error}");
    app.read_upstreams(&table("b", &b, "models = '*'")).expect("the file is in order");
    until("calls of the new server", || !row_calls(&b).is_empty()).await;
    let before = a.calls().len();
    a.release();
    app.wait_for_completed(&id, 40).await;

    assert_eq!(a.calls().len(), before, "no call begins there any more");
    assert_eq!(a.aborted(), 0, "and those under way are answered");
    assert_eq!(row_calls(&a).len() + row_calls(&b).len(), 40);
}

#[tokio::test]
async fn a_limit_in_time_that_the_settings_give_is_kept() {
    let a = FakeUpstream::start();
    let app = app_of(&[table("a", &a, "models = ['m']\nrequests_per_minute = 60")], &NO_RETRIES).await;

    // Ten may come at once, and one in each second after that.
    app.run(rows_of("m", 12)).await;

    let calls = row_calls(&a);
    let after = |no: usize| calls[no].arrived.duration_since(calls[0].arrived);
    assert!(after(11) >= Duration::from_millis(1500), "{:?}", after(11));
    assert!(after(8) < after(11) / 2, "{:?}", after(8));
}

#[tokio::test]
async fn a_limit_of_calls_is_kept_over_other_settings_of_the_same_server() {
    let a = FakeUpstream::start();
    a.reply(|_| Reply::ok().held());
    let with = |weight: u32| table("a", &a, &format!("models = ['m']\nmax_concurrency = 4\nweight = {weight}"));
    let app = app_of(&[with(1)], &NO_RETRIES).await;
    let id = app.submit(rows_of("m", 40)).await;
    until("as many calls as it may have", || a.running() == 4).await;

    for weight in [2, 3] {
        app.read_upstreams(&with(weight)).expect("the file is in order");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(a.running(), 4);

    a.release();
    app.wait_for_completed(&id, 40).await;
    assert_eq!(a.peak(), 4);
}

#[tokio::test]
async fn tables_that_can_never_work_are_refused_with_a_reason() {
    let a = FakeUpstream::start();
    let app = app_of(&[table("a", &a, "models = 'm'")], &NO_RETRIES).await;
    let cases = [
        ("models = []", "its list of models is empty"),
        ("models = ['*', 'm']", "not both"),
        ("weight = 0", "weight"),
        ("max_concurrency = 0", "max_concurrency"),
        ("request_timeout = '0s'", ", line 4, cannot be used: no call can end in no time"),
        ("requests_per_minute = 0", "a limit of 0"),
        ("run_window = '22:00'", "22:00-06:00"),
        ("key = 'a'\nkey_file = 'b'", "key_file"),
        ("key_file = '/nowhere/at/all'", "cannot be read"),
        ("key = '${NOT_SET_ANYWHERE}'", "NOT_SET_ANYWHERE"),
        ("wieght = 1", "wieght"),
    ];
    for (more, expected) in cases {
        let error = app.read_upstreams(&table("b", &a, more)).expect_err("it cannot work").to_string();
        assert!(error.contains(expected), "{more}: {error}");
    }
    assert_eq!(app.run(rows_of("m", 1)).await.output.len(), 1, "the upstreams are as they were");
}

#[tokio::test]
async fn an_upstream_that_does_not_tell_its_models_is_named_with_the_reason() {
    let a = FakeUpstream::start();
    a.reply(|_| Reply::error(401));
    let app = app_of(&[table("a", &a, "")], &NO_RETRIES).await;

    app.submit(rows_of("m", 1)).await;

    within(Duration::from_secs(30), "both warnings", async || {
        let warnings = warnings(&app).await;
        let has = |text: &str| warnings.iter().any(|warning| warning.contains(text));
        (has("'a' does not tell which models it has: it answered with status 401") && has("no upstream has `m`"))
            .then_some(())
    })
    .await;
    lists(&a, &["m"]);
    within(Duration::from_secs(30), "no warning", async || warnings(&app).await.is_empty().then_some(())).await;
}
