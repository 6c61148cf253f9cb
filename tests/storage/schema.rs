//! The schema: the same tables and columns on both databases, kept up to date by whoever opens them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use batchwright::storage::{Result, Storage as _, StorageError};
use futures::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::databases::postgres_url;
use crate::given::{Place, TestStorage};

on_both_databases!(a_database_that_is_up_to_date_is_opened_again, a_database_of_a_newer_program_is_refused,);

const SQLITE_COLUMNS: &str = "
    SELECT tables.name, columns.name
    FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
    WHERE tables.type = 'table'";

const POSTGRES_COLUMNS: &str = "
    SELECT table_name::TEXT, column_name::TEXT
    FROM information_schema.columns
    WHERE table_schema = 'public'";

const FROM_THE_FUTURE: &str = "
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    VALUES (9999, 'from the future', TRUE, '', 0)";

/// Runs one statement past the storage, which has no way to do what it does.
async fn execute(place: &Place, statement: &'static str) {
    match place {
        Place::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = SqliteConnection::connect_with(&options).await.expect("it was opened before");
            sqlx::query(statement).execute(&mut connection).await.expect("a plain statement");
        }
        Place::Postgres(url) => {
            let mut connection = PgConnection::connect(url).await.expect("it was opened before");
            sqlx::query(statement).execute(&mut connection).await.expect("a plain statement");
        }
    }
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

async fn a_database_of_a_newer_program_is_refused(storage: TestStorage) -> Result<()> {
    execute(&storage.place, FROM_THE_FUTURE).await;

    let error = storage.place.open().await.err().expect("it is refused");

    let StorageError::TooNew { found, known } = error else { panic!("{error}") };
    assert_eq!(found, 9999);
    assert_eq!(known, i64::try_from(migrations("sqlite").len()).expect("few"));
    Ok(())
}
