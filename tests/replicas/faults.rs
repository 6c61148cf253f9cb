//! Crashes and errors at each point at which a write can be cut off, and the lost answer to COMMIT.

use batchwright::verify::VerifyReport;
use reqwest::Method;
use serde_json::Value;

use crate::common::builders::rows;
use crate::common::client::{Answer, Client, new_batch};
use crate::common::eventually::eventually;
use crate::common::process::Process;
use crate::stage::{Stage, setting};

const POINTS: [&str; 5] = ["blob.put", "blob.written", "transaction.begun", "commit.sent", "commit.answered"];
const ROWS: usize = 300;
/// Enough for a dozen flushes: it is beyond chance that none of them fails.
const FAILING_ROWS: usize = 6_000;

/// A server that may crash at any time, and is then started again, without points at which it fails.
struct Phoenix<'a> {
    stage: &'a Stage,
    process: Option<Process>,
    address: String,
    crashes: u32,
}

impl<'a> Phoenix<'a> {
    async fn start(stage: &'a Stage, failpoints: &str) -> Self {
        let mut command = stage.command_at("127.0.0.1:0", &["--lease", "2s"]);
        command.env("FAILPOINTS", failpoints);
        let process = Process::try_start(command).await.ok();
        let address = process.as_ref().map_or("127.0.0.1:0", |it| it.base_url.trim_start_matches("http://")).to_owned();
        Self { stage, process, address, crashes: 0 }
    }

    /// A client of the server, which runs.
    async fn client(&mut self) -> Client {
        if self.process.as_mut().is_none_or(|process| !process.is_running()) {
            self.crashes += 1;
            let process = self.stage.serve_at(&self.address, &["--lease", "2s"]).await;
            process.base_url.trim_start_matches("http://").clone_into(&mut self.address);
            self.process = Some(process);
        }
        self.process.as_ref().expect("it was started").client()
    }

    /// Asks until there is a good answer, as a client does that was promised nothing.
    async fn ask(&mut self, what: &str, ask: impl AsyncFn(&Client) -> Option<Answer>) -> Value {
        eventually(what, async || {
            let client = self.client().await;
            ask(&client).await.filter(|answer| answer.status == 200).map(|answer| answer.json())
        })
        .await
    }

    /// Runs a batch to its end and returns it, with the verdict on its files.
    async fn run(&mut self, input: &str, key: &str) -> (Value, VerifyReport) {
        let file = self.ask("the upload", async |client| upload(client, input).await).await;
        let file_id = file["id"].as_str().expect("an id").to_owned();
        let new = new_batch(&file_id, "24h");
        let create = async |client: &Client| {
            let request = client.request(Method::POST, "/v1/batches").header("Idempotency-Key", key).json(&new);
            answer(request).await
        };
        let batch = self.ask("the batch to be created", create).await;
        let path = format!("/v1/batches/{}", batch["id"].as_str().expect("an id"));
        let ended = async |client: &Client| {
            let batch = answer(client.request(Method::GET, &path)).await?;
            (batch.status == 200 && batch.json()["status"] == "completed").then_some(batch)
        };
        let batch = self.ask("the batch to be completed", ended).await;
        let uploaded = self.client().await.content(&file_id).await.text();
        assert!(uploaded == input, "what was acknowledged is there");
        let verdict = self.client().await.verify(input, &batch).await;
        (batch, verdict)
    }
}

async fn upload(client: &Client, input: &str) -> Option<Answer> {
    let part = reqwest::multipart::Part::text(input.to_owned()).file_name("input.jsonl");
    let form = reqwest::multipart::Form::new().text("purpose", "batch").part("file", part);
    answer(client.request(Method::POST, "/v1/files").multipart(form)).await
}

/// `None` if there is none, because the server has crashed.
async fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Some(Answer { status, headers, bytes: response.bytes().await.ok()?.to_vec() })
}

/// One batch after the other, each in a server that crashes later at the point than the one before, until one gets
/// through without.
async fn crash_at(stage: Stage, point: &str) {
    let step = setting("CHAOS_STEP", 8);
    let input = rows(ROWS);
    let mut proven = Vec::new();
    let mut nth = 0;
    loop {
        let mut server = Phoenix::start(&stage, &format!("{point}={nth}*off->1*return(crash)")).await;
        let (batch, verdict) = server.run(&input, &format!("{point} {nth}")).await;
        assert!(verdict.holds(), "{point} {nth}: {verdict}");
        assert_eq!(batch["request_counts"]["completed"], ROWS);
        proven.push(batch);
        if server.crashes == 0 {
            break;
        }
        nth += step;
    }
    println!("{point}: {} crashes, the last before number {nth}", proven.len() - 1);
    assert!(proven.len() > 1, "{point} was never reached");
    let server = stage.serve(&[]).await;
    let client = server.client();
    stage.prove_all(&client, &input, &proven, vec![server]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_crash_at_any_point_of_a_write_loses_nothing() {
    for point in POINTS {
        crash_at(Stage::sqlite(&["--latency", "5ms"]).await, point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_crash_at_any_point_of_a_write_loses_nothing() {
    for point in POINTS {
        crash_at(Stage::postgres(&["--latency", "5ms"]).await, point).await;
    }
}

async fn fail_often(stage: Stage) {
    let input = rows(FAILING_ROWS);
    let failpoints = POINTS.map(|point| format!("{point}=12%return(error)")).join(";");
    // The first calls are those that open the storage, without which nothing starts.
    stage.serve(&[]).await.terminate().await;
    let started = async {
        loop {
            let server = Phoenix::start(&stage, &failpoints).await;
            if server.process.is_some() {
                return server;
            }
        }
    };
    let mut server = started.await;

    let (batch, verdict) = server.run(&input, "often").await;

    assert!(verdict.holds(), "{verdict}");
    assert_eq!(server.crashes, 0, "errors are survived");
    let client = server.client().await;
    let log = server.process.as_ref().expect("it runs").log();
    assert!(log.contains("outcomes could not be"), "some flush has failed and was repeated");
    stage.prove(&client, &input, &batch, server.process.into_iter().collect()).await;
    // Nothing was doubled upstream either: what is recorded again is what was answered before.
    assert_eq!(stage.sent().await, (FAILING_ROWS as u64, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_errors_and_lost_answers_everywhere_are_survived() {
    fail_often(Stage::sqlite(&["--latency", "100ms"]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_errors_and_lost_answers_everywhere_are_survived() {
    fail_often(Stage::postgres(&["--latency", "100ms"]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duties_that_fail_turn_after_turn_make_the_service_unready() {
    let mut stage = Stage::sqlite(&[]).await;
    // The first are those without which nothing starts.
    stage.set("FAILPOINTS", "transaction.begun=20*off->return(error)");
    let server = stage.serve(&[]).await;
    let client = server.client();

    eventually("the duty to be a problem", async || {
        let answer = client.get("/readyz").await;
        let is_named = answer.json()["problems"].to_string().contains("the expire loop has failed for ");
        (answer.status == 503 && is_named).then_some(())
    })
    .await;

    let metrics = client.get("/metrics").await.text();
    let failed = metrics.lines().find(|line| line.starts_with("batchwright_loop_failed_turns{loop=\"expire\"}"));
    let turns: f64 = failed.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("it is measured");
    assert!(turns >= 3.0, "{metrics}");
    assert!(!metrics.contains("batchwright_items_in_backoff{loop=\"admit\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_is_over_before_it_is_looked_for_costs_its_item_one_pause() {
    let mut stage = Stage::sqlite(&["--latency", "5ms"]).await;
    // The read of a batch's report fails, and the write that tells whether the database is away goes well.
    stage.set("FAILPOINTS", "read.files.report=1*return(error)->off");
    let server = stage.serve(&[]).await;
    let client = server.client();
    let input = rows(10);

    let id = client.submit(input.clone()).await;
    let batch = client.wait_for(&id, "completed").await;

    assert!(client.verify(&input, &batch).await.holds());
    let metrics = client.get("/metrics").await.text();
    for line in [
        "batchwright_item_errors_total{loop=\"admit\"} 1",
        "batchwright_items_in_backoff{loop=\"admit\"} 0",
        "batchwright_loop_failed_turns{loop=\"admit\"} 0",
    ] {
        assert!(metrics.lines().any(|metric| metric == line), "{line}\n{metrics}");
    }
    let ready = client.get("/readyz").await.ok();
    assert!(ready.get("warnings").is_none(), "{ready}");
}
