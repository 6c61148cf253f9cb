//! The program itself, as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::client::Client;
use super::eventually::{eventually, until};

/// A running `serve` or `simulate`. It is killed when this is dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Where it listens, without `/v1`.
    pub base_url: String,
}

/// The program with these arguments, in an environment without settings.
pub fn batchwright(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchwright"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Output {
    let running = tokio::task::spawn_blocking(move || command.output());
    running.await.expect("waiting does not panic").expect("the program can be run")
}

/// What a command said on standard output and on standard error.
pub fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("{out}\n{err}")
}

/// Runs a command, which has to end with this status, and returns what it says.
pub async fn refusal(command: Command, status: i32) -> String {
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(status), "{}", said(&output));
    said(&output)
}

impl Process {
    /// Starts a command that listens, and returns when it does.
    pub async fn start(command: Command) -> Self {
        Self::try_start(command).await.unwrap_or_else(|log| panic!("the program ended:\n{log}"))
    }

    /// Starts a command that listens, and returns when it does, or with its log if it ends before.
    pub async fn try_start(mut command: Command) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program can be run");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().expect("it is piped")).lines(), log.clone());
        // Read to the end, so that the program never waits for its log.
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().expect("nobody panics with the lock").push(line);
            }
        });
        let mut process = Self { child, log, base_url: String::new() };
        let listening = eventually("the program to listen", async || {
            let log = process.log();
            if !process.is_running() {
                return Some(Err(()));
            }
            let address = log.split(" address=http").nth(1).and_then(|rest| rest.split("/v1").next());
            address.map(|address| Ok(format!("http{address}")))
        });
        let Ok(address) = listening.await else {
            // Its last words may not have been read yet.
            reader.join().expect("reading does not panic");
            return Err(process.log());
        };
        process.base_url = address;
        Ok(process)
    }

    /// Starts `simulate` on a free port.
    pub async fn simulate(flags: &[&str]) -> Self {
        Self::start(batchwright(&[&["simulate", "--listen", "127.0.0.1:0"], flags].concat())).await
    }

    /// Starts `serve` on a free port.
    pub async fn serve(flags: &[&str]) -> Self {
        Self::serve_at("127.0.0.1:0", flags).await
    }

    /// Starts `serve` on this address.
    pub async fn serve_at(address: &str, flags: &[&str]) -> Self {
        Self::start(batchwright(&[&["serve", "--listen", address], flags].concat())).await
    }

    pub fn client(&self) -> Client {
        Client::new(self.base_url.clone())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with the lock").join("\n")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it ever had, in kB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process lives");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak is known");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        let (_, address) = self.base_url.split_once("://").expect("a URL");
        address.parse().expect("an address")
    }

    /// Ends it from one moment to the next.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process can be killed");
        self.child.wait().expect("a killed process ends");
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
    }

    /// Asks it to stop, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let mut ended = None;
        until("the program to stop", || {
            ended = self.child.try_wait().expect("a child can be waited for");
            ended.is_some()
        })
        .await;
        ended.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
