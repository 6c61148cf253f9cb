//! The reference MCP server, `@modelcontextprotocol/server-everything`, as a process of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use url::Url;

use crate::eventually::eventually;

const SERVER: &str = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";

static INSTALLED: LazyLock<PathBuf> = LazyLock::new(install);

/// A running server. It is killed when this is dropped.
pub struct Everything {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    port: u16,
}

impl Everything {
    /// Starts it on a free port, and returns when it listens.
    pub async fn start() -> Self {
        // Between the look for a free port and its use another process may take it.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
            let port = free.local_addr().expect("it is bound").port();
            drop(free);
            if let Ok(server) = Self::start_at(port).await {
                return server;
            }
        }
        panic!("no port stays free");
    }

    async fn start_at(port: u16) -> Result<Self, String> {
        let (mut child, log) = (spawn(port), Arc::default());
        read(child.stdout.take().expect("it is piped"), &log);
        read(child.stderr.take().expect("it is piped"), &log);
        let mut server = Self { child, log, port };
        let listening = eventually("the MCP server to listen", async || {
            let has_ended = server.child.try_wait().expect("a child can be waited for").is_some();
            let log = server.log();
            if log.contains("listening on port") { Some(Ok(())) } else { has_ended.then_some(Err(log)) }
        });
        listening.await.map(|()| server)
    }

    pub fn url(&self) -> Url {
        format!("http://127.0.0.1:{}/mcp", self.port).parse().expect("it is a URL")
    }

    /// Ends it from one moment to the next.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process can be killed");
        self.child.wait().expect("a killed process ends");
    }

    /// Starts it again on the same port. It knows nothing of the sessions it had.
    pub async fn start_again(&mut self) {
        *self = Self::start_at(self.port).await.expect("the port is still free");
    }

    /// How often it has said this.
    pub fn count(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    fn log(&self) -> String {
        self.log.lock().expect("nobody panics with the lock").join("\n")
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        // Fails if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16) -> Child {
    let mut node = Command::new("node");
    node.arg(INSTALLED.join(SERVER)).arg("streamableHttp").env("PORT", port.to_string());
    node.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Node.js is installed")
}

/// Reads to the end, so that the server never waits for its log.
fn read(pipe: impl Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) {
    let log = log.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            log.lock().expect("nobody panics with the lock").push(line);
        }
    });
}

/// Installs the server, unless this very version is there. The stamp is written last, so that an installation that
/// broke off is made again.
fn install() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools");
    let wanted = ["package.json", "package-lock.json"]
        .map(|name| fs::read_to_string(here.join(name)).expect("the list of packages can be read"))
        .concat();
    let stamp = here.join("node_modules/.installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return here;
    }
    let npm =
        Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&here).stdin(Stdio::null()).status();
    assert!(npm.expect("npm is installed, which comes with Node.js").success(), "npm has installed the MCP server");
    fs::write(stamp, wanted).expect("the stamp can be written");
    here
}
