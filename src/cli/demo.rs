//! `batchwright demo`: one batch from upload to proof. Only the inference server is simulated.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::serve::Service;
use super::shutdown;
use crate::config::ServeConfig;
use crate::simulator::{self, Simulator, SimulatorArgs};
use crate::telemetry::logs;
use crate::verify::{VerifyArgs, verify};

/// The arguments of `demo`.
#[derive(Args, Debug, Clone)]
pub struct DemoArgs {
    /// Rows of the batch.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub rows: u32,

    /// Directory for the demo's data and results, made anew.
    #[arg(long, value_name = "DIRECTORY", default_value = "./batchwright-demo")]
    pub directory: PathBuf,
}

const POLL_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    logs::start("warn")?;
    let files = DemoFiles::in_directory(&args.directory)?;
    let free_port = || TcpListener::bind("127.0.0.1:0");

    let upstream = free_port().await?;
    let upstream_url = format!("http://{}/v1", upstream.local_addr()?);
    let simulator = Simulator::new(SimulatorArgs { fail_rate: 0.01, ..SimulatorArgs::default() });
    tokio::spawn(simulator::serve(upstream, simulator, std::future::pending()));
    println!("A simulated inference server listens on {upstream_url}.");

    let listener = free_port().await?;
    let base_url = format!("http://{}/v1", listener.local_addr()?);
    let service = Service::start(settings(&upstream_url, &args.directory)?, None).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(service.serve(listener, async {
        let _ = stopped.await;
    }));
    println!("batchwright listens on {base_url}.\n");

    let client = Client { http: reqwest::ClientBuilder::new().build()?, base_url: base_url.clone() };
    std::fs::write(&files.input, input(args.rows))?;
    let batch = client.run(&files.input, u64::from(args.rows)).await?;
    let proof = client.fetch_and_verify(&batch, &files).await?;
    println!("{}", by_hand(&base_url, &files.input));

    if std::io::stdout().is_terminal() {
        println!("\nServing on {base_url} until you press Ctrl-C.");
        shutdown::requested().await;
    }
    let _ = stop.send(());
    serving.await??;
    Ok(if proof { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct DemoFiles {
    input: PathBuf,
    output: PathBuf,
    errors: PathBuf,
}

impl DemoFiles {
    fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("{} cannot be made; give another with --directory", directory.display()))?;
        let file = |name| directory.join(name);
        let files = Self { input: file("input.jsonl"), output: file("output.jsonl"), errors: file("errors.jsonl") };
        for result in [&files.output, &files.errors] {
            if result.exists() {
                std::fs::remove_file(result)?;
            }
        }
        Ok(files)
    }
}

/// The settings of `serve`, for the simulated upstream and the demo's directory.
fn settings(upstream: &str, directory: &Path) -> anyhow::Result<ServeConfig> {
    let mut settings = ServeConfig::default();
    settings.upstream.upstream = Some(upstream.parse()?);
    settings.storage.data_dir = directory.join("data");
    Ok(settings)
}

fn input(rows: u32) -> String {
    let mut input = String::new();
    for row in 1..=rows {
        let body = json!({
            "model": "simulated-model",
            "messages": [
                { "role": "system", "content": "Answer in one word." },
                { "role": "user", "content": format!("Is {row} a prime number?") },
            ],
        });
        let line = json!({ "custom_id": format!("prime-{row}"), "method": "POST", "url": "/v1/chat/completions", "body": body });
        writeln!(input, "{line}").expect("a String takes all");
    }
    input
}

/// A client of the API, over HTTP.
struct Client {
    http: reqwest::Client,
    base_url: String,
}

impl Client {
    async fn run(&self, input: &Path, rows: u64) -> anyhow::Result<Value> {
        let file = Part::bytes(std::fs::read(input)?).file_name("input.jsonl");
        let form = Form::new().text("purpose", "batch").part("file", file);
        let file = answer(self.http.post(self.url("files")).multipart(form)).await?;
        println!("Uploaded {rows} requests from {} as {}.", input.display(), text(&file["id"]));

        let new =
            json!({ "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h" });
        let mut batch = answer(self.http.post(self.url("batches")).json(&new)).await?;
        let id = batch["id"].as_str().context("a batch has an id")?.to_owned();
        println!("Created batch {id}.");

        let bar = ProgressBar::new(rows)
            .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} requests  {per_sec}  {eta} left")?);
        while !matches!(batch["status"].as_str(), Some("completed" | "failed" | "expired" | "cancelled")) {
            tokio::time::sleep(POLL_EVERY).await;
            batch = answer(self.http.get(self.url(&format!("batches/{id}")))).await?;
            let counts = &batch["request_counts"];
            bar.set_position(counts["completed"].as_u64().unwrap_or(0) + counts["failed"].as_u64().unwrap_or(0));
        }
        let rate = bar.per_sec();
        bar.finish();
        println!(
            "The batch is {} after {:.1} s ({rate:.0} requests/s).",
            text(&batch["status"]),
            bar.elapsed().as_secs_f64()
        );
        ensure!(batch["status"] == "completed", "the batch did not complete: {batch}");
        Ok(batch)
    }

    /// Downloads the results and proves them. True if the proof holds.
    async fn fetch_and_verify(&self, batch: &Value, files: &DemoFiles) -> anyhow::Result<bool> {
        let mut args = VerifyArgs { input: files.input.clone(), output: None, errors: None };
        if let Some(id) = batch["output_file_id"].as_str() {
            let output = self.download(id, &files.output).await?;
            println!("\nThe output is in {}. Its first line:", files.output.display());
            println!("{}\n", output.lines().next().unwrap_or_default());
            args.output = Some(files.output.clone());
        }
        if let Some(id) = batch["error_file_id"].as_str() {
            self.download(id, &files.errors).await?;
            args.errors = Some(files.errors.clone());
        }
        let report = verify(&args)?;
        println!("{report}");
        Ok(report.holds())
    }

    async fn download(&self, id: &str, to: &Path) -> anyhow::Result<String> {
        let response = self.http.get(self.url(&format!("files/{id}/content"))).send().await?;
        let text = response.error_for_status()?.text().await?;
        std::fs::write(to, &text)?;
        Ok(text)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base_url)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
    Ok(request.send().await?.error_for_status()?.json().await?)
}

fn by_hand(base_url: &str, input: &Path) -> String {
    let input = input.display();
    format!(
        r#"
The same by hand, with curl:

  curl {base_url}/files -F purpose=batch -F file=@{input}
  curl {base_url}/batches -H 'Content-Type: application/json' \
    -d '{{"input_file_id": "file-…", "endpoint": "/v1/chat/completions", "completion_window": "24h"}}'
  curl {base_url}/batches/batch_…
  curl {base_url}/files/file-…/content -o output.jsonl

and in Python:

  from openai import OpenAI
  client = OpenAI(base_url="{base_url}", api_key="unused")
  file = client.files.create(file=open("{input}", "rb"), purpose="batch")
  batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
  print(client.batches.retrieve(batch.id).status)"#
    )
}

/// A member that is text, without quotes.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
