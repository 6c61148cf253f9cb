//! Each exit code, from the commands that can end with it.

use crate::command::Cli;
use crate::stand_in::{StandIn, World};

#[tokio::test]
async fn a_command_that_waited_for_a_batch_exits_as_the_batch_ended() {
    let cases = [
        ("completed", [2, 2, 0], 0),
        ("completed", [2, 1, 1], 3),
        ("failed", [0, 0, 0], 4),
        ("expired", [2, 1, 0], 5),
        ("cancelled", [2, 1, 1], 6),
    ];
    for (status, counts, code) in cases {
        let server = StandIn::with_batch(status, counts, false).await;
        for command in ["watch", "results"] {
            server.cli(&[command, "batch_1"]).exits(code).await;
        }
        // Reading is a success, whatever is read.
        server.cli(&["status", "batch_1"]).exits(0).await;
    }
}

#[tokio::test]
async fn of_several_batches_the_worst_end_counts() {
    let ends = [("completed", [2, 1, 1]), ("expired", [2, 1, 0]), ("completed", [2, 2, 0])];
    let batch = |(number, (status, counts))| crate::stand_in::batch_object(&format!("batch_{number}"), status, counts);
    let batches = ends.into_iter().enumerate().map(batch).collect();
    let server = StandIn::new(World { batches, ..World::default() }).await;

    server.cli(&["watch", "batch_0", "batch_1", "batch_2"]).exits(5).await;
    server.cli(&["watch", "batch_0", "batch_2"]).exits(3).await;
}

#[tokio::test]
async fn errors_have_a_message_that_says_what_to_do() {
    let server = StandIn::with_batch("in_progress", [2, 0, 0], false).await;
    let gone = || Cli::new(&["status", "batch_1", "--server", "http://127.0.0.1:9"]);
    let cases = [
        (server.cli(&["status", "batch_9"]), 1, "No such Batch. (HTTP 404)"),
        (server.cli(&["watch", "batch_1", "batch_9"]), 1, "batch_9: No such Batch."),
        (server.cli(&["submit", "/no/such/file"]), 1, "/no/such/file cannot be read"),
        (server.cli(&["watch", "batch_1", "--timeout", "100ms"]), 1, "watch again with `batchwright watch batch_1`"),
        (Cli::new(&["status", "batch_1", "--server", "host:1"]), 1, "http://127.0.0.1:8080/v1"),
        (server.cli(&["watch"]), 2, "Usage"),
        (server.cli(&["submit", "-", "-o", "x"]).input("{}\n"), 2, "need --wait"),
        (server.cli(&["submit", "-"]).input("\n\n"), 2, "only blank lines"),
        (server.cli(&["submit", "-"]), 2, "is empty"),
        (server.cli(&["submit", "-"]).input("{\"custom_id\":\"a\"}\n"), 2, "give --endpoint"),
        (server.cli(&["list", "--status", "done"]), 2, "the statuses are validating, failed"),
        (gone(), 7, "does it run?"),
    ];
    for (cli, code, message) in cases {
        let said = cli.exits(code).await;
        assert!(said.err.contains(message) && said.out.is_empty(), "{message}: {said:?}");
    }
}

#[tokio::test]
async fn ctrl_c_leaves_the_batch_and_names_the_command_that_goes_on() {
    let server = StandIn::with_batch("in_progress", [2, 0, 0], false).await;
    let running = server.cli(&["watch", "batch_1"]).start();
    running.notes("in_progress").await;

    running.interrupt();
    let said = running.end().await;

    assert_eq!(said.code, 130);
    assert!(said.err.contains("batch_1 goes on; watch again with `batchwright watch batch_1`"), "{said:?}");
    assert_eq!(server.count("POST"), 0);
    server.set("status", "completed");
    server.cli(&["watch", "batch_1"]).exits(0).await;
}

#[tokio::test]
async fn ctrl_c_ends_a_command_whose_reader_has_stopped_reading() {
    let server = StandIn::with_batch("in_progress", [9, 9, 0], true).await;
    server.world().results[0] = crate::stand_in::output_line(&"x".repeat(1 << 20));
    let mut command = server.cli(&["results", "batch_1"]).command();
    let (out, err) = (std::process::Stdio::piped(), std::process::Stdio::null());
    let mut child = command.stdout(out).stderr(err).spawn().expect("it can be run");
    crate::common::eventually::until("the results to be asked for", || {
        server.count("GET /v1/batches/batch_1/results") > 0
    })
    .await;

    let kill = format!("kill -INT {}", child.id());
    std::process::Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
    let mut ended = None;
    crate::common::eventually::until("the end", || {
        ended = child.try_wait().expect("it is a child");
        ended.is_some()
    })
    .await;

    assert_eq!(ended.expect("it has ended").code(), Some(130));
}
