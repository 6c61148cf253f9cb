//! A directory with an input, and an inference server for runs over it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output};

use batchwright::verify::{VerifyArgs, VerifyReport, verify};
use tempfile::TempDir;

use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::FakeUpstream;
use crate::common::process::{batchwright, run, said};

pub const INPUT: &str = "in.jsonl";
pub const OUTPUT: &str = "out.jsonl";
pub const ERRORS: &str = "err.jsonl";

pub struct Stage {
    pub upstream: FakeUpstream,
    directory: TempDir,
}

impl Stage {
    /// With this input, and an upstream that answers.
    pub fn new(input: impl AsRef<[u8]>) -> Self {
        Self::before(FakeUpstream::start(), input)
    }

    pub fn before(upstream: FakeUpstream, input: impl AsRef<[u8]>) -> Self {
        let stage = Self { upstream, directory: tempfile::tempdir().expect("a temporary directory") };
        stage.write(INPUT, input);
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file is there")
    }

    /// The names in the directory.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).expect("the directory is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Any command, in the directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = batchwright(arguments);
        command.current_dir(self.directory.path());
        command
    }

    /// `run` with these arguments, besides the upstream.
    pub fn run_command(&self, arguments: &[&str]) -> Command {
        let url = format!("http://{}/v1", self.upstream.address);
        self.command(&[&["run", "--upstream", &url][..], arguments].concat())
    }

    /// Runs the input with both files of results, which has to end with this status. What it says.
    pub async fn run(&self, flags: &[&str], status: i32) -> String {
        let output = run(self.run_command(&[&[INPUT, "-o", OUTPUT, "-e", ERRORS], flags].concat())).await;
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        said(&output)
    }

    /// Starts the same, and leaves it running.
    pub fn start(&self, flags: &[&str]) -> Running {
        Running::start(self.run_command(&[&[INPUT, "-o", OUTPUT, "-e", ERRORS], flags].concat()), self.path("said"))
    }

    /// Whether every row of the input has its line.
    pub fn verdict(&self) -> VerifyReport {
        let [input, output, errors] = [INPUT, OUTPUT, ERRORS].map(|name| self.path(name));
        verify(&VerifyArgs { input, output: Some(output), errors: Some(errors) }).expect("the files can be read")
    }
}

/// A run that goes on beside the test. It is killed when this is dropped.
pub struct Running {
    child: Child,
    said: PathBuf,
}

impl Running {
    fn start(mut command: Command, said: PathBuf) -> Self {
        let file = File::create(&said).expect("a file");
        Self { child: command.stderr(file).spawn().expect("the program can be run"), said }
    }

    /// What it has said on standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).expect("the file is there")
    }

    pub async fn says(&self, expected: &str) {
        until(expected, || self.said().contains(expected)).await;
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Ends it from one moment to the next, and returns what it had said.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("a process can be killed");
        self.child.wait().expect("a killed process ends");
        self.said()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the run to end", async || self.child.try_wait().expect("a child can be waited for")).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command with this on its standard input.
pub async fn run_with_input(mut command: Command, input: Vec<u8>) -> Output {
    use std::io::Write as _;
    use std::process::Stdio;

    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program can be run");
    let mut stdin = child.stdin.take().expect("it is piped");
    let waiting = tokio::task::spawn_blocking(move || {
        // A command that refuses its input reads no more of it.
        let _ = stdin.write_all(&input);
        drop(stdin);
        child.wait_with_output()
    });
    waiting.await.expect("waiting does not panic").expect("the program can be run")
}
