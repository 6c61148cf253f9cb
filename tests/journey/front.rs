//! The front of the service: its certificate, its listeners, what a panic is answered with, and what the log never has.

use serde_json::json;
use tempfile::TempDir;

use crate::common::builders::{file, line};
use crate::common::certificates::OwnCertificate;
use crate::common::client::{Client, new_batch, send, text};
use crate::common::eventually::until;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::{Process, batchwright, refusal};

/// `serve` on a data directory of its own, with these flags and these variables.
async fn serve(directory: &TempDir, flags: &[&str], environment: &[(&str, &str)]) -> Process {
    let data = directory.path().join("data").display().to_string();
    let upstream = ["--upstream", "http://127.0.0.1:1/v1"];
    let upstream = if flags.contains(&"--upstream") { &[][..] } else { &upstream[..] };
    let flags = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data], upstream, flags].concat();
    let mut command = batchwright(&flags);
    command.envs(environment.iter().copied());
    Process::start(command).await
}

#[tokio::test]
async fn a_certificate_is_read_again_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let old = OwnCertificate::write(directory.path());
    let process = serve(&directory, &old.flags().each_ref().map(String::as_str), &[]).await;
    assert!(process.base_url.starts_with("https://"), "{}", process.base_url);
    let address = process.address();
    let connection = old.connect(address, &[]).await.expect("the server has TLS");

    std::fs::write(&old.certificate, "no PEM").expect("it can be written");
    until("the warning", || process.log().contains("the TLS certificate stays as it is")).await;
    old.connect(address, &[]).await.expect("it stays");
    let new = OwnCertificate::write(directory.path());
    until("the new certificate", || process.log().contains("the TLS certificate was read again")).await;

    new.connect(address, &[]).await.expect("it is the new one");
    old.connect(address, &[]).await.expect_err("it is not trusted by those who know the old one");
    drop(connection);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let own = OwnCertificate::write(directory.path());
    let other = tempfile::tempdir().expect("a temporary directory");
    let other = OwnCertificate::write(other.path());
    let key = |path: std::path::PathBuf| path.display().to_string();
    let cases = [
        (path("none.pem"), key(own.key.clone()), "none.pem cannot be read"),
        (key(own.key.clone()), key(own.key.clone()), "has no certificate in PEM"),
        (key(own.certificate.clone()), key(own.certificate.clone()), "has no private key in PEM"),
    ];
    for (certificate, key, why) in cases {
        let flags = ["--tls-cert", &certificate, "--tls-key", &key, "--data-dir", &path("data")];
        let command = batchwright(&[&["serve", "--upstream", "http://127.0.0.1:1/v1"][..], &flags].concat());

        let said = refusal(command, 1).await;

        assert!(said.contains(why), "{said}");
    }
    drop(other);
}

#[tokio::test]
async fn metrics_can_have_a_listener_of_their_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let process = serve(&directory, &["--metrics-listen", "127.0.0.1:0"], &[]).await;
    let log = process.log();
    let (_, rest) = log.split_once("metrics are served listener=").expect("it says where");
    let apart = Client::new(format!("http://{}", rest.split_whitespace().next().expect("an address")));

    assert_eq!(process.client().get("/metrics").await.status, 404);
    assert_eq!(process.client().get("/healthz").await.status, 200);
    let metrics = apart.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("batchwright_loop_turns_total"), "{}", metrics.text());
    assert_eq!(apart.get("/v1/batches").await.status, 404);
}

#[tokio::test]
async fn a_panic_is_answered_with_the_id_that_the_log_has() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let process = serve(&directory, &[], &[("FAILPOINTS", "read.batches.batch=panic")]).await;

    let answer = process.client().get("/v1/batches/batch_00000000000000000000000000000000").await;

    let id = answer.header("x-request-id");
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(answer.status, 500);
    assert!(id.starts_with("req_") && message.contains(id), "{message}");
    let logged = |line: &str| line.contains("a handler panicked") && line.contains(id);
    until("the log to name it", || process.log().lines().any(logged)).await;
    assert_eq!(process.client().get("/healthz").await.status, 200);
}

/// Runs a batch whose key, prompts, answers and secret can be told; what the log has of it at a level.
async fn log_of_marked_batch(level: &str) -> String {
    let upstream = FakeUpstream::start();
    let refusal = json!({ "error": { "message": "marked-refusal" } }).to_string();
    upstream.reply(
        move |call| {
            if call.is_of("bad") { Reply::new(400, refusal.clone()) } else { Reply::chat("marked-answer") }
        },
    );
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("http://{}/v1", upstream.address);
    let flags = ["--upstream", &url, "--log", level, "--webhook-allow-private"];
    let process = serve(&directory, &flags, &[("BATCHWRIGHT_UPSTREAM_KEY", "marked-upstream-key")]).await;
    let client = process.client();
    let mut batch = new_batch(&client.upload(file([line("good"), line("bad")])).await, "24h");
    batch["webhook"] = json!({ "url": format!("http://{}/hook", upstream.address), "secret": "marked-secret" });
    let request = client.request(reqwest::Method::POST, "/v1/batches").json(&batch);
    let created = send(request.bearer_auth("marked-client-key")).await.ok();

    let ended = client.wait_for(text(&created["id"]), "completed").await;
    let results = client.results(&ended).await;
    assert_eq!((results.output.len(), results.errors.len()), (1, 1));
    until("the webhook", || upstream.calls().iter().any(|call| call.path == "/hook")).await;
    process.log()
}

#[tokio::test]
async fn the_log_has_no_key_no_prompt_and_no_answer() {
    const MARKS: [&str; 6] =
        ["marked-upstream-key", "marked-client-key", "Hello from", "marked-answer", "marked-refusal", "marked-secret"];
    for level in ["debug", "trace"] {
        let log = log_of_marked_batch(level).await;

        assert!(log.contains("DEBUG"), "{level} is logged");
        let found: Vec<_> = log.lines().filter(|line| MARKS.iter().any(|mark| line.contains(mark))).collect();
        assert!(found.is_empty(), "{level}: {found:#?}");
    }
}
