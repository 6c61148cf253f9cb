//! The conformance suite of the storage: what `batchwright::storage` promises, held against both databases.
//!
//! A test is an async function that gets an empty storage; `on_both_databases!` at the top of each file makes two tests
//! of it. One that is not listed there is an unused function, which the compiler reports.

#[path = "../common/databases.rs"]
mod databases;
mod given;

/// Makes the tests `sqlite::name` and `postgres::name` of each function.
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() -> batchwright::storage::Result<()> {
                super::$name($crate::given::TestStorage::sqlite().await).await
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() -> batchwright::storage::Result<()> {
                super::$name($crate::given::TestStorage::postgres().await).await
            })+
        }
    };
}

mod attempts;
mod batches;
mod cancelling;
mod claims;
mod daemons;
mod ending;
mod files;
mod guard;
mod keys;
mod late_commit;
mod leases;
mod ledger;
mod lists;
mod merging;
mod message_batches;
mod model;
mod owners;
mod plans;
mod progress;
mod projects;
mod request_keys;
mod results;
mod rows;
mod schema;
mod steering;
mod steps;
mod terminal;
mod unreadable;
mod upkeep;
mod uploads;
mod webhooks;
