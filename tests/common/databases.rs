//! PostgreSQL for tests: the server `TEST_POSTGRES_URL` names, else a throw-away one for this process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;
use uuid::Uuid;

/// The URL of a fresh, empty database.
///
/// # Panics
/// If there is no server and none can be started.
pub async fn postgres_url() -> String {
    SERVER.as_ref().expect(NEEDED).database().await
}

/// A PostgreSQL server that a test has for itself, to take away and bring back.
#[allow(dead_code, reason = "each test target uses a part of this")]
pub struct OwnPostgres(Server);

#[allow(dead_code, reason = "each test target uses a part of this")]
impl OwnPostgres {
    /// A server of its own, whatever `TEST_POSTGRES_URL` says.
    pub fn start() -> Self {
        Self(start_server().expect(NEEDED))
    }

    /// The URL of a fresh, empty database.
    pub async fn database(&self) -> String {
        self.0.database().await
    }

    /// Takes the server away from one moment to the next.
    pub fn stop(&mut self) {
        self.order("stop");
    }

    /// Brings it back.
    pub fn bring_back(&mut self) {
        self.order("start");
    }

    fn order(&mut self, order: &str) {
        let script = self.0.script.as_mut().expect("it was started by its script");
        writeln!(script.stdin.as_mut().expect("it is piped"), "{order}").expect("the script reads");
        let mut answer = String::new();
        self.0.answers.as_mut().expect("it has a script").read_line(&mut answer).expect("the script answers");
    }
}

async fn create_database(url: &Url) -> String {
    let name = format!("test_{}", Uuid::now_v7().simple());
    let mut server = PgConnection::connect(url.as_str()).await.expect("the PostgreSQL server answers");
    let create = format!("CREATE DATABASE {name}");
    sqlx::query(AssertSqlSafe(create)).execute(&mut server).await.expect("a database can be created");
    server.close().await.expect("the connection was in order");

    let mut url = url.clone();
    url.set_path(&name);
    url.into()
}

const NEEDED: &str = "these tests need PostgreSQL and could not start one (the reason is on the error output): \
                      install the `postgresql` package, or set TEST_POSTGRES_URL to a server where databases \
                      can be made";

/// None if there is no server and none could be started.
static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| given_server().or_else(start_server));

struct Server {
    url: Url,
    /// Holds the input of the throw-away server's script: when this process ends, the input does, and the server too.
    script: Option<Child>,
    answers: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// The URL of a fresh, empty database.
    async fn database(&self) -> String {
        create_database(&self.url).await
    }
}

#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
fn given_server() -> Option<Server> {
    let url = std::env::var("TEST_POSTGRES_URL").ok()?;
    Some(Server { url: url.parse().expect("TEST_POSTGRES_URL is a URL"), script: None, answers: None })
}

fn start_server() -> Option<Server> {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/postgres.sh"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/common/postgres.sh can be run");
    let mut url = String::new();
    let mut output = BufReader::new(script.stdout.take().expect("it is piped"));
    output.read_line(&mut url).expect("its output can be read");
    let Ok(url) = url.trim().parse() else {
        // The script has written why to the error output, and is about to end.
        script.wait().expect("it was spawned");
        return None;
    };
    Some(Server { url, script: Some(script), answers: Some(output) })
}
