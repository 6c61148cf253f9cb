//! A TCP proxy that can be cut: bytes vanish, and nobody is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A proxy on a port of its own. It lives as long as the test's runtime.
pub struct Proxy {
    pub address: SocketAddr,
    wire: Arc<Wire>,
}

#[derive(Default)]
struct Wire {
    is_cut: AtomicBool,
    /// How often it was cut. What a connection carried then is gone, so it is dead for good.
    cuts: AtomicUsize,
    delay_millis: AtomicU64,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let wire = Arc::new(Wire::default());
        let accepting = wire.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("connections are accepted");
                tokio::spawn(connect(client, to, accepting.clone()));
            }
        });
        Self { address, wire }
    }

    /// From now on bytes vanish, also those of new connections.
    pub fn cut(&self) {
        self.wire.is_cut.store(true, SeqCst);
        self.wire.cuts.fetch_add(1, SeqCst);
    }

    /// New connections work again. Those that were open when it was cut stay silent.
    pub fn mend(&self) {
        self.wire.is_cut.store(false, SeqCst);
    }

    /// Every piece takes so much longer from now on.
    pub fn slow_down(&self, delay: Duration) {
        self.wire.delay_millis.store(u64::try_from(delay.as_millis()).expect("short"), SeqCst);
    }
}

async fn connect(client: TcpStream, to: SocketAddr, wire: Arc<Wire>) {
    let cuts = wire.cuts.load(SeqCst) + usize::from(wire.is_cut.load(SeqCst));
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(carry(from_client, to_server, &wire, cuts), carry(from_server, to_client, &wire, cuts));
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, wire: &Wire, cuts: usize) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        let is_dead = wire.cuts.load(SeqCst) != cuts;
        if read == 0 {
            // Across a wire that is cut nobody hears that the other is gone.
            if is_dead {
                std::future::pending::<()>().await;
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(wire.delay_millis.load(SeqCst))).await;
        if !is_dead && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
