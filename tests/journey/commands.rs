//! The other commands: `demo`, `migrate`, `verify`, `openapi`.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};

use crate::common::builders::{file, line, rows};
use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::{Process, batchwright, run, said};
use crate::databases::postgres_url;
use crate::stage::Stage;

#[tokio::test]
async fn the_demo_ends_with_a_proof() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let demo = directory.path().join("demo").display().to_string();

    let output = run(batchwright(&["demo", "--rows", "200", "--directory", &demo])).await;

    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("OK: every one of 200 requests has exactly one line"), "{said}");
}

#[tokio::test]
async fn the_demo_can_be_run_again_in_its_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let demo = directory.path().display().to_string();

    for _ in 0..2 {
        let output = run(batchwright(&["demo", "--rows", "20", "--directory", &demo])).await;

        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
}

#[tokio::test]
async fn migrate_brings_a_database_up_to_date_and_ends() {
    let url = postgres_url().await;

    // Twice: the second has nothing to do.
    for _ in 0..2 {
        let output = run(batchwright(&["migrate", "--database-url", &url])).await;

        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }

    let mut database = PgConnection::connect(&url).await.expect("the database answers");
    let batches: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM batches").fetch_one(&mut database).await.expect("there is the table");
    assert_eq!(batches, 0);
}

/// Runs `verify` on the files of a directory.
async fn verify(directory: &Path, input: &str, output: &str) -> Output {
    let path = |name: &str| directory.join(name).display().to_string();
    run(batchwright(&["verify", "--input", &path(input), "--output", &path(output)])).await
}

#[tokio::test]
async fn verify_tells_by_its_exit_code_whether_the_proof_holds() {
    let stage = Stage::new(&["--latency", "0ms"]).await;
    let (server, directory) = (stage.serve(&[]).await, &stage.directory);
    let id = server.client().submit(rows(3)).await;
    let batch = server.client().wait_for(&id, "completed").await;
    server.client().download(&rows(3), &batch, directory).await;
    let results = std::fs::read_to_string(directory.path().join("output")).expect("the output");
    let without_last = results.split_inclusive('\n').take(2).collect::<String>();
    std::fs::write(directory.path().join("lost"), &without_last).expect("a file");
    std::fs::write(directory.path().join("doubled"), results.repeat(2)).expect("a file");

    let holds = verify(directory.path(), "input.jsonl", "output").await;
    let lost = verify(directory.path(), "input.jsonl", "lost").await;
    let doubled = verify(directory.path(), "input.jsonl", "doubled").await;
    let missing = verify(directory.path(), "nowhere.jsonl", "output").await;

    assert_eq!(holds.status.code(), Some(0), "{}", said(&holds));
    assert!(said(&holds).contains("OK: every one of 3 requests has exactly one line"), "{}", said(&holds));
    assert_eq!(lost.status.code(), Some(1), "{}", said(&lost));
    assert!(said(&lost).contains("NOT OK: 1 problem"), "{}", said(&lost));
    assert_eq!(doubled.status.code(), Some(1), "{}", said(&doubled));
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    assert!(said(&missing).contains("nowhere.jsonl"), "{}", said(&missing));
}

#[tokio::test]
async fn the_openapi_document_can_be_printed() {
    let output = run(batchwright(&["openapi"])).await;

    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), batchwright::api::openapi::document_text());
}

#[tokio::test]
async fn an_unknown_command_is_a_usage_error() {
    let output = run(batchwright(&["server"])).await;

    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("serve"), "{}", said(&output));
}

#[tokio::test]
async fn metrics_are_served_under_their_names() {
    let stage = Stage::new(&["--latency", "0ms"]).await;
    let server = stage.serve(&[]).await;
    let client = server.client();
    let id = client.submit(rows(3)).await;
    client.wait_for(&id, "completed").await;

    let metrics = client.get("/metrics").await.text();

    for line in
        ["batchwright_files_total 1", "batchwright_batches_created_total 1", "batchwright_lines_recorded_total 3"]
    {
        assert!(metrics.lines().any(|metric| metric == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn metrics_tell_once_for_each_batch_how_long_it_waited_for_its_first_call() {
    let upstream = FakeUpstream::start();
    upstream.reply(|call| match call.attempt {
        _ if call.is_of("row-0") => Reply::ok().held(),
        0 => Reply::error(500),
        _ => Reply::ok(),
    });
    let url = format!("http://{}/v1", upstream.address);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().display().to_string();
    let flags = ["--upstream", &url, "--listen", "127.0.0.1:0", "--data-dir", &data, "--max-concurrency", "1"];
    let server = Process::start(batchwright(&[&["serve"][..], &flags].concat())).await;
    let client = server.client();
    let told = async || {
        let metrics = client.get("/metrics").await.text();
        ["count", "sum"].map(|name| {
            let name = format!("batchwright_time_to_first_call_seconds_{name} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).unwrap_or_default()
        })
    };

    let first = client.submit(rows(1)).await;
    until("the only call", || upstream.running() == 1).await;
    let second = client.submit(file((1..40).map(|row| line(&format!("row-{row}"))))).await;
    client.wait_for_status(&second, "in_progress").await;
    let [count, waited] = told().await;
    assert!(count.to_string() == "1" && waited < 20.0, "{count} {waited}");
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = begun.elapsed().as_secs_f64();
    upstream.release();
    client.wait_for_completed(&first, 1).await;
    client.wait_for_completed(&second, 39).await;

    let [count, both] = told().await;
    assert!(count.to_string() == "2" && both >= waited + held && both < 60.0, "{count} {waited} {both}");
}

#[tokio::test]
async fn metrics_show_what_waits_for_each_model_and_why() {
    // The first call is answered after an hour, and every other is refused.
    let stage = Stage::new(&["--latency", "1h", "--max-parallel", "1", "--overload", "reject"]).await;
    let server = stage.serve(&[]).await;
    let client = server.client();
    client.submit(rows(3)).await;

    eventually("what waits to be shown", async || {
        let metrics = client.get("/metrics").await.text();
        let value = |name: &str| {
            metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok())
        };
        let of_model = |name: &str| value(&format!("batchwright_backlog_{name}{{model=\"m\"}}"));
        let window = of_model("deadline_timestamp_seconds")? - of_model("oldest_timestamp_seconds")?;
        let refusals = value("batchwright_upstream_refusals_total{upstream=\"default\",kind=\"busy\"}")?;
        let shown = [of_model("rows")?, window, value("batchwright_permits_held")?.min(1.0), refusals.min(1.0)];
        (shown.map(|value| value.to_string()) == ["3", "86400", "1", "1"]).then_some(())
    })
    .await;
}
