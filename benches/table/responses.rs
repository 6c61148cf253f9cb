//! Measures rows for `/v1/responses` that call a tool, in turns with rows of the same size that call none. Each step of
//! the former is durable before the next starts.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use batchwright::client::Client;
use serde_json::{Value, json};

use crate::client::{create_batch, upload, wait_for};
use crate::process::Process;
use crate::{CONCURRENCY, Result, middle, row};

const ROWS: u32 = 2_000;
/// A call of the model, of the tool, and of the model again.
const STEPS: u32 = 3;
/// Enough rounds for a useful CPU time, which is counted in hundredths of a second.
const ROUNDS: u32 = 5;

pub async fn responses(directory: &Path) -> Result<()> {
    let directory = directory.join("responses");
    std::fs::create_dir(&directory)?;
    let settings = directory.join("settings.toml");
    // The tool allows as many calls as the server makes.
    let tool = format!("[[tools]]\nname = 'add'\nurl = '{}'\nmax_concurrency = {CONCURRENCY}\n", tool_server().await?);
    std::fs::write(&settings, tool)?;
    let upstream = Process::simulate()?;
    let concurrency = CONCURRENCY.to_string();
    let flags = ["--config", settings.to_str().ok_or("a path that is no text")?, "--max-concurrency", &concurrency];
    let server = Process::serve(&directory.join("data"), &upstream.address, &flags)?;
    let client = Client::new(&server.address)?;

    let mut plain = Side::new(&client, &json!("How much is two and three?"), &json!([])).await?;
    let call = json!({ "turns": [[{ "name": "add", "arguments": { "a": 2, "b": 3 } }]] });
    let tools = json!([{ "type": "function", "name": "add" }]);
    let mut calling = Side::new(&client, &json!(format!("simulate:{call}")), &tools).await?;
    // In turns, so that both sides see the same load of the machine.
    for _ in 0..ROUNDS {
        plain.run(&server, &client).await?;
        calling.run(&server, &client).await?;
    }

    let (plain, plain_cpu) = plain.rows_a_second_and_cpu();
    let (calling, cpu) = calling.rows_a_second_and_cpu();
    let steps = f64::from(STEPS);
    row(
        &format!("{ROWS} rows for /v1/responses that call no tool"),
        format!("{plain:.0} rows/s"),
        format!("median of {ROUNDS}, from POST to completed"),
    );
    row("the same, CPU of the server", format!("{plain_cpu:.1} µs/row"), "");
    row(
        &format!("{ROWS} rows that call one: {STEPS} steps each"),
        format!("{calling:.0} rows/s"),
        format!("{:.0} steps/s; {:.2} of the others' rows, in turns with them", calling * steps, calling / plain),
    );
    row(
        "the same, CPU of the server",
        format!("{:.1} µs/step", cpu / steps),
        format!(
            "{cpu:.1} µs/row, {:.2} times the others'; a step {:.2} times",
            cpu / plain_cpu,
            cpu / steps / plain_cpu
        ),
    );
    Ok(())
}

/// Starts a server with one tool in this process. Returns the tool's URL.
pub async fn tool_server() -> Result<String> {
    let app = Router::new().route("/add", post(async || "5"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/add", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(url)
}

/// A batch input file of rows for `/v1/responses` with this input that may call these tools.
pub fn input(rows: u32, input: &Value, tools: &Value) -> String {
    let filler = "The quick brown fox jumps over the lazy dog and then it rests. ".repeat(14);
    let mut file = String::new();
    for number in 0..rows {
        let body = json!({ "model": "m", "instructions": format!("{filler}{number}"), "input": input, "tools": tools });
        let line = json!({ "custom_id": number.to_string(), "method": "POST", "url": "/v1/responses", "body": body });
        let _ = writeln!(file, "{line}");
    }
    file
}

/// A batch that is run again and again.
struct Side {
    file: String,
    rates: Vec<f64>,
    cpu: Duration,
}

impl Side {
    /// Rows with this input that may call these tools.
    async fn new(client: &Client, input: &Value, tools: &Value) -> Result<Self> {
        let file = upload(client, self::input(ROWS, input, tools)).await?;
        Ok(Self { file, rates: Vec::new(), cpu: Duration::ZERO })
    }

    async fn run(&mut self, server: &Process, client: &Client) -> Result<()> {
        let cpu_before = server.cpu_time()?;
        let started = Instant::now();
        let batch = create_batch(client, &self.file, "/v1/responses").await?;
        let (ended, _) = wait_for(client, &batch, Duration::from_millis(10)).await?;
        if ended.request_counts.completed != u64::from(ROWS) {
            return Err(format!("{ended:?}").into());
        }
        self.rates.push(f64::from(ROWS) / started.elapsed().as_secs_f64());
        self.cpu += server.cpu_time()?.saturating_sub(cpu_before);
        Ok(())
    }

    /// The median rate, and the CPU-microseconds for each row over all rounds.
    fn rows_a_second_and_cpu(self) -> (f64, f64) {
        let rows = f64::from(ROWS * ROUNDS);
        (middle(self.rates), self.cpu.as_secs_f64() * 1e6 / rows)
    }
}
