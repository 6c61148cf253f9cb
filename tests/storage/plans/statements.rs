//! The statements that the storage sends, and how a database would run them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use batchwright::storage::Result;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tracing::field::{Field, Visit};
use tracing::{Event, Instrument as _, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::given::Place;

/// Scans of what a statement has made up itself, which is no table.
const MADE_UP: [&str; 8] = [
    "SCAN receivers",
    "SCAN kept",
    "SCAN open",
    "SCAN lapsed",
    "SCAN without_result",
    "SCAN owed",
    "SCAN in_progress",
    "SCAN CONSTANT ROW",
];

const TARGET: &str = "sqlx::query";
const SPAN: &str = "watched";

/// The statements that were logged within each span.
static LOGGED: Mutex<BTreeMap<u64, Vec<String>>> = Mutex::new(BTreeMap::new());

static LOG: LazyLock<()> = LazyLock::new(|| {
    tracing::subscriber::set_global_default(Registry::default().with(Statements)).expect("no other log is kept");
});

struct Statements;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Statements {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == TARGET || metadata.name() == SPAN
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event).filter(|span| span.name() == SPAN) else { return };
        let mut statement = Statement::default();
        event.record(&mut statement);
        let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        logged.entry(span.id().into_u64()).or_default().push(statement.text());
    }
}

/// A statement as the log has it: its first words, and all of it if it has more.
#[derive(Default)]
struct Statement {
    summary: String,
    whole: String,
}

impl Statement {
    fn text(self) -> String {
        if self.whole.is_empty() { self.summary } else { self.whole }
    }
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.trim().clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// The statements that a call of the storage sends, without those around a transaction.
pub async fn sent<T>(call: impl Future<Output = Result<T>>) -> Result<Vec<String>> {
    LazyLock::force(&LOG);
    let span = tracing::info_span!(SPAN);
    let id = span.id().expect("it is enabled").into_u64();

    call.instrument(span.clone()).await?;

    // SQLite has threads of its own, which may log a query only after its answer has arrived.
    let logged = async {
        loop {
            let logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
            let statements: Vec<String> = logged.into_iter().flatten().filter(|text| has_plan(text)).collect();
            if !statements.is_empty() {
                return statements;
            }
            tokio::task::yield_now().await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(10), logged).await.expect("statements are logged"))
}

fn has_plan(statement: &str) -> bool {
    ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|verb| statement.starts_with(verb))
}

/// How a database would run a statement, one step a line.
async fn plan(place: &Place, statement: &str) -> String {
    match place {
        Place::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = SqliteConnection::connect_with(&options).await.expect("it was opened before");
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(&mut connection).await.expect("it is a statement");
            steps.into_iter().map(|step| step.3).collect::<Vec<_>>().join("\n")
        }
        Place::Postgres(url) => {
            let mut connection = PgConnection::connect(url).await.expect("it was opened before");
            let parameters = (1..20).take_while(|no| statement.contains(&format!("${no}"))).count();
            let values = match parameters {
                0 => String::new(),
                _ => format!("({})", vec!["NULL"; parameters].join(", ")),
            };
            // In an empty table nothing beats reading all of it, so that is made to look dear.
            let prepare = format!(
                "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; PREPARE it AS {statement}"
            );
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut connection).await.expect("it is a statement");
            let explain = AssertSqlSafe(format!("EXPLAIN (COSTS OFF) EXECUTE it{values}"));
            let steps: Vec<String> =
                sqlx::query_scalar(explain).fetch_all(&mut connection).await.expect("it is prepared");
            steps.join("\n")
        }
    }
}

/// Checks that no statement reads all of a table, and that one of them uses an index of `indexes`.
pub async fn assert_found_by(place: &Place, indexes: &[&str], statements: Vec<String>) {
    let mut plans = String::new();
    for statement in statements {
        let plan = plan(place, &statement).await;
        let reads_all = |step: &str| match place {
            Place::Sqlite(_) => {
                let is_table = !step.starts_with("SCAN (subquery") && !MADE_UP.contains(&step);
                step.starts_with("SCAN") && !step.contains("INDEX") && is_table
            }
            Place::Postgres(_) => step.contains("Seq Scan"),
        };
        assert!(!plan.lines().any(reads_all), "{statement}\n\n{plan}");
        plans.push_str(&plan);
        plans.push('\n');
    }
    assert!(indexes.iter().any(|index| plans.contains(index)), "{plans}");
}
