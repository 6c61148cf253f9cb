//! Wall clocks that step, in both directions: a time server corrects them, or a machine resumes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::common::builders::rows;
use crate::common::process::Process;
use crate::stage::{Stage, number, setting};

const ROWS: usize = 256;
/// Calls at once: an eighth of the rows, so that a lease is under way for as long as the clock steps.
const CONCURRENCY: &str = "32";
/// Half of the calls take less, some ten times as long, and the same row takes another time when it is asked again.
const LATENCY: &str = "lognormal:300ms:1.0";
/// How far off a clock may be after a step, in seconds.
const OFFSETS: [i64; 10] = [-7200, -600, -60, -20, -1, 1, 20, 60, 600, 7200];
/// Runs that go on at the same time; they wait more than they work.
const AT_ONCE: usize = 4;

/// The wall clock of a process, as libfaketime shows it to it. Its monotonic clock is the machine's.
struct WallClock {
    file: PathBuf,
}

impl WallClock {
    fn new(stage: &Stage, name: &str) -> Self {
        let clock = Self { file: stage.directory.path().join(name) };
        clock.set(0);
        clock
    }

    /// So many seconds ahead of the machine's clock from now on.
    fn set(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the directory can be written");
        std::fs::rename(new, &self.file).expect("the directory can be written");
    }

    /// Has a process that is to be started live by this clock.
    fn rule(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

fn library() -> PathBuf {
    let machines = std::fs::read_dir("/usr/lib").expect("there are libraries").flatten();
    let found = machines.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    found.expect("libfaketime is not installed: `make faketime` installs it")
}

async fn serve_by(clock: &WallClock, stage: &Stage, flags: &[&str]) -> Process {
    let mut command = stage.command_at("127.0.0.1:0", flags);
    clock.rule(&mut command);
    Process::start(command).await
}

/// Runs one batch while the clocks of its workers step.
async fn one_run(stage: Stage, workers: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let clocks: Vec<WallClock> = (0..workers).map(|no| WallClock::new(&stage, &format!("clock-{no}"))).collect();
    let mut servers = Vec::new();
    for clock in &clocks {
        servers.push(serve_by(clock, &stage, &["--max-concurrency", CONCURRENCY]).await);
    }
    let client = servers[0].client();
    let input = rows(ROWS);
    let id = client.submit(input.clone()).await;

    while client.batch(&id).await["status"] != "completed" {
        // The moment is the point: a lease is claimed, a heartbeat is due, a row is under way.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..600))).await;
        let clock = &clocks[random.random_range(0..workers)];
        clock.set(OFFSETS[random.random_range(0..OFFSETS.len())]);
    }
    let batch = client.wait_for(&id, "completed").await;

    let counts = &batch["request_counts"];
    assert_eq!((number(&counts["completed"]), number(&counts["total"])), (ROWS as u64, ROWS as u64), "seed {seed}");
    assert_eq!(stage.sent().await, (ROWS as u64, 0), "seed {seed}: a row was sent again");
    for server in &servers {
        let log = server.log();
        assert!(!log.contains("taken over") && !log.contains("ERROR"), "seed {seed}: {log}");
    }
    stage.prove(&client, &input, &batch, servers).await;
}

async fn series(runs: u64, one_run: impl AsyncFn(u64)) {
    let seed = setting("CHAOS_SEED", 1);
    stream::iter(seed..seed + runs).for_each_concurrent(AT_ONCE, |seed| one_run(seed)).await;
    println!("{runs} runs with clock steps, seeds from {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_no_clock_step_loses_or_doubles_a_row() {
    let runs = setting("CHAOS_CLOCK_RUNS", 4);
    series(runs, async |seed| one_run(Stage::sqlite(&["--latency", LATENCY]).await, 1, seed).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_no_clock_step_loses_or_doubles_a_row() {
    let runs = setting("CHAOS_CLOCK_RUNS", 4).div_ceil(2);
    series(runs, async |seed| one_run(Stage::postgres(&["--latency", LATENCY]).await, 2, seed).await).await;
}
