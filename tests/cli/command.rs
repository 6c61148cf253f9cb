//! A command of the program, without a terminal or on one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::common::eventually::{eventually, until};
use crate::common::process::batchwright;

/// A command that is not yet run.
pub struct Cli {
    command: Command,
    input: Option<String>,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Cli {
    /// In an environment without settings.
    pub fn new(arguments: &[&str]) -> Self {
        Self { command: batchwright(arguments), input: None }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With this on standard input.
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Runs it to its end, without a terminal.
    pub async fn run(self) -> Said {
        self.start().end().await
    }

    /// Runs it to its end, which has to have this exit code.
    pub async fn exits(self, code: i32) -> Said {
        let said = self.run().await;
        assert_eq!(said.code, code, "{said:?}");
        said
    }

    /// Starts it without a terminal.
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program can be run");
        let mut stdin = child.stdin.take().expect("it is piped");
        // Fails if the command does not read it.
        let _ = stdin.write_all(self.input.unwrap_or_default().as_bytes());
        drop(stdin);
        let out = Text::read(child.stdout.take().expect("it is piped"));
        let err = Text::read(child.stderr.take().expect("it is piped"));
        Running { child, out, err }
    }

    /// Runs it to its end on a pseudo-terminal, and returns its exit code and what the terminal got.
    pub async fn on_terminal(self) -> (i32, String) {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().expect("text")).collect();
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        script.env_remove("CI").env_remove("NO_COLOR").env("TERM", "xterm");
        script.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let said = Self { command: script, input: None }.run().await;
        (said.code, said.out)
    }

    /// The command itself, to be run otherwise.
    pub fn command(self) -> Command {
        self.command
    }
}

/// Everything that was read so far.
#[derive(Clone, Default)]
struct Text {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_whole: Arc<Mutex<bool>>,
}

impl Text {
    fn read(mut from: impl std::io::Read + Send + 'static) -> Self {
        let text = Self::default();
        let (bytes, is_whole) = (text.bytes.clone(), text.is_whole.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last user has gone is an error, not an end.
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                bytes.lock().expect("no panic").extend_from_slice(&buffer[..read]);
            }
            *is_whole.lock().expect("no panic") = true;
        });
        text
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no panic")).into_owned()
    }

    async fn whole(&self) -> String {
        until("the output to end", || *self.is_whole.lock().expect("no panic")).await;
        self.so_far()
    }
}

/// A command that runs. It is killed when this is dropped.
pub struct Running {
    child: Child,
    out: Text,
    err: Text,
}

impl Running {
    pub fn out(&self) -> String {
        self.out.so_far()
    }

    /// Waits until standard output has this.
    pub async fn says(&self, text: &str) {
        until(&format!("'{text}' on standard output"), || self.out().contains(text)).await;
    }

    /// Waits until standard error has this.
    pub async fn notes(&self, text: &str) {
        until(&format!("'{text}' on standard error"), || self.err.so_far().contains(text)).await;
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let kill = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
    }

    /// Waits for the end.
    pub async fn end(mut self) -> Said {
        let ended = eventually("the command to end", async || self.child.try_wait().expect("it is a child")).await;
        Said { code: ended.code().unwrap_or(-1), out: self.out.whole().await, err: self.err.whole().await }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command whose reader takes one line of standard output and goes.
pub async fn first_line_only(cli: Cli) -> (Option<i32>, String, String) {
    let mut command = cli.command();
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(64, child.stdout.take().expect("it is piped"));
        reader.read_line(&mut line).expect("it says something");
        drop(reader);
        let mut err = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut err).expect("text");
        (child.wait().expect("it ends").code(), line, err)
    });
    running.await.expect("no panic")
}
