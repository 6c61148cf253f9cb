//! Waiting for something to happen: asked again and again, and a failed test if it does not.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Far longer than anything takes: a test that waits this long has failed. The long series say how long they take.
static DEADLINE: LazyLock<Duration> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
    let patience = std::env::var("CHAOS_PATIENCE");
    patience.map_or(Duration::from_mins(1), |text| humantime::parse_duration(&text).expect("a duration"))
});
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(*DEADLINE, what, ask).await
}

/// Asks until there is an answer, which has to come within `limit`.
pub async fn within<T>(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, async || holds().then_some(())).await;
}
