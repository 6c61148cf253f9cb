//! The database and the blob store.

use std::path::PathBuf;

use clap::Args;

use super::Secret;

/// The database and the blob store.
#[derive(Args, Debug, Clone)]
pub struct StorageConfig {
    /// Directory for the embedded database and for files, created if it does not exist. One process at a time can use
    /// it.
    #[arg(long, value_name = "DIRECTORY", default_value = "./batchwright-data")]
    pub data_dir: PathBuf,

    /// Database to use instead of the embedded one, such as `postgres://user:password@host/database`. Any number of
    /// replicas can use it; they need a `--blob-url` that they share too.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<Secret>,

    /// Connections to the PostgreSQL database that this process may have at once, besides one for notifications.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,

    /// Where to keep files instead of the data directory: `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix`, or `file:///a/directory` that every replica sees.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub blob_url: Option<Secret>,

    /// Take over a blob store that another database has marked as its own. Files that only the other database knows are
    /// then removed, so its processes must be gone for good. Use it for one start only.
    #[arg(long)]
    pub adopt_blobs: bool,
}
