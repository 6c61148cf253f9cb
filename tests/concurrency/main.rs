//! The number of calls at once, found by the admission, against the best fixed number: on simulated servers and a
//! virtual clock. `cargo test --test concurrency -- --nocapture` prints the table. `make bench-upstream` prints the
//! throughput of fixed numbers too.

mod load;
mod scenarios;

#[test]
fn the_calls_at_once_reach_their_share_of_the_best_throughput() {
    let missed = scenarios::table(false);
    assert!(missed.is_empty(), "below their share: {missed:?}");
}
