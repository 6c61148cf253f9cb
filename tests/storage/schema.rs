//! The schema: the same tables and columns on both databases, kept up to date by whoever opens them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use batchwright::domain::batch::NewBatch;
use batchwright::domain::ids::{BatchId, FileId};
use batchwright::storage::{BatchStore as _, FileStore as _, ProgressStore as _, Result, Storage as _, StorageError};
use futures::future::join_all;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::databases::postgres_url;
use crate::given::{OWNER, Place, START, TestStorage, new_batch};

on_both_databases!(
    a_database_that_is_up_to_date_is_opened_again,
    a_database_of_a_newer_program_is_refused,
    a_command_beside_a_service_leaves_its_database_as_it_is,
);

const SQLITE_COLUMNS: &str = "
    SELECT tables.name, columns.name
    FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
    WHERE tables.type = 'table'";

const POSTGRES_COLUMNS: &str = "
    SELECT table_name::TEXT, column_name::TEXT
    FROM information_schema.columns
    WHERE table_schema = 'public'";

/// The migration that gave files and batches their owner.
const OWNERS: u32 = 10;

const FROM_THE_FUTURE: &str = "
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    VALUES (9999, 'from the future', TRUE, '', 0)";

/// Runs one statement past the storage, which has no way to do what it does.
pub async fn execute(place: &Place, statement: impl Into<String>) -> sqlx::Result<()> {
    let statement = AssertSqlSafe(statement.into());
    match place {
        Place::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path);
            sqlx::query(statement).execute(&mut SqliteConnection::connect_with(&options).await?).await?;
        }
        Place::Postgres(url) => {
            sqlx::query(statement).execute(&mut PgConnection::connect(url).await?).await?;
        }
    }
    Ok(())
}

async fn columns(place: &Place) -> BTreeMap<String, BTreeSet<String>> {
    let read: Vec<(String, String)> = match place {
        Place::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = SqliteConnection::connect_with(&options).await.expect("it was opened before");
            sqlx::query_as(SQLITE_COLUMNS).fetch_all(&mut connection).await.expect("a plain query")
        }
        Place::Postgres(url) => {
            let mut connection = PgConnection::connect(url).await.expect("it was opened before");
            sqlx::query_as(POSTGRES_COLUMNS).fetch_all(&mut connection).await.expect("a plain query")
        }
    };
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (table, column) in read {
        tables.entry(table).or_default().insert(column);
    }
    tables
}

fn migrations(database: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let files = fs::read_dir(folder).expect("the folder is there");
    files.map(|file| file.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() {
    let sqlite = TestStorage::sqlite().await;
    let postgres = TestStorage::postgres().await;

    let on_sqlite = columns(&sqlite.place).await;
    let on_postgres = columns(&postgres.place).await;

    assert!(on_sqlite.contains_key("file_parts"));
    assert_eq!(on_sqlite, on_postgres);
}

#[test]
fn both_databases_have_migrations_of_the_same_names() {
    assert!(!migrations("sqlite").is_empty());
    assert_eq!(migrations("sqlite"), migrations("postgres"));
}

#[tokio::test]
async fn replicas_that_start_together_share_the_migration() -> Result<()> {
    let place = Place::Postgres(postgres_url().await);

    let replicas = join_all((0..4).map(|_| place.open())).await;

    for replica in replicas {
        replica?.check().await?;
    }
    Ok(())
}

async fn a_database_that_is_up_to_date_is_opened_again(storage: TestStorage) -> Result<()> {
    let batch = storage.validating().await?;

    let again = storage.place.open().await?;

    again.check().await?;
    assert_eq!(storage.now(batch.id).await?, batch);
    Ok(())
}

async fn a_command_beside_a_service_leaves_its_database_as_it_is(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;

    let beside = storage.place.open_beside().await?.expect("it is up to date");
    beside.check().await?;

    let reports = storage.upstream_reports(&OWNER).await?;
    assert!(reports.iter().any(|report| report.daemon == daemon), "the daemon lives on");
    execute(&storage.place, FROM_THE_FUTURE).await.expect("a plain statement");
    let error = storage.place.open_beside().await.err().expect("it is refused");
    assert!(matches!(error, StorageError::TooNew { found: 9999, .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_command_beside_a_service_migrates_nothing() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    for place in [Place::Sqlite(directory.path().join("test.db")), Place::Postgres(postgres_url().await)] {
        assert!(place.open_beside().await?.is_none(), "{place:?} has no tables");
        migrated_before(&place, OWNERS).await;
        assert!(place.open_beside().await?.is_none(), "{place:?} has few tables");
        place.open().await?;
        assert!(place.open_beside().await?.is_some(), "{place:?} is up to date");
    }
    Ok(())
}

async fn a_database_of_a_newer_program_is_refused(storage: TestStorage) -> Result<()> {
    execute(&storage.place, FROM_THE_FUTURE).await.expect("a plain statement");

    let error = storage.place.open().await.err().expect("it is refused");

    let StorageError::TooNew { found, known } = error else { panic!("{error}") };
    assert_eq!(found, 9999);
    let newest = migrations("sqlite").last().and_then(|name| name.split('_').next()?.parse().ok());
    assert_eq!(Some(known), newest);
    Ok(())
}

#[tokio::test]
async fn what_was_there_before_owners_belongs_to_the_default_owner() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    for place in [Place::Sqlite(directory.path().join("test.db")), Place::Postgres(postgres_url().await)] {
        let (file, batch) = (FileId::new(), BatchId::new());
        migrated_before(&place, OWNERS).await;
        execute(&place, insert_file_without_owner(&place, file)).await.expect("a plain statement");
        execute(&place, insert_batch_without_owner(&place, batch, "once")).await.expect("a plain statement");

        let storage = place.open().await?;

        assert!(storage.file(&OWNER, file, START).await?.is_some());
        let kept = storage.batch(&OWNER, batch).await?.expect("it is there");
        let again = NewBatch { idempotency_key: Some("once".to_owned()), ..new_batch() };
        assert_eq!(storage.create_batch(&OWNER, &again, START).await?, Some(kept));
    }
    Ok(())
}

/// README names what replicas of the version before can do meanwhile.
#[tokio::test]
async fn a_replica_without_owners_creates_files_and_no_batches() -> Result<()> {
    let storage = TestStorage::postgres().await;
    let (file, batch) = (FileId::new(), BatchId::new());

    let creates_file = execute(&storage.place, insert_file_without_owner(&storage.place, file)).await;
    let creates_batch = execute(&storage.place, insert_batch_without_owner(&storage.place, batch, "once")).await;

    creates_file.expect("the column has a default");
    assert!(storage.file(&OWNER, file, START).await?.is_some());
    let refusal = creates_batch.expect_err("a key alone names no batch").to_string();
    assert!(refusal.contains("ON CONFLICT"), "{refusal}");
    Ok(())
}

/// A database as the migrations before `version` leave it.
async fn migrated_before(place: &Place, version: u32) {
    let database = match place {
        Place::Sqlite(_) => "sqlite",
        Place::Postgres(_) => "postgres",
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let earlier = tempfile::tempdir().expect("a directory can be made");
    for name in migrations(database).into_iter().filter(|name| *name < format!("{version:04}")) {
        fs::copy(folder.join(&name), earlier.path().join(&name)).expect("it can be copied");
    }
    let migrator = Migrator::new(earlier.path()).await.expect("they can be read");
    match place {
        Place::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
            migrator.run(&mut SqliteConnection::connect_with(&options).await.expect("it can be opened")).await
        }
        Place::Postgres(url) => migrator.run(&mut PgConnection::connect(url).await.expect("it is there")).await,
    }
    .expect("they run");
}

/// How the version before migration 0010 keeps a file.
fn insert_file_without_owner(place: &Place, id: FileId) -> String {
    format!(
        "INSERT INTO files (id, purpose, filename, bytes, created_at, expires_at, retired_at, index_blob, report)
         VALUES ({}, 'batch', 'rows.jsonl', 30, 1, NULL, NULL, NULL, NULL)",
        literal(place, id.0)
    )
}

/// How the version before migration 0010 creates a batch.
fn insert_batch_without_owner(place: &Place, id: BatchId, key: &str) -> String {
    let [id, output, error] = [id.0, FileId::new().0, FileId::new().0].map(|id| literal(place, id));
    format!(
        "INSERT INTO batches (id, input_file_id, endpoint, completion_window, status, created_at, expires_at, metadata,
                              output_file_id, error_file_id, output_expires_after, idempotency_key)
         VALUES ({id}, 'file', '/v1/embeddings', '24h', 'validating', 1, 2, NULL, {output}, {error}, NULL, '{key}')
         ON CONFLICT (idempotency_key) DO NOTHING"
    )
}

fn literal(place: &Place, id: Uuid) -> String {
    match place {
        Place::Sqlite(_) => format!("x'{}'", id.simple()),
        Place::Postgres(_) => format!("'{id}'"),
    }
}
