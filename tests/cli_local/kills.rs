//! `kill -9` at random moments of a run: the same command line finishes it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::stage::Stage;

const ROWS: usize = 5_000;
const KILLS: usize = 10;

/// How many rows were done when a run began, as its first line of progress says.
fn recorded(said: &str) -> Option<usize> {
    let (before, _) = said.split_once(&format!(" of {ROWS} rows"))?;
    before.rsplit(char::is_whitespace).next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_again_and_again_goes_on_with_the_same_command_line() {
    let stage = Stage::new(rows(ROWS));
    let (calls, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(HashSet::new())));
    let (counted, noted) = (calls.clone(), sent.clone());
    stage.upstream.reply(move |call| {
        counted.fetch_add(1, Relaxed);
        noted.lock().expect("nobody panics with the lock").insert(call.key().to_owned());
        Reply::ok().after(Duration::from_millis(5))
    });
    let flags = ["--max-concurrency", "64", "--concurrency", "fixed"];
    let rows_sent = || sent.lock().expect("nobody panics with the lock").len();
    // The first kill may come before the input was read, and the others after so many rows were sent.
    let mut moments: Vec<usize> = (1..KILLS).map(|_| rand::random_range(1..ROWS - 200)).collect();
    moments.sort_unstable();
    println!("kills after {moments:?} rows");
    let (mut at_kills, mut found) = (Vec::new(), Vec::new());

    for kill in 0..KILLS {
        let run = stage.start(&flags);
        match kill.checked_sub(1) {
            None => tokio::time::sleep(Duration::from_millis(rand::random_range(0..500))).await,
            Some(moment) => {
                until("rows to be sent", || rows_sent() >= moments[moment] && recorded(&run.said()).is_some()).await;
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..20))).await;
            }
        }
        let said = run.kill();
        if kill > 0 {
            found.push(recorded(&said).expect("it has said so"));
        }
        // A call that was sent just before the kill may still arrive.
        until("no call to be under way", || stage.upstream.running() == 0).await;
        at_kills.push(rows_sent());
    }
    let said = stage.run(&flags, 0).await;

    found.push(recorded(&said).expect("it has said so"));
    let verdict = stage.verdict();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!((verdict.rows, verdict.output_lines), (ROWS as u64, ROWS as u64));
    assert_eq!(stage.names(), ["err.jsonl", "in.jsonl", "out.jsonl", "said"]);
    let repeats = calls.load(Relaxed) - ROWS;
    // Of each kill: the rows that were sent by then, and were not recorded when the next run began.
    let lost: usize = at_kills.iter().zip(&found).map(|(sent, recorded)| sent - recorded).sum();
    println!(
        "{repeats} rows were sent again; {lost} were in flight at the kills ({at_kills:?} sent, {found:?} recorded)"
    );
    assert!(repeats <= lost, "{repeats} rows were sent again, and {lost} were in flight at the kills");
    assert!(found.last() >= Some(&(ROWS / 10)), "the kills came before anything was recorded");
}
