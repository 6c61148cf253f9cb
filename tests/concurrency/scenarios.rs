//! Loads and servers, and the share of the best fixed limit's throughput that the controller reaches with them.

use batchwright::simulator::batching::{BatchingSettings, CallStatus};
use batchwright::upstream::admission::ConcurrencyController;

use crate::load::{Change, Load, Report, Rows, run};

/// The ceiling of the controller in each scenario.
pub(crate) const CEILING: usize = 256;
/// How many times longer calls of others may take (95 %) than beside the best.
const OTHERS_SLOWER: f64 = 1.3;
pub(crate) const SEEDS: [u64; 3] = [1, 2, 3];

/// A server, a load, and what the controller has to reach.
struct Scenario {
    name: &'static str,
    server: BatchingSettings,
    /// Other servers beside it, with the same model.
    others: Vec<BatchingSettings>,
    load: Load,
    changes: Vec<(f64, Change)>,
    seconds: f64,
    best: Best,
    /// The least share of the best throughput, and the highest share of wasted calls.
    share: f64,
    wasted: f64,
}

/// What the controller is compared with.
enum Best {
    /// The best fixed limit, found by `sweep`.
    Limit(usize),
    /// A fixed limit for each server: its slots.
    Slots,
    /// The best fixed limits of phases of equal length, each with its number of slots.
    Phases(&'static [usize]),
    /// The tokens that a minute allows.
    TokensPerMinute(f64),
}

fn scenarios() -> Vec<Scenario> {
    let all = [constant_servers(), servers_that_change(), fast_and_slow_servers(), shared_servers()];
    all.into_iter().flatten().collect()
}

#[rustfmt::skip]
fn shared_servers() -> Vec<Scenario> {
    let (server, load) = (BatchingSettings::default(), Load::default());
    let [middle, small] = [32, 16].map(|slots| BatchingSettings { slots, ..server });
    let refuses = [server, middle, small].map(|server| BatchingSettings { refuses: true, ..server });
    let slow = BatchingSettings { base: 0.016, ..middle };
    let others = Load { others_a_second: 4.0, ..load };
    vec![
        scenario("64, 32 and 16 slots, queue", server, load, 300.0, Best::Slots, 0.95).beside(&[middle, small]),
        scenario("the same, one half as fast", server, load, 300.0, Best::Slots, 0.95).beside(&[slow, small]),
        scenario("64, 32 and 16 slots, refuse", refuses[0], load, 300.0, Best::Slots, 0.95)
            .beside(&refuses[1..]).wasting(0.01),
        scenario("calls of others beside, queues", server, others, 300.0, Best::Limit(64), 0.95),
        scenario("the same, metrics are read", server, others.with_metrics(), 300.0, Best::Limit(64), 0.95),
    ]
}

#[rustfmt::skip]
fn constant_servers() -> Vec<Scenario> {
    use Best::{Limit, TokensPerMinute};
    let (server, load) = (BatchingSettings::default(), Load::default());
    let retry_after = Some(1.0);
    let refuses = BatchingSettings { refuses: true, ..server };
    let pauses = BatchingSettings { retry_after, ..refuses };
    let kv = BatchingSettings { slots: 256, kv: 110_000.0, base: 0.02, per_sequence: 2e-4, prefill: 6000.0, ..server };
    let large = BatchingSettings { slots: 200, ..refuses };
    let small = BatchingSettings { slots: 8, base: 0.03, per_sequence: 5e-3, prefill: 2000.0, ..server };
    let smallest = BatchingSettings { slots: 2, ..small };
    let remote = BatchingSettings { overhead: 1.0, ..server };
    let prefill = BatchingSettings { prefill: 10_000.0, ..server };
    let tpm = BatchingSettings { tokens_per_minute: Some(600_000.0), ..hosted() };
    let tpm_told = BatchingSettings { has_headers: true, ..tpm };
    let tpm_pauses = BatchingSettings { retry_after, ..tpm };
    let long = Load { prompt: (1500.0, 0.7, 8000.0), output: (250.0, 0.9, 2000.0), ..load };
    let labels = Load { prompt: (3000.0, 0.7, 16_000.0), output: (10.0, 0.9, 100.0), ..load };
    let same = Load { output: (128.0, 0.0, 2000.0), prompt: (400.0, 0.3, 6000.0), ..load };
    vec![
        scenario("refuses above 64", refuses, load, 300.0, Limit(64), 0.955).wasting(0.01),
        scenario("refuses, Retry-After", pauses, load, 300.0, Limit(64), 0.95).wasting(0.01),
        scenario("refuses above 200", large, load, 300.0, Limit(200), 0.95).wasting(0.01),
        scenario("queues above 64", server, load, 300.0, Limit(64), 0.956),
        scenario("queues, no usage", server, load.without_usage(10), 300.0, Limit(64), 0.95),
        scenario("queues, some without usage", server, load.without_usage(1), 300.0, Limit(64), 0.95),
        scenario("queues, metrics are read", server, load.with_metrics(), 300.0, Limit(64), 0.95),
        scenario("queues, no usage but metrics", server, load.without_usage(10).with_metrics(), 300.0, Limit(64), 0.95),
        scenario("queues, answers of one length", server, same, 120.0, Limit(64), 0.964),
        scenario("queues, 1 s of network", remote, load, 300.0, Limit(80), 0.95),
        scenario("queues, mostly prompts", prefill, labels, 300.0, Limit(12), 0.9),
        scenario("KV thrash", kv, long, 900.0, Limit(48), 0.93),
        scenario("KV thrash, no usage", kv, long.without_usage(10), 900.0, Limit(48), 0.9),
        scenario("8 slots", small, load, 900.0, Limit(8), 0.96),
        scenario("2 slots", smallest, load, 900.0, Limit(2), 0.96),
        scenario("tokens per minute", tpm, load, 900.0, TokensPerMinute(6e5), 0.95).wasting(0.01),
        scenario("tokens per minute, headers", tpm_told, load, 900.0, TokensPerMinute(6e5), 0.95).wasting(0.01),
        scenario("tokens per minute, Retry-After", tpm_pauses, load, 900.0, TokensPerMinute(6e5), 0.95).wasting(0.01),
    ]
}

#[rustfmt::skip]
fn servers_that_change() -> Vec<Scenario> {
    use Best::{Limit, Phases};
    let (server, load) = (BatchingSettings::default(), Load::default());
    let refuses = BatchingSettings { refuses: true, ..server };
    let near = BatchingSettings { overhead: 0.2, ..server };
    let unavailable = BatchingSettings { status_when_down: CallStatus::Unavailable, ..server };
    let slots = [(300.0, Change::Slots(16)), (600.0, Change::Slots(128))];
    let phases = || Phases(&[64, 16, 128]);
    let outage = [(300.0, Change::Down), (320.0, Change::Up)];
    vec![
        scenario("64, 16, 128 slots, queues", server, load, 900.0, phases(), 0.91).changing(&slots),
        scenario("the same, 0.2 s of network", near, load, 900.0, phases(), 0.85).changing(&slots),
        scenario("64, 16, 128 slots, refuses", refuses, load, 900.0, phases(), 0.89).changing(&slots).wasting(0.01),
        scenario("20 s without connection", server, load, 900.0, Limit(64), 0.95).changing(&outage).wasting(0.01),
        scenario("20 s of 503", unavailable, load, 900.0, Limit(64), 0.95).changing(&outage).wasting(0.01),
    ]
}

#[rustfmt::skip]
fn fast_and_slow_servers() -> Vec<Scenario> {
    use Best::Limit;
    let load = Load::default();
    let fast = BatchingSettings { base: 0.001, prefill: 1e9, ..hosted() };
    let queues = BatchingSettings { slots: 32, ..fast };
    let refuses = BatchingSettings { refuses: true, ..queues };
    let uneven = BatchingSettings { base: 0.0005, ..fast };
    let proxy = BatchingSettings { overhead: 0.4, ..hosted() };
    let slow = BatchingSettings { slots: 256, base: 0.3, ..BatchingSettings::default() };
    let one = Load { output: (1.0, 0.0, 1.0), prompt: (20.0, 0.0, 20.0), ..load };
    let words = Load { output: (4.0, 0.8, 30.0), ..load };
    let pages = Load { output: (2000.0, 0.3, 4000.0), ..load };
    vec![
        scenario("1 ms, not limited", fast, one, 0.2, Limit(256), 0.95),
        scenario("1 ms, queues above 32", queues, one, 0.2, Limit(32), 0.95),
        scenario("1 ms, refuses above 32", refuses, one, 1.0, Limit(32), 0.95).wasting(0.01),
        scenario("2 ms, uneven", uneven, words, 0.2, Limit(256), 0.93),
        scenario("2 ms, uneven, no usage", uneven, words.without_usage(10), 0.2, Limit(256), 0.93),
        scenario("constant latency, short answers", proxy, words, 120.0, Limit(256), 0.95),
        scenario("constant latency, long answers", proxy, load, 300.0, Limit(256), 0.94),
        scenario("answers of ten minutes", slow, pages, 4.0 * 3600.0, Limit(256), 0.85),
    ]
}

/// A proxy to a provider that is never busy.
fn hosted() -> BatchingSettings {
    let slots = 1_000_000;
    BatchingSettings {
        slots,
        base: 0.02,
        per_sequence: 0.0,
        per_context: 0.0,
        prefill: 1e6,
        ..BatchingSettings::default()
    }
}

fn scenario(
    name: &'static str,
    server: BatchingSettings,
    load: Load,
    seconds: f64,
    best: Best,
    share: f64,
) -> Scenario {
    Scenario { name, server, others: Vec::new(), load, changes: Vec::new(), seconds, best, share, wasted: 0.0 }
}

impl Scenario {
    fn wasting(self, wasted: f64) -> Self {
        Self { wasted, ..self }
    }

    fn beside(self, others: &[BatchingSettings]) -> Self {
        Self { others: others.to_vec(), ..self }
    }

    fn changing(self, changes: &[(f64, Change)]) -> Self {
        Self { changes: changes.to_vec(), ..self }
    }

    fn controlled(&self, seed: u64) -> Report {
        self.run(seed, |_| ConcurrencyController::new(CEILING))
    }

    fn run(&self, seed: u64, controller: impl Fn(&BatchingSettings) -> ConcurrencyController) -> Report {
        let servers = self.others.iter().chain([&self.server]).map(|server| (*server, controller(server))).collect();
        run(servers, self.load, &self.changes, self.seconds, seed)
    }

    /// The best that is possible, as far as it is a run: the calls of others show it too.
    fn best_run(&self, seed: u64) -> Option<Report> {
        match self.best {
            Best::Limit(limit) => Some(self.run(seed, |_| ConcurrencyController::fixed(limit))),
            Best::Slots => Some(self.run(seed, |server| ConcurrencyController::fixed(server.slots))),
            Best::Phases(_) | Best::TokensPerMinute(_) => None,
        }
    }

    /// The output tokens of the best that is possible.
    fn best(&self, seed: u64) -> f64 {
        if let Some(best) = self.best_run(seed) {
            return best.delivered;
        }
        match self.best {
            Best::Limit(_) | Best::Slots => 0.0,
            Best::Phases(slots) => {
                let seconds = self.seconds / f64::from(u32::try_from(slots.len()).unwrap_or(1));
                let phase = |slots: &usize| {
                    let server = BatchingSettings { slots: *slots, refuses: false, ..self.server };
                    let servers = vec![(server, ConcurrencyController::fixed(*slots))];
                    run(servers, self.load, &[], seconds, seed).delivered
                };
                slots.iter().map(phase).sum()
            }
            Best::TokensPerMinute(tokens) => {
                let (mut budget, mut rows, mut delivered) = (tokens * (1.0 + self.seconds / 60.0), 0, 0.0);
                let mut source = Rows::new(self.load, seed);
                while budget > 0.0 {
                    let row = source.next();
                    budget -= row.prompt + row.most_output;
                    delivered += row.output;
                    rows += 1;
                }
                assert!(rows > 0);
                delivered
            }
        }
    }

    fn fixed(&self, limit: usize, seed: u64) -> f64 {
        self.run(seed, |_| ConcurrencyController::fixed(limit)).delivered
    }
}

/// Runs every scenario, prints what came of it, and returns the names of those that missed their share. With `sweep`,
/// prints the throughput of fixed limits too, from which the scenarios have their best ones.
pub(crate) fn table(with_sweep: bool) -> Vec<&'static str> {
    let mut failures = Vec::new();
    println!(
        "{:31} {:^18} {:^19} {:^16} {:>8} {:>10}  reason",
        "server", "share of the best", "wasted, %", "limit at the end", "highest", "ceiling at"
    );
    for scenario in scenarios() {
        let runs = SEEDS.map(|seed| scenario.controlled(seed));
        let best = SEEDS.map(|seed| scenario.best(seed));
        let shares: Vec<f64> = runs.iter().zip(best).map(|(run, best)| run.delivered / best).collect();
        let wasted: Vec<f64> = runs.iter().map(|run| run.wasted / run.calls).collect();
        print_row(&scenario, &runs, &shares, &wasted);
        if scenario.load.others_a_second > 0.0 {
            let best = SEEDS.map(|seed| scenario.best_run(seed).map_or(0.0, |best| best.others_p95));
            let ratios: Vec<f64> = runs.iter().zip(best).map(|(run, best)| run.others_p95 / best).collect();
            println!("    the calls of others take {ratios:.2?} times as long (95 %) as beside the best");
            if ratios.iter().any(|ratio| *ratio > OTHERS_SLOWER) {
                failures.push(scenario.name);
            }
        }
        let is_short = shares.iter().any(|share| *share < scenario.share);
        if is_short || wasted.iter().any(|wasted| *wasted > scenario.wasted) {
            failures.push(scenario.name);
        }
        if with_sweep {
            sweep(&scenario);
        }
    }
    failures
}

fn print_row(scenario: &Scenario, runs: &[Report], shares: &[f64], wasted: &[f64]) {
    let joined = |values: Vec<String>| values.join(" ");
    let shares = joined(shares.iter().map(|share| format!("{share:.3}")).collect());
    let wasted = joined(wasted.iter().map(|wasted| format!("{:5.2}", wasted * 100.0)).collect());
    let limits = joined(runs.iter().map(|run| format!("{:4}", run.limit)).collect());
    let highest = runs.iter().map(|run| run.highest_limit).max().unwrap_or_default();
    let ceiling = runs.first().and_then(|run| run.reached_ceiling).map_or("-".to_owned(), |at| format!("{at:.3} s"));
    let reason = runs.first().map_or(String::new(), |run| format!("{:?}", run.reason));
    println!("{:31} {shares:^18} {wasted:^19} {limits:^16} {highest:>8} {ceiling:>10}  {reason}", scenario.name);
}

/// Prints the throughput of fixed limits as shares of the best one's.
fn sweep(scenario: &Scenario) {
    let Best::Limit(best) = scenario.best else { return };
    print!("    fixed");
    let most = if scenario.server.refuses { scenario.server.slots } else { 1024 };
    for limit in [4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256] {
        if limit <= most {
            print!(" {limit}:{:.3}", scenario.fixed(limit, 1) / scenario.fixed(best, 1));
        }
    }
    println!();
}
