//! Where things are kept.

use std::path::PathBuf;

use clap::Args;

use super::Secret;

/// Where things are kept.
#[derive(Args, Debug, Clone)]
pub struct StorageConfig {
    /// Directory for the embedded database and for files, made if it is not there. One process at a time can use it.
    #[arg(long, value_name = "DIRECTORY", default_value = "./batchwright-data")]
    pub data_dir: PathBuf,

    /// Database to use instead of the embedded one, such as `postgres://user:password@host/database`.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<Secret>,

    /// Where to keep files instead of the data directory, such as `file:///a/shared/directory`.
    #[arg(long, value_name = "URL")]
    pub blob_url: Option<String>,
}
