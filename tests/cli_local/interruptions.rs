//! Runs that end early: by Ctrl-C, because their reader has gone, or because another one is there.

use std::process::Stdio;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::common::process::{run, said};
use crate::stage::{INPUT, OUTPUT, Stage};

/// A stage whose upstream answers all rows but the first two, which it holds.
fn held(count: usize) -> Stage {
    let stage = Stage::new(rows(count));
    stage.upstream.reply(|call| {
        let is_held = call.is_of("row-0") || call.is_of("row-1");
        if is_held && call.attempt == 0 { Reply::ok().held() } else { Reply::ok() }
    });
    stage
}

#[tokio::test]
async fn ctrl_c_lets_calls_in_flight_end_and_the_same_command_line_goes_on() {
    let stage = held(20);
    // The second run sends the two rows again that the first had no answer for.
    for (signal, calls) in [("INT", 20), ("TERM", 22)] {
        let mut run = stage.start(&["--grace", "200ms"]);
        until("the calls", || stage.upstream.calls().len() == calls).await;

        run.signal(signal);

        assert_eq!(run.ended().await.code(), Some(130), "{}", run.said());
        assert!(run.said().contains("the same command line goes on from here"), "{}", run.said());
        assert!(!stage.path(OUTPUT).exists());
        stage.upstream.reply(|call| if call.is_of("row-0") { Reply::ok().held() } else { Reply::ok() });
    }
    stage.upstream.reply(|_| Reply::ok());

    stage.run(&[], 0).await;

    assert!(stage.verdict().holds(), "{}", stage.verdict());
    let sent = |id: &str| stage.upstream.calls().iter().filter(|call| call.is_of(id)).count();
    assert_eq!([sent("row-0"), sent("row-1"), stage.upstream.calls().len()], [3, 2, 23]);
}

#[tokio::test]
async fn a_second_ctrl_c_ends_a_run_at_once() {
    let stage = held(2);
    let mut run = stage.start(&["--grace", "1h"]);
    until("the calls", || stage.upstream.running() == 2).await;

    run.signal("INT");
    run.says("Ctrl-C again stops at once").await;
    assert!(run.is_running());
    run.signal("INT");

    assert_eq!(run.ended().await.code(), Some(130), "{}", run.said());
    stage.upstream.release();
    stage.run(&[], 0).await;
    assert!(stage.verdict().holds(), "{}", stage.verdict());
}

#[tokio::test]
async fn a_second_run_over_the_same_work_directory_is_refused() {
    let stage = held(5);
    let mut first = stage.start(&[]);
    until("the calls", || stage.upstream.calls().len() == 5).await;

    for flags in [&[][..], &["--restart"]] {
        let refusal = stage.run(flags, 1).await;
        assert!(refusal.contains("another run uses") && refusal.contains("--work-dir"), "{refusal}");
    }
    stage.upstream.release();

    assert_eq!(first.ended().await.code(), Some(0), "{}", first.said());
    assert!(stage.verdict().holds(), "{}", stage.verdict());
    assert_eq!(stage.upstream.calls().len(), 5);
}

#[tokio::test]
async fn another_input_is_refused_until_the_unfinished_run_is_thrown_away() {
    let stage = held(5);
    let unfinished = stage.start(&[]);
    until("the calls", || stage.upstream.calls().len() == 5).await;
    unfinished.kill();
    stage.write(INPUT, rows(4));

    // So large that rows of the unfinished run would be sent while it is read.
    stage.write("large.jsonl", rows(100_000));
    let large = run(stage.run_command(&["large.jsonl", "-o", OUTPUT])).await;
    assert_eq!(large.status.code(), Some(1), "{}", said(&large));
    let refusal = stage.run(&[], 1).await;
    assert!(refusal.contains("is not the input") && refusal.contains("--restart"), "{refusal}");
    assert_eq!(stage.upstream.calls().len(), 5);
    stage.upstream.reply(|_| Reply::ok());
    stage.run(&["--restart"], 0).await;

    assert!(stage.verdict().holds(), "{}", stage.verdict());
    assert_eq!(stage.verdict().rows, 4);
}

#[tokio::test]
async fn a_reader_that_goes_away_loses_no_lines() {
    let stage = Stage::new(rows(20));
    let mut command = stage.run_command(&[INPUT, "-o", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program can be run");

    drop(child.stdout.take());
    let gone = tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("waiting does not panic");
    let again = run(stage.run_command(&[INPUT, "-o", "-"])).await;

    let gone = gone.expect("the program can be run");
    assert_eq!(gone.status.code(), Some(1), "{}", said(&gone));
    assert!(said(&gone).contains("the same command line writes them again"), "{}", said(&gone));
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert_eq!(String::from_utf8(again.stdout).expect("UTF-8").lines().count(), 20);
    assert_eq!(stage.upstream.calls().len(), 20);
    assert_eq!(stage.names(), [INPUT]);
}

#[tokio::test]
async fn a_reader_of_another_command_that_goes_away_ends_it_quietly() {
    let stage = Stage::new(rows(5_000));
    let mut command = stage.command(&["sample", INPUT, "-n", "5000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program can be run");

    drop(child.stdout.take());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("waiting does not panic");

    let ended = ended.expect("the program can be run");
    assert_eq!((ended.status.code(), said(&ended).trim()), (Some(0), ""));
}
