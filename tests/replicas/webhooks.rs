//! Webhooks of many replicas, and receivers that are away.

use std::collections::BTreeMap;
use std::time::Duration;

use batchwright::domain::time::Clock;
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{Client, new_batch, text};
use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::stage::{Database, Stage};

const PRIVATE: &str = "--webhook-allow-private";
const SWEEP: Duration = Duration::from_hours(1);

/// Creates a batch whose end a receiver is told.
async fn submit(client: &Client, receiver: &FakeUpstream) -> String {
    let mut batch = new_batch(&client.upload(rows(1)).await, "24h");
    batch["webhook"] = json!({ "url": format!("http://{}/", receiver.address), "secret": "hunter2" });
    text(&client.post("/v1/batches", &batch).await.ok()["id"]).to_owned()
}

/// How often each batch's end was told, by the `webhook-id` of its event.
fn times_told(receiver: &FakeUpstream) -> BTreeMap<(String, String), usize> {
    let mut times = BTreeMap::new();
    for call in receiver.calls() {
        let event: Value = serde_json::from_slice(&call.body).expect("an event is JSON");
        let key = (text(&event["data"]["id"]).to_owned(), call.header("webhook-id").to_owned());
        *times.entry(key).or_default() += 1;
    }
    times
}

/// Lets some time pass on a worker's clock, and waits until the receiver was called so often.
async fn pass(clock: &Clock, time: Duration, receiver: &FakeUpstream, calls: usize) {
    clock.advance(time);
    until("the next try", || receiver.calls().len() >= calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_a_receiver_that_was_away_for_an_hour() {
    let stage = Stage::postgres(&[]).await;
    let receiver = FakeUpstream::start();
    receiver.reply(|_| Reply::error(503));
    let api = stage.serve(&["--role", "api", PRIVATE]).await;
    let clock = Clock::manual(Clock::System.now());
    let worker = stage.daemon(clock.clone(), SWEEP).await;
    let id = submit(&api.client(), &receiver).await;
    api.client().wait_for(&id, "completed").await;
    until("the first try", || receiver.calls().len() == 1).await;

    // The pauses of the first hour, each as long as it can be.
    for (tries, seconds) in [(2, 6), (3, 36), (4, 144), (5, 720), (6, 2160)] {
        // The verdict is recorded before the clock moves, so that the pause is counted from before.
        eventually("the try to be recorded", async || recorded(&stage, tries - 1).await.then_some(())).await;
        pass(&clock, Duration::from_secs(seconds), &receiver, tries).await;
    }
    receiver.reply(|_| Reply::new(200, ""));
    eventually("the try to be recorded", async || recorded(&stage, 6).await.then_some(())).await;
    pass(&clock, Duration::from_mins(72), &receiver, 7).await;
    eventually("the delivery", async || delivered(&stage).await.then_some(())).await;
    clock.advance(Duration::from_hours(24));

    assert_eq!(times_told(&receiver).into_values().collect::<Vec<_>>(), [7], "with one id");
    worker.stop(Duration::ZERO).await;
}

/// Whether so many tries are over, and have failed.
async fn recorded(stage: &Stage, tries: usize) -> bool {
    let found = "SELECT COUNT(*) FROM webhook_deliveries WHERE holder IS NULL AND state = 'pending' AND tries = $1";
    count(stage, found, i64::try_from(tries).expect("few")).await == 1
}

async fn delivered(stage: &Stage) -> bool {
    let found = "SELECT COUNT(*) FROM webhook_deliveries WHERE state = 'delivered' AND tries = $1";
    count(stage, found, 7).await == 1
}

async fn count(stage: &Stage, statement: &'static str, tries: i64) -> i64 {
    use sqlx::Connection as _;
    let Database::Postgres(url) = &stage.database else { panic!("the stage is on PostgreSQL") };
    let mut connection = sqlx::PgConnection::connect(url).await.expect("the database answers");
    sqlx::query_scalar(statement).bind(tries).fetch_one(&mut connection).await.expect("a plain query")
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_goes_on_when_one_is_killed_in_the_middle_of_a_call() {
    let stage = Stage::postgres(&[]).await;
    let receiver = FakeUpstream::start();
    receiver.reply(|_| Reply::new(200, "").held());
    let api = stage.serve(&["--role", "api", PRIVATE]).await;
    let mut worker = stage.serve(&["--role", "worker", "--lease", "2s", PRIVATE]).await;
    let id = submit(&api.client(), &receiver).await;
    until("the first call", || receiver.calls().len() == 1).await;

    worker.kill();
    receiver.release();
    let _other = stage.serve(&["--role", "worker", "--lease", "2s", PRIVATE]).await;

    until("the second call", || receiver.calls().len() == 2).await;
    eventually("the delivery", async || {
        let found = "SELECT COUNT(*) FROM webhook_deliveries WHERE state = 'delivered' AND tries = $1";
        (count(&stage, found, 2).await == 1).then_some(())
    })
    .await;
    let times = times_told(&receiver);
    assert_eq!(times.keys().map(|(batch, _)| batch).collect::<Vec<_>>(), [&id]);
    assert_eq!(times.into_values().collect::<Vec<_>>(), [2], "with one id");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_tell_each_event_once() {
    const BATCHES: usize = 40;
    let stage = Stage::postgres(&[]).await;
    let receiver = FakeUpstream::start();
    receiver.reply(|_| Reply::new(200, "").after(Duration::from_millis(20)));
    let api = stage.serve(&["--role", "api", PRIVATE]).await;
    let _one = stage.serve(&["--role", "worker", PRIVATE]).await;
    let _other = stage.serve(&["--role", "worker", PRIVATE]).await;

    for _ in 0..BATCHES {
        submit(&api.client(), &receiver).await;
    }

    eventually("all to be delivered", async || {
        let found = "SELECT COUNT(*) FROM webhook_deliveries WHERE state = 'delivered' AND tries = $1";
        (count(&stage, found, 1).await == 40).then_some(())
    })
    .await;
    assert_eq!(times_told(&receiver).into_values().collect::<Vec<_>>(), [1; BATCHES]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_gone_from_the_database_was_told_all_the_same() {
    let stage = Stage::postgres(&[]).await;
    let receiver = FakeUpstream::start();
    receiver.reply(|_| Reply::error(500));
    let api = stage.serve(&[PRIVATE]).await;
    let id = submit(&api.client(), &receiver).await;
    until("the first call", || receiver.calls().len() == 1).await;

    count(&stage, "WITH gone AS (DELETE FROM batches RETURNING id) SELECT COUNT(*) FROM gone WHERE $1 > 0", 1).await;
    receiver.reply(|_| Reply::new(200, ""));

    until("the second call", || receiver.calls().len() == 2).await;
    assert_eq!(times_told(&receiver).into_keys().map(|(batch, _)| batch).collect::<Vec<_>>(), [id]);
}
