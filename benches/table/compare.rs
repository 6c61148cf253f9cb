//! This build beside the program of another, such as of the commit before: both run at once, and take turns at the same
//! work, so that the ratio of each pair is of one machine and one moment.

use std::path::Path;
use std::time::{Duration, Instant};

use batchwright::client::Client;
use serde_json::json;

use crate::client::{create_batch, upload, wait_for};
use crate::process::Process;
use crate::responses::{input as responses_input, tool_server};
use crate::{CHAT, CONCURRENCY, ROWS, Result, input, middle, millis, p99, row};

const PAIRS: usize = 15;
const RESPONSES: &str = "/v1/responses";

pub async fn compare(directory: &Path, other: &Path) -> Result<()> {
    let settings = directory.join("settings.toml");
    let tool = format!("[[tools]]\nname = 'add'\nurl = '{}'\nmax_concurrency = {CONCURRENCY}\n", tool_server().await?);
    std::fs::write(&settings, tool)?;
    let upstream = Process::simulate()?;
    let concurrency = CONCURRENCY.to_string();
    let flags = ["--config", settings.to_str().ok_or("a path that is no text")?, "--max-concurrency", &concurrency];
    let mut builds = [
        Build::of(Process::serve_by(other, &directory.join("other"), &upstream.address, &flags)?)?,
        Build::of(Process::serve(&directory.join("this"), &upstream.address, &flags)?)?,
    ];
    row("ratios of this build to the other", "rate", format!("middle of {PAIRS} pairs, in brackets the middle half"));
    let call = json!({ "turns": [[{ "name": "add", "arguments": { "a": 2, "b": 3 } }]] });
    let tools = json!([{ "type": "function", "name": "add" }]);
    let plain = responses_input(10_000, &json!("How much is two and three?"), &json!([]));
    let calling = responses_input(2_000, &json!(format!("simulate:{call}")), &tools);

    let file = input(ROWS);
    // Each file is deleted before the system has written it out, so that neither build waits for the other's writes.
    in_pairs("intake of 5 times 50,000 rows", &mut builds, async |build| {
        for _ in 0..5 {
            let file = upload(&build.client, file.clone()).await?;
            build.client.delete_file(&file).await?;
        }
        Ok(())
    })
    .await?;
    let drains = [
        ("drain of 50,000 rows", file, CHAT),
        ("10,000 rows for /v1/responses", plain, RESPONSES),
        ("2,000 rows that call a tool", calling, RESPONSES),
    ];
    for (what, file, endpoint) in drains {
        for build in &mut builds {
            build.file = upload(&build.client, file.clone()).await?;
        }
        in_pairs(what, &mut builds, async |build| build.drain(endpoint).await).await?;
        let [other, this] = builds.each_mut().map(|build| p99(&mut std::mem::take(&mut build.reads)));
        row("status read in the meantime, p99", millis(this), format!("{} by the other build", millis(other)));
    }
    Ok(())
}

/// A running server of one build.
struct Build {
    server: Process,
    client: Client,
    /// The batch input file that was uploaded last.
    file: String,
    /// How long each read of a batch's status took.
    reads: Vec<Duration>,
}

impl Build {
    fn of(server: Process) -> Result<Self> {
        let client = Client::new(&server.address)?;
        Ok(Self { server, client, file: String::new(), reads: Vec::new() })
    }

    async fn drain(&mut self, endpoint: &str) -> Result<()> {
        let batch = create_batch(&self.client, &self.file, endpoint).await?;
        let (_, reads) = wait_for(&self.client, &batch, Duration::from_millis(5)).await?;
        self.reads.extend(reads);
        Ok(())
    }

    async fn measure(&mut self, work: &mut impl AsyncFnMut(&mut Self) -> Result<()>) -> Result<(f64, f64)> {
        let cpu_before = self.server.cpu_time()?;
        let started = Instant::now();
        work(self).await?;
        let took = started.elapsed();
        Ok((took.as_secs_f64(), self.server.cpu_time()?.saturating_sub(cpu_before).as_secs_f64()))
    }
}

/// Has both builds do the same work in turns, and prints a row. The first pair only warms them up.
async fn in_pairs(
    what: &str,
    builds: &mut [Build; 2],
    mut work: impl AsyncFnMut(&mut Build) -> Result<()>,
) -> Result<()> {
    let (mut rates, mut cpu_of_each) = (Vec::new(), [0.0, 0.0]);
    for pair in 0..=PAIRS {
        let mut took = [0.0, 0.0];
        for turn in 0..2 {
            let no = (pair + turn) % 2;
            let (seconds, cpu) = builds[no].measure(&mut work).await?;
            took[no] = seconds;
            if pair > 0 {
                cpu_of_each[no] += cpu;
            }
        }
        if pair > 0 {
            rates.push(took[0] / took[1]);
        }
    }
    rates.sort_by(f64::total_cmp);
    let (low, high) = (rates[PAIRS / 4], rates[PAIRS - 1 - PAIRS / 4]);
    let cpu = cpu_of_each[1] / cpu_of_each[0];
    row(what, format!("{:.2}", middle(rates)), format!("({low:.2} to {high:.2}); CPU of all pairs: {cpu:.2}"));
    Ok(())
}
