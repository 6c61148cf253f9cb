//! `kill -9` at random moments of a run: the same command line finishes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::fake_upstream::{Reply, lock};
use crate::stage::Stage;

const ROWS: usize = 5_000;
const KILLS: usize = 10;
/// Rows in flight at most.
const CONCURRENCY: usize = 64;

/// How many rows were done when a run began, as its first line of progress says.
fn recorded(said: &str) -> Option<usize> {
    let (before, _) = said.split_once(&format!(" of {ROWS} rows"))?;
    before.rsplit(char::is_whitespace).next()?.parse().ok()
}

/// The calls of all runs.
#[derive(Default)]
struct Calls {
    /// The run that sent a row last.
    sent_by: HashMap<String, usize>,
    /// The rows of each run that a later one sent again.
    repeats: [usize; KILLS + 1],
    run: usize,
}

impl Calls {
    fn note(&mut self, key: &str) {
        if let Some(earlier) = self.sent_by.insert(key.to_owned(), self.run) {
            self.repeats[earlier] += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_again_and_again_goes_on_with_the_same_command_line() {
    let stage = Stage::new(rows(ROWS));
    let calls = Arc::<Mutex<Calls>>::default();
    let noted = calls.clone();
    stage.upstream.reply(move |call| {
        // Calls without a key only ask whether the server is there.
        if !call.key().is_empty() {
            lock(&noted).note(call.key());
        }
        Reply::ok().after(Duration::from_millis(5))
    });
    let flags = ["--max-concurrency", &CONCURRENCY.to_string(), "--concurrency", "fixed"];
    // The first kill may come before the input was read, and the others after so many rows were sent.
    let mut moments: Vec<usize> = (1..KILLS).map(|_| rand::random_range(1..ROWS - 200)).collect();
    moments.sort_unstable();
    println!("kills after {moments:?} rows");

    for kill in 0..KILLS {
        let run = stage.start(&flags);
        match kill.checked_sub(1) {
            None => tokio::time::sleep(Duration::from_millis(rand::random_range(0..500))).await,
            Some(moment) => {
                let are_sent = || lock(&calls).sent_by.len() >= moments[moment];
                until("rows to be sent", || are_sent() && recorded(&run.said()).is_some()).await;
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..20))).await;
            }
        }
        run.kill();
        // A call that was sent just before the kill may still arrive.
        until("no call to be under way", || stage.upstream.running() == 0).await;
        lock(&calls).run += 1;
    }
    let said = stage.run(&flags, 0).await;

    let verdict = stage.verdict();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!((verdict.rows, verdict.output_lines), (ROWS as u64, ROWS as u64));
    assert_eq!(stage.names(), ["err.jsonl", "in.jsonl", "out.jsonl", "said"]);
    let repeats = lock(&calls).repeats;
    println!("rows of each run that a later one sent again: {repeats:?}");
    assert!(repeats.iter().all(|repeats| *repeats <= CONCURRENCY), "{repeats:?}: more than were in flight at the kill");
    assert!(recorded(&said) >= Some(ROWS / 10), "the kills came before anything was recorded");
}
