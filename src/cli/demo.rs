//! `batchwright demo`: one batch from upload to proof. Only the inference server is simulated.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::shutdown;
use crate::app::Service;
use crate::client::{BatchRequest, Client, Polling, RemoteBatch};
use crate::config::ServeConfig;
use crate::domain::batch::BatchStatus;
use crate::domain::endpoint::Endpoint;
use crate::simulator::{self, Simulator, SimulatorArgs};
use crate::telemetry::logs;
use crate::verify::{VerifyArgs, verify};

/// The arguments of `demo`.
#[derive(Args, Debug, Clone)]
pub struct DemoArgs {
    /// Rows of the batch.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub rows: u32,

    /// Directory for the demo's data and results. It is created if need be; its `data` stays, and `input.jsonl`,
    /// `output.jsonl` and `errors.jsonl` in it are replaced.
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

    let client = Client::new(&base_url)?;
    std::fs::write(&files.input, input(args.rows))?;
    let batch = run_batch(&client, &files.input, u64::from(args.rows)).await?;
    let proof = fetch_and_verify(&client, &batch, &files).await?;
    println!("{}", by_hand(&base_url, &files.input));

    if std::io::stdout().is_terminal() {
        println!("\nServing on {base_url} until you press Ctrl-C.");
        shutdown::requested(true).await;
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
        let url = Endpoint::ChatCompletions.as_str();
        let line = json!({ "custom_id": format!("prime-{row}"), "method": "POST", "url": url, "body": body });
        writeln!(input, "{line}").expect("a String takes all");
    }
    input
}

/// Uploads the input and runs it as a batch.
async fn run_batch(client: &Client, input: &Path, rows: u64) -> anyhow::Result<RemoteBatch> {
    let file = client.upload_file(input).await?;
    println!("Uploaded {rows} requests from {} as {}.", input.display(), file.id);
    let batch = client.create_batch(&BatchRequest::new(file.id, Endpoint::ChatCompletions.as_str())).await?;
    println!("Created batch {}.", batch.id);

    let bar = ProgressBar::new(rows)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} requests  {per_sec}  {eta} left")?);
    let show = |batch: &RemoteBatch| bar.set_position(batch.request_counts.completed + batch.request_counts.failed);
    let batch = client.wait(&batch.id, Polling::every(POLL_EVERY), show).await?;
    let rate = bar.per_sec();
    bar.finish();
    println!("The batch is {} after {:.1} s ({rate:.0} requests/s).", batch.status, bar.elapsed().as_secs_f64());
    ensure!(batch.status == BatchStatus::Completed, "the batch did not complete: {:?}", batch.errors);
    Ok(batch)
}

/// Downloads the results and proves them. True if the proof holds.
async fn fetch_and_verify(client: &Client, batch: &RemoteBatch, files: &DemoFiles) -> anyhow::Result<bool> {
    let mut args = VerifyArgs { input: files.input.clone(), output: None, errors: None };
    if let Some(id) = &batch.output_file_id {
        client.download_to(id, &files.output).await?;
        println!("\nThe output is in {}. Its first line:", files.output.display());
        println!("{}\n", first_line(&files.output)?);
        args.output = Some(files.output.clone());
    }
    if let Some(id) = &batch.error_file_id {
        client.download_to(id, &files.errors).await?;
        args.errors = Some(files.errors.clone());
    }
    let verdict = verify(&args)?;
    println!("{verdict}");
    Ok(verdict.holds())
}

fn first_line(path: &Path) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(File::open(path)?).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
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
