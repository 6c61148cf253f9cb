//! A simulator, and servers on one data directory that call it.

use tempfile::TempDir;

use crate::common::process::Process;

pub struct Stage {
    pub simulator: Process,
    pub directory: TempDir,
}

impl Stage {
    /// With these flags for the simulator.
    pub async fn new(simulator_flags: &[&str]) -> Self {
        let simulator = Process::simulate(simulator_flags).await;
        Self { simulator, directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub async fn serve(&self, flags: &[&str]) -> Process {
        self.serve_at("127.0.0.1:0", flags).await
    }

    pub async fn serve_at(&self, address: &str, flags: &[&str]) -> Process {
        let data = self.directory.path().join("data").display().to_string();
        let upstream = format!("{}/v1", self.simulator.base_url);
        let always = ["--upstream", &upstream, "--data-dir", &data];
        Process::serve_at(address, &[&always[..], flags].concat()).await
    }
}
