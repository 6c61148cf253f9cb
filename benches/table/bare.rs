//! The bare loop: an HTTP client that only posts the same bodies. Draining is compared with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use super::Result;

#[derive(serde::Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Posts every body of `input` with `concurrency` calls at a time, reads the answers and throws them away.
pub async fn run(base_url: &str, input: &Path, concurrency: usize) -> Result<()> {
    let file = Bytes::from(std::fs::read(input)?);
    let mut bodies = Vec::new();
    for line in file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Line<'_> = serde_json::from_slice(line)?;
        bodies.push(file.slice_ref(line.body.get().as_bytes()));
    }
    let bodies = Arc::new(bodies);
    let next = Arc::new(AtomicUsize::new(0));
    let client = reqwest::ClientBuilder::new().pool_max_idle_per_host(concurrency).build()?;
    let url: reqwest::Url = format!("{base_url}/chat/completions").parse()?;

    let (started, cpu_before) = (Instant::now(), super::process::cpu_time(std::process::id())?);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let (bodies, next, client, url) = (bodies.clone(), next.clone(), client.clone(), url.clone());
        workers.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let call = client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.clone());
                call.send().await?.error_for_status()?.bytes().await?;
            }
            Ok::<(), reqwest::Error>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let took: Duration = started.elapsed();
    let cpu = super::process::cpu_time(std::process::id())?.saturating_sub(cpu_before);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let rows = bodies.len() as f64;
    println!("{} {}", rows / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / rows);
    Ok(())
}
