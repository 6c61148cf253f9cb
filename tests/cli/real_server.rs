//! The commands against `serve` itself.

use std::fs;

use serde_json::Value;

use crate::command::Cli;
use crate::common::builders::rows;
use crate::common::process::Process;

/// A simulator and a server on one data directory.
struct Server {
    simulator: Process,
    directory: tempfile::TempDir,
}

impl Server {
    async fn new(simulator_flags: &[&str]) -> Self {
        let simulator = Process::simulate(simulator_flags).await;
        Self { simulator, directory: tempfile::tempdir().expect("a temporary directory") }
    }

    async fn serve_at(&self, address: &str) -> Process {
        let data = self.directory.path().join("data").display().to_string();
        let upstream = format!("{}/v1", self.simulator.base_url);
        Process::serve_at(address, &["--upstream", &upstream, "--data-dir", &data]).await
    }
}

#[tokio::test]
async fn a_batch_goes_from_submit_to_its_results() {
    let stage = Server::new(&["--fail-rate", "0.2"]).await;
    let server = stage.serve_at("127.0.0.1:0").await;
    let path = |name: &str| stage.directory.path().join(name).display().to_string();
    let [input, output, errors, verified] = ["in.jsonl", "out.jsonl", "err.jsonl", "all.jsonl"].map(path);
    fs::write(&input, rows(200)).expect("it can be written");
    let cli = |arguments: &[&str]| Cli::new(arguments).env("OPENAI_BASE_URL", &server.base_url);
    let submit = ["submit", &input, "--wait", "-o", &output, "-e", &errors];

    let first = cli(&submit).run().await;
    assert!([0, 3].contains(&first.code), "{first:?}");
    let id = first.out.trim();
    let again = cli(&submit).exits(first.code).await;
    assert_eq!(again.out, first.out, "the same command has the same batch");
    assert!(!again.err.contains("uploaded"), "{again:?}");

    let status: Value = serde_json::from_str(&cli(&["status", id]).exits(0).await.out).expect("one object");
    assert_eq!(status["request_counts"]["total"], 200);
    let mut verify = vec!["verify", "--input", &input];
    for (flag, file) in [("--output", &output), ("--errors", &errors)] {
        if fs::metadata(file).is_ok_and(|file| file.len() > 0) {
            verify.extend([flag, file.as_str()]);
        }
    }
    Cli::new(&verify).exits(0).await;
    cli(&["results", id, "--follow", "-o", &verified]).exits(first.code).await;
    assert_eq!(fs::read_to_string(&verified).expect("it is there").lines().count(), 200);
}

#[tokio::test]
async fn watching_outlasts_a_server_that_is_killed_and_started_again() {
    let stage = Server::new(&["--latency", "2s"]).await;
    let mut server = stage.serve_at("127.0.0.1:0").await;
    let (address, url) = (server.address().to_string(), server.base_url.clone());
    let cli = |arguments: &[&str]| Cli::new(arguments).env("OPENAI_BASE_URL", &url);
    let submitted = cli(&["submit", "-"]).input(rows(3)).exits(0).await;
    let running = cli(&["watch", submitted.out.trim()]).start();
    running.notes("in_progress").await;

    server.kill();
    running.notes("the server could not be reached").await;
    let _server = stage.serve_at(&address).await;
    let said = running.end().await;

    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.err.matches("trying again").count(), 1, "{said:?}");
    assert_eq!(said.err.matches("the server answers again").count(), 1, "{said:?}");
}
