//! `watch`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stand_in::{StandIn, World, batch_object};

fn events(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

#[tokio::test]
async fn a_new_status_has_its_line_at_once_and_counts_do_not() {
    for has_extensions in [false, true] {
        let server = StandIn::with_batch("validating", [0; 3], has_extensions).await;
        let running = server.cli(&["watch", "batch_1"]).start();
        running.notes("batch_1 validating 0/0 rows").await;
        server.world().batches[0] = batch_object("batch_1", "in_progress", [9, 1, 0]);
        running.notes("batch_1 in_progress 1/9 rows").await;
        for completed in [2, 3] {
            server.world().batches[0] = batch_object("batch_1", "in_progress", [9, completed, 0]);
            let reads = server.world().requests.len();
            crate::common::eventually::until("two more reads", || server.world().requests.len() > reads + 2).await;
        }
        server.world().batches[0] = batch_object("batch_1", "completed", [9, 7, 2]);

        let said = running.end().await;

        assert_eq!((said.code, said.out.as_str()), (3, ""), "{said:?}");
        let lines: Vec<&str> = said.err.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[2], "batch_1 completed 9/9 rows, 2 failed");
        let asked = server.count("GET /v1/batches/batch_1/progress");
        assert!(if has_extensions { asked > 4 } else { asked == 1 }, "{asked} reads of the progress");
    }
}

#[tokio::test]
async fn the_progress_of_the_server_is_shown_with_its_reason() {
    let server = StandIn::with_batch("in_progress", [9, 4, 0], true).await;
    let reason = json!({ "code": "no_such_code_yet", "message": "One sentence.", "since": null, "until": null });
    let ends_at = 4_000_000_000_u64;
    server.world().progress =
        Some(json!({ "reason": reason, "estimate": { "ends_at": ends_at, "ends_at_p90": null } }));

    let running = server.cli(&["watch", "batch_1"]).start();

    running.notes("batch_1 in_progress 4/9 rows, 12.3 rows/s, ").await;
    running.notes(" left; no_such_code_yet: One sentence.\n").await;
}

#[tokio::test]
async fn a_batch_that_is_paused_says_so_at_once_and_how_it_is_resumed() {
    let server = StandIn::with_batch("in_progress", [9, 4, 0], true).await;
    let running = server.cli(&["watch", "batch_1"]).start();
    running.notes("batch_1 in_progress 4/9 rows").await;
    let began = Instant::now();
    let reason = json!({ "code": "paused", "message": "One sentence.", "since": 1, "until": null });
    let estimate = json!({ "ends_at": 4_000_000_000_u64, "ends_at_p90": null });

    server.world().progress = Some(json!({ "reason": reason, "estimate": estimate }));

    running.notes("in_progress 4/9 rows; paused: One sentence. `batchwright resume batch_1` resumes it.\n").await;
    assert!(began.elapsed() < Duration::from_secs(15), "it is no line as of every 30 s");
}

#[tokio::test]
async fn something_else_at_the_path_of_the_progress_is_no_progress() {
    let server = StandIn::with_batch("in_progress", [9, 4, 0], true).await;
    server.world().progress = Some(json!({ "object": "something.else", "rate": null }));
    let running = server.cli(&["watch", "batch_1"]).start();
    running.notes("batch_1 in_progress 4/9 rows").await;
    server.world().batches[0] = batch_object("batch_1", "completed", [9, 9, 0]);

    assert_eq!(running.end().await.code, 0);
    assert_eq!(server.count("GET /v1/batches/batch_1/progress"), 1);
}

#[tokio::test]
async fn events_are_json_one_a_line() {
    let server = StandIn::with_batch("in_progress", [9, 4, 0], true).await;
    let running = server.cli(&["watch", "batch_1", "--json"]).start();
    running.says("\"event\":\"batch\"").await;
    server.world().batches[0] = batch_object("batch_1", "in_progress", [9, 5, 0]);
    running.says("\"event\":\"progress\"").await;
    server.world().is_away = true;
    running.says("\"event\":\"away\"").await;
    server.world().is_away = false;
    running.says("\"event\":\"back\"").await;
    server.world().batches[0] = batch_object("batch_1", "completed", [9, 9, 0]);

    let said = running.end().await;

    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let events = events(&said.out);
    let kinds: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(kinds, ["batch", "progress", "away", "back", "end"]);
    assert_eq!(events[0]["batch"]["status"], "in_progress");
    assert_eq!(events[1]["progress"]["rows"]["completed"], 5);
    assert_eq!(events[1]["progress"]["window"]["closes_at"], 1, "what the client does not know is shown too");
    assert_eq!(events[4]["batch"], server.world().batches[0]);
}

#[tokio::test]
async fn quiet_says_nothing() {
    let server = StandIn::with_batch("completed", [2, 1, 1], false).await;

    let said = server.cli(&["watch", "batch_1", "--quiet"]).exits(3).await;

    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
}

#[tokio::test]
async fn an_outage_is_said_once_for_all_batches() {
    let batch = |number: u32| batch_object(&format!("batch_{number}"), "in_progress", [2, 0, 0]);
    let server = StandIn::new(World { batches: vec![batch(1), batch(2)], ..World::default() }).await;
    let running = server.cli(&["watch", "batch_1", "batch_2"]).start();
    running.notes("batch_2 in_progress").await;
    server.world().is_away = true;
    running.notes("trying again").await;
    let reads = server.world().requests.len();
    crate::common::eventually::until("more reads", || server.world().requests.len() > reads + 4).await;
    {
        let mut world = server.world();
        world.is_away = false;
        world.batches =
            vec![batch_object("batch_1", "completed", [2, 2, 0]), batch_object("batch_2", "completed", [2, 2, 0])];
    }

    let said = running.end().await;

    assert_eq!(said.code, 0, "{said:?}");
    for text in ["trying again", "the server answers again"] {
        assert_eq!(said.err.matches(text).count(), 1, "{said:?}");
    }
}

#[tokio::test]
async fn a_terminal_has_a_bar_for_each_batch_and_lines_under_ci() {
    let batch = |number: u32| batch_object(&format!("batch_{number}"), "completed", [4, 3, 1]);
    let server = StandIn::new(World { batches: vec![batch(1), batch(2)], ..World::default() }).await;
    let watch = || server.cli(&["watch", "batch_1", "batch_2"]);

    let (code, seen) = watch().on_terminal().await;
    assert_eq!(code, 3);
    for id in ["batch_1", "batch_2"] {
        assert!(seen.contains(&format!("{id} ████████████████████ completed 4/4 rows, 1 failed")), "{seen:?}");
    }
    let (_, seen) = watch().env("CI", "true").on_terminal().await;
    assert!(seen.contains("batch_1 completed 4/4 rows, 1 failed") && !seen.contains('█'), "{seen:?}");
}
