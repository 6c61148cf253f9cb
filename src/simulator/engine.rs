//! A server with continuous batching (`batching`) in real time: requests wait for what it makes of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::batching::{BatchingReply, BatchingServer, SimulatedRow};
use super::prefix_cache::PrefixCache;
use super::scenario::Scenario;
use crate::sync::lock;

/// The server. Clones are the same.
#[derive(Clone)]
pub(super) struct Engine {
    shared: Arc<EngineShared>,
}

struct EngineShared {
    scenario: Scenario,
    state: Mutex<EngineState>,
    /// Told when the next event may be another one.
    changed: Notify,
    /// When the first request came.
    started: OnceLock<Instant>,
}

struct EngineState {
    server: BatchingServer,
    prefixes: PrefixCache,
    /// The status of every request, while the server does not work.
    status: u16,
    calls: usize,
    waiting: HashMap<usize, oneshot::Sender<BatchingReply>>,
    /// How many of the scenario's changes have been made.
    changes_made: usize,
}

/// What a request has of the server's work.
pub(super) struct EngineAnswer {
    pub(super) reply: BatchingReply,
    /// The server's status, if it does not work.
    pub(super) status: u16,
    /// Tokens of the prompt that the server knew.
    pub(super) cached: usize,
}

/// Ends a call when its client goes away.
struct EngineCall<'a> {
    engine: &'a Engine,
    call: usize,
}

impl Engine {
    pub(super) fn new(mut scenario: Scenario) -> Self {
        scenario.changes.sort_by_key(|change| change.after);
        let state = EngineState {
            server: BatchingServer::new(scenario.batching()),
            prefixes: PrefixCache::new(scenario.prefix_cache_tokens),
            status: 200,
            calls: 0,
            waiting: HashMap::new(),
            changes_made: 0,
        };
        let (state, changed, started) = (Mutex::new(state), Notify::new(), OnceLock::new());
        Self { shared: Arc::new(EngineShared { scenario, state, changed, started }) }
    }

    /// Requests that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.shared.state).server.waiting()
    }

    pub(super) fn scenario(&self) -> &Scenario {
        &self.shared.scenario
    }

    /// Has the server answer a request with this body, whose row has no cached tokens yet.
    pub(super) async fn answer(&self, body: &[u8], row: SimulatedRow) -> EngineAnswer {
        let now = self.now();
        let (call, cached, answered) = {
            let mut state = lock(&self.shared.state);
            let cached = state.prefixes.look_up(body);
            state.calls += 1;
            let call = state.calls;
            let (answer, answered) = oneshot::channel();
            state.waiting.insert(call, answer);
            let known = f64::from(u32::try_from(cached).unwrap_or(u32::MAX)).min(row.prompt);
            state.server.send(now, call, SimulatedRow { cached: known, ..row });
            (call, cached, answered)
        };
        let under_way = EngineCall { engine: self, call };
        self.shared.changed.notify_one();
        let reply = answered.await.expect("every call is answered");
        drop(under_way);
        sleep_until(self.at(reply.at)).await;
        EngineAnswer { reply, status: lock(&self.shared.state).status, cached }
    }

    /// Seconds since the first request, which starts the clock.
    fn now(&self) -> f64 {
        let started = self.shared.started.get_or_init(|| {
            let engine = self.clone();
            tokio::spawn(async move { engine.run().await });
            Instant::now()
        });
        started.elapsed().as_secs_f64()
    }

    fn at(&self, seconds: f64) -> Instant {
        let started = self.shared.started.get().copied().unwrap_or_else(Instant::now);
        started + Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// Wakes the server when something is due, and makes the changes of the scenario.
    async fn run(self) {
        loop {
            let due = self.turn();
            let _ = timeout_at(due, self.shared.changed.notified()).await;
        }
    }

    /// Does what is due. When the next is.
    fn turn(&self) -> Instant {
        const LONG: Duration = Duration::from_secs(3600);
        let now = self.now();
        let mut state = lock(&self.shared.state);
        let changes = &self.shared.scenario.changes;
        while let Some(change) = changes.get(state.changes_made).filter(|change| change.after.as_secs_f64() <= now) {
            state.changes_made += 1;
            state.change(now, change.slots, change.status);
        }
        let (wake, version) = state.server.next_wake();
        if wake.is_some_and(|wake| wake <= now) {
            state.server.wake(now, version);
        }
        state.hand_out();
        let (wake, _) = state.server.next_wake();
        let change = changes.get(state.changes_made).map(|change| change.after.as_secs_f64());
        let next = [wake, change].into_iter().flatten().min_by(f64::total_cmp);
        next.map_or_else(|| Instant::now() + LONG, |next| self.at(next.max(now)))
    }
}

impl EngineState {
    fn change(&mut self, now: f64, slots: Option<usize>, status: Option<u16>) {
        if let Some(slots) = slots {
            self.server.resize(now, slots);
        }
        match status {
            None => {}
            Some(200) => {
                self.status = 200;
                self.server.come_up(now);
            }
            Some(status) => {
                self.status = status;
                self.server.go_down(now);
            }
        }
    }

    fn hand_out(&mut self) {
        for reply in std::mem::take(&mut self.server.replies) {
            if let Some(answer) = self.waiting.remove(&reply.call) {
                // Its client may have gone away.
                let _ = answer.send(reply);
            }
        }
    }
}

impl Drop for EngineCall<'_> {
    fn drop(&mut self) {
        let now = self.engine.now();
        let mut state = lock(&self.engine.shared.state);
        if state.waiting.remove(&self.call).is_some() {
            state.server.abort(now, self.call);
            self.engine.shared.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::simulator::batching::CallStatus;

    const ROW: SimulatedRow = SimulatedRow { prompt: 100.0, cached: 0.0, output: 10.0, most_output: 512.0 };

    fn engine(toml: &str) -> Engine {
        Engine::new(toml::from_str(toml).expect("a scenario"))
    }

    /// Sends a request, once those before it have come.
    async fn sent(engine: &Engine, row: SimulatedRow) -> JoinHandle<CallStatus> {
        let (before, sending) = (lock(&engine.shared.state).calls, engine.clone());
        let call = tokio::spawn(async move { sending.answer(b"", row).await.reply.status });
        while lock(&engine.shared.state).calls == before {
            tokio::task::yield_now().await;
        }
        call
    }

    #[tokio::test]
    async fn slots_and_known_prompts_are_as_the_scenario_says() {
        let engine = engine("slots = 2\nrefuse = true\nretry_after = '1s'\nprefix_cache_tokens = 1000");
        let body = [7; 640];

        let answers = futures::future::join_all((0..3).map(|_| engine.answer(&body, ROW))).await;

        let statuses: Vec<_> = answers.iter().map(|answer| answer.reply.status).collect();
        assert_eq!(statuses, [CallStatus::Answered, CallStatus::Answered, CallStatus::Refused]);
        assert_eq!(answers.iter().map(|answer| answer.cached).collect::<Vec<_>>(), [0, 160, 160]);
        assert_eq!(answers[2].reply.retry_after, Some(1.0));
    }

    #[tokio::test]
    async fn a_server_changes_as_the_scenario_says() {
        let engine = engine("[[changes]]\nafter = '0s'\nstatus = 503\n[[changes]]\nafter = '300ms'\nstatus = 200");
        // The first request starts the clock.
        while engine.answer(b"", ROW).await.reply.status == CallStatus::Answered {}

        let away = engine.answer(b"", ROW).await;
        assert_eq!((away.reply.status, away.status), (CallStatus::Unavailable, 503));

        while engine.answer(b"", ROW).await.reply.status != CallStatus::Answered {}
    }

    #[tokio::test]
    async fn a_request_whose_client_goes_away_frees_its_slot() {
        let engine = engine("slots = 1\ntoken_time = '10ms'");
        let call = sent(&engine, SimulatedRow { output: 1e9, ..ROW }).await;
        let waiting = sent(&engine, ROW).await;
        // The server sleeps until the end of the first.
        tokio::time::sleep(Duration::from_millis(20)).await;
        call.abort();

        assert_eq!(waiting.await.expect("it is answered"), CallStatus::Answered);
        assert_eq!(engine.answer(b"", ROW).await.reply.status, CallStatus::Answered);
    }
}
