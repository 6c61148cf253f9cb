//! The processes that are measured, with their CPU time and memory as Linux reports them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Result;

const BATCHWRIGHT: &str = env!("CARGO_BIN_EXE_batchwright");

/// A running batchwright. It ends when this is dropped.
pub struct Process {
    child: Child,
    /// Its base URL.
    pub address: String,
}

impl Process {
    /// `batchwright serve` on a free port.
    pub fn serve(data: &Path, upstream: &str, more: &[&str]) -> Result<Self> {
        Self::serve_by(Path::new(BATCHWRIGHT), data, upstream, more)
    }

    /// The same, by the program of another build.
    pub fn serve_by(program: &Path, data: &Path, upstream: &str, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--upstream", upstream, "--data-dir"]).arg(data).args(more);
        Self::start(command)
    }

    /// `batchwright simulate` that answers at once.
    pub fn simulate() -> Result<Self> {
        let mut command = Command::new(BATCHWRIGHT);
        command.args(["simulate", "--listen", "127.0.0.1:0", "--latency", "0ms"]);
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?);
        let mut line = String::new();
        let address = loop {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Err("the process ended before it listened".into());
            }
            if let Some((_, address)) = line.split_once("address=") {
                break address.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(Self { child, address })
    }

    /// The CPU time it has used.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.child.id())
    }

    /// The most memory it has had, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time that a process has used, in user and kernel mode.
pub fn cpu_time(id: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name, in parentheses, may have spaces: fields are counted from after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts in hundredths of a second on all common machines.
    Ok(Duration::from_millis(ticks * 10))
}

/// The result of the bare loop.
pub struct Bare {
    pub rows_a_second: f64,
    pub cpu_micros_a_row: f64,
}

/// Runs the bare loop in a process of its own.
pub fn bare_loop(upstream: &str, input: &Path) -> Result<Bare> {
    let output = Command::new(std::env::current_exe()?).args(["--bare", upstream]).arg(input).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (rate, cpu) = text.trim().split_once(' ').ok_or("the bare loop failed")?;
    Ok(Bare { rows_a_second: rate.parse()?, cpu_micros_a_row: cpu.parse()? })
}
