//! An inference server that sends bytes as they stand in a case, over a socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cases::{Case, Ending, Sent};

/// How many calls the client has under way.
pub const CALLS_AT_ONCE: usize = 16;
/// How long the answer to a row takes that is no case.
const COMPANY: Duration = Duration::from_millis(20);

/// The server.
#[derive(Clone)]
pub struct WildUpstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    cases: Vec<Case>,
    /// How often each case was called.
    calls: Mutex<HashMap<String, usize>>,
    /// The answer of all other rows.
    good: Sent,
    /// How many other rows were answered.
    others: watch::Sender<usize>,
}

impl WildUpstream {
    /// Answers rows whose `custom_id` is the name of a case as the case says, and all others with `good`.
    pub async fn start(cases: Vec<Case>, good: Sent) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let shared = Arc::new(Shared { cases, calls: Mutex::default(), good, others: watch::Sender::new(0) });
        let upstream = Self { address, shared };
        tokio::spawn(upstream.clone().accept(listener));
        upstream
    }

    /// How often a case was called.
    pub fn calls(&self, name: &str) -> usize {
        self.shared.calls.lock().expect("nothing panics with it").get(name).copied().unwrap_or(0)
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(self.clone().serve(connection));
        }
    }

    async fn serve(self, connection: TcpStream) {
        let mut connection = BufReader::new(connection);
        while let Some(custom_id) = read_request(&mut connection).await {
            let known = self.shared.cases.iter().find(|case| case.name == custom_id);
            let sent = if let Some(case) = known {
                self.wait_for_others().await;
                case.sent(self.count(&custom_id))
            } else {
                tokio::time::sleep(COMPANY).await;
                &self.shared.good
            };
            let is_sent = connection.write_all(&sent.bytes).await.is_ok();
            if known.is_none() {
                self.shared.others.send_modify(|others| *others += 1);
            }
            match sent.ending {
                Ending::GoesOn if is_sent => {}
                Ending::GoesOn | Ending::Closes => return,
                Ending::Resets => {
                    #[expect(deprecated, reason = "a reset is what it is for, and it does not block here")]
                    let _ = connection.get_ref().set_linger(Some(Duration::ZERO));
                    return;
                }
            }
        }
    }

    /// Other rows are answered while a case is called, so that a bad answer is not taken for the state of the server.
    /// Of so many, the client must have taken in one before it could make the last of the calls.
    async fn wait_for_others(&self) {
        let mut others = self.shared.others.subscribe();
        let before = *others.borrow_and_update();
        let answered = others.wait_for(|now| *now > before + CALLS_AT_ONCE);
        let _ = timeout(Duration::from_secs(10), answered).await;
    }

    fn count(&self, name: &str) -> usize {
        let mut calls = self.shared.calls.lock().expect("nothing panics with it");
        let count = calls.entry(name.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

/// Reads a request to its end. The `custom_id` that it is for.
async fn read_request(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut custom_id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "x-batchwright-custom-id" => custom_id = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.ok()?;
    Some(custom_id)
}
