//! PostgreSQL for tests: the server `TEST_POSTGRES_URL` names, else a throw-away one for this process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;
use uuid::Uuid;

/// The URL of a fresh, empty database.
///
/// # Panics
/// If there is no server and none can be started.
pub async fn postgres_url() -> String {
    let name = format!("test_{}", Uuid::now_v7().simple());

    let url = &SERVER.as_ref().expect(NEEDED).url;
    let mut server = PgConnection::connect(url.as_str()).await.expect("the PostgreSQL server answers");
    let create = format!("CREATE DATABASE {name}");
    sqlx::query(AssertSqlSafe(create)).execute(&mut server).await.expect("a database can be created");
    server.close().await.expect("the connection was in order");

    let mut url = url.clone();
    url.set_path(&name);
    url.into()
}

const NEEDED: &str = "these tests need PostgreSQL and could not start one (the reason is on the error output): \
                      install the `postgresql` package, or set TEST_POSTGRES_URL to a server where databases can be made";

/// None if there is no server and none could be started.
static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| given_server().or_else(start_server));

struct Server {
    url: Url,
    /// Holds the input of the throw-away server's script: when this process ends, the input does, and the server too.
    _script: Option<Child>,
}

#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
fn given_server() -> Option<Server> {
    let url = std::env::var("TEST_POSTGRES_URL").ok()?;
    Some(Server { url: url.parse().expect("TEST_POSTGRES_URL is a URL"), _script: None })
}

fn start_server() -> Option<Server> {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/postgres.sh"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/common/postgres.sh can be run");
    let mut url = String::new();
    let output = script.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut url).expect("its output can be read");
    let Ok(url) = url.trim().parse() else {
        // The script has written why to the error output, and is about to end.
        script.wait().expect("it was spawned");
        return None;
    };
    Some(Server { url, _script: Some(script) })
}
