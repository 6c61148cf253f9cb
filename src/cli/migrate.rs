//! `batchwright migrate`: migrates the database, before the first replica of a new version starts.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::app::database;
use crate::config::StorageConfig;

pub(super) async fn run(config: StorageConfig) -> anyhow::Result<ExitCode> {
    let (db, _lock) = database(&config).await?;
    db.migrate().await.context("the database cannot be used")?;
    println!("The database is up to date.");
    Ok(ExitCode::SUCCESS)
}
