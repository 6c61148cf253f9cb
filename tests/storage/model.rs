//! Random interleavings of daemons, clients and finishers: whatever happens, each row has its line exactly once.
//!
//! A case is one batch and a seed, which decides all that happens to it; a failure names the seed. `MODEL_CASES` sets
//! how many cases are run, which start from the seed in `MODEL_SEED` or 0.

mod case;
mod daemon;

use batchwright::storage::Result;
use case::Case;
use daemon::Recorder;

use crate::given::TestStorage;

#[tokio::test]
async fn on_sqlite_every_row_has_its_line_exactly_once() -> Result<()> {
    run_cases(&TestStorage::sqlite().await, 60).await
}

#[tokio::test]
async fn on_postgres_every_row_has_its_line_exactly_once() -> Result<()> {
    run_cases(&TestStorage::postgres().await, 20).await
}

#[tokio::test]
async fn a_recorder_that_confuses_runs_of_a_lease_loses_calls_and_no_line() -> Result<()> {
    let storage = TestStorage::sqlite().await;
    let mut violations = 0;
    for seed in seeds(200) {
        let named = NameOnPanic(seed);
        violations += Case::new(&storage, seed, Recorder::ConfusesTokens).await?.run().await?;
        std::mem::forget(named);
    }
    assert!(violations > 0, "the guard was never asked: the fault does not show");
    Ok(())
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn without_the_guard_the_same_recorder_breaks_the_promise() {
    use futures::FutureExt as _;
    use std::panic::AssertUnwindSafe;

    for seed in seeds(200) {
        let storage = TestStorage::without_guard().await;
        let case = Case::new(&storage, seed, Recorder::ConfusesTokens).await.expect("a fresh database takes a batch");
        let kept = AssertUnwindSafe(case.run()).catch_unwind().await;
        if !matches!(kept, Ok(Ok(_))) {
            return;
        }
    }
    panic!("the model does not find the fault that the guard is for");
}

async fn run_cases(storage: &TestStorage, cases: u64) -> Result<()> {
    for seed in seeds(cases) {
        let named = NameOnPanic(seed);
        let violations = Case::new(storage, seed, Recorder::KeysByToken).await?.run().await?;
        assert_eq!(violations, 0, "nothing that the program does contradicts the ledger");
        std::mem::forget(named);
    }
    Ok(())
}

fn seeds(cases: u64) -> std::ops::Range<u64> {
    let first = setting("MODEL_SEED").unwrap_or(0);
    first..first + setting("MODEL_CASES").unwrap_or(cases)
}

#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// Says which seed it was if the case does not get to its end.
struct NameOnPanic(u64);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        eprintln!("the case of seed {0} failed; run it alone by MODEL_SEED={0} MODEL_CASES=1", self.0);
    }
}
