//! PostgreSQL behind a transaction-pooling pgbouncer, which gives every transaction another session.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};

use url::Url;

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::databases::postgres_url;
use crate::stage::{Database, Stage};

/// A pooler in front of the server of a URL. It is killed when this is dropped.
struct Pooler(Child);

impl Pooler {
    /// Starts it, and returns it with the URL through it.
    async fn start(direct: &str, directory: &std::path::Path) -> (Self, String) {
        let mut url: Url = direct.parse().expect("a URL");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
        let mut settings = String::from("[databases]\n");
        let server = url.port().expect("it has a port");
        writeln!(settings, "* = host=127.0.0.1 port={server} user=postgres\n[pgbouncer]\npool_mode = transaction")
            .expect("a String");
        // Fewer sessions than there are connections, so that they really change hands.
        writeln!(settings, "listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\ndefault_pool_size = 3")
            .expect("a String");
        writeln!(settings, "unix_socket_dir =\nmax_client_conn = 200").expect("a String");
        let file = directory.join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("a file");
        Command::new("chmod").args(["-R", "a+rX"]).arg(directory).status().expect("there is chmod");
        let mut pooler = Command::new("pgbouncer");
        let pooler = pooler.arg("-q").args(["-u", "postgres"]).arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
        let pooler = pooler.spawn().expect("pgbouncer is installed: `make postgres` does it on Debian");
        url.set_port(Some(port)).expect("it has a host");
        let through = String::from(url);
        eventually("the pooler to listen", async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        (Self(pooler), through)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_work_behind_a_transaction_pooler() {
    let direct = postgres_url().await;
    let mut stage = Stage::new(&["--latency", "5ms", "--fail-rate", "0.02"], Database::Postgres(direct.clone())).await;
    let (_pooler, pooled) = Pooler::start(&direct, stage.directory.path()).await;
    stage.replace_flag("--database-url", pooled);
    // All at once: they wait for each other with the migrations.
    let (a, b, c) = tokio::join!(stage.serve(&[]), stage.serve(&[]), stage.serve(&["--role", "api"]));
    let client = c.client();
    let input = rows(3_000);

    let ids = [client.submit(input.clone()).await, client.submit(input.clone()).await];
    let mut batches = Vec::new();
    for id in ids {
        batches.push(client.wait_for(&id, "completed").await);
    }

    for log in [a.log(), b.log(), c.log()] {
        assert!(!log.contains("ERROR"), "{log}");
    }
    for log in [a.log(), b.log()] {
        assert!(log.contains("behind a pooler"), "{log}");
    }
    stage.prove_all(&client, &input, &batches, vec![a, b]).await;
}
