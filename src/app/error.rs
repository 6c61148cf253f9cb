//! Why a service cannot start, and what to change.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api::TlsError;
use crate::storage::StorageError;
use crate::storage::blobs::BlobError;
use crate::webhooks::WebhooksError;

/// Why a service cannot start or serve. The text says which setting to change.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// `--upstream` is missing.
    #[error(
        "no inference server is given: say which with --upstream URL, such as --upstream http://127.0.0.1:8000/v1, or \
         with [[upstreams]] in the settings file (or try `batchwright demo`, which brings its own)"
    )]
    NoUpstreamGiven,
    /// `--upstream` is given, and the settings file has `[[upstreams]]`.
    #[error(
        "the settings file has [[upstreams]], and --upstream (or BATCHWRIGHT_UPSTREAM) is given too: leave one of them \
         out"
    )]
    TwoKindsOfUpstreams,
    /// `--upstream-key` is given, and the settings file has `[[upstreams]]`.
    #[error(
        "--upstream-key (or BATCHWRIGHT_UPSTREAM_KEY) is the key of --upstream; give each of [[upstreams]] its own, as \
         key or key_file"
    )]
    KeyOfNoUpstream,
    /// An upstream cannot be used. It holds the sentence that says which and why.
    #[error("{0}")]
    Upstream(String),
    /// The client of the upstream cannot be made.
    #[error("the HTTP client cannot be set up")]
    HttpClient(#[source] reqwest::Error),
    /// A tool or a tool server of the settings cannot be used. It holds the sentence that says which and why.
    #[error("{0}")]
    Tools(String),
    /// `--tls-cert` or `--tls-key` cannot be used.
    #[error("--tls-cert and --tls-key cannot be used")]
    Tls(#[from] TlsError),
    /// A webhook of the settings cannot be used.
    #[error(transparent)]
    Webhooks(#[from] WebhooksError),
    /// `--database-url` names no PostgreSQL database.
    #[error("--database-url must start with postgres://; leave it out for the embedded database")]
    NotPostgres,
    /// The database that `--database-url` names cannot be opened.
    #[error("--database-url cannot be used")]
    DatabaseUrl(#[source] StorageError),
    /// The database is open and cannot be brought up to date.
    #[error("the database cannot be used")]
    Database(#[source] StorageError),
    /// Any other failure of the database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// `--database-url` is given without `--blob-url`.
    #[error(
        "--database-url is for replicas, which must share one blob store too: say which with --blob-url, such as \
         s3://bucket/prefix, or file:///a/directory that every replica sees"
    )]
    NoBlobUrl,
    /// The blob store cannot be opened.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The marks of the blob store cannot be read.
    #[error("the blob store cannot be read")]
    BlobsUnreadable(#[source] BlobError),
    /// The blob store cannot be marked.
    #[error("the blob store cannot be written")]
    BlobsUnwritable(#[source] BlobError),
    /// The database has used another blob store before, or the store has the mark of another database only.
    #[error(
        "this blob store is not the one that the database was used with before, or another database has taken it over: \
         give every process of a deployment the same --blob-url (or --data-dir), or take the store over with \
         --adopt-blobs"
    )]
    OtherBlobStore,
    /// The blob store has the mark of another database.
    #[error(
        "this blob store belongs to another database, and each would remove the files that only the other one knows: \
         give each deployment a --blob-url (or --data-dir) of its own. If that database is gone for good, start once \
         with --adopt-blobs, which takes the store over and removes what this database does not know"
    )]
    OtherDatabase,
    /// The database lacks tables, and a service may be using it.
    #[error(
        "the database is not up to date with this version: run `batchwright migrate` first or, if it is that of a data \
         directory in use, start its service again with this version"
    )]
    NotMigrated,
    /// The data directory has no database, and the command needs one.
    #[error("there is no database in {}: is --data-dir (or --database-url) that of the service?", .0.display())]
    NoDatabase(PathBuf),
    /// The API would be open to everybody who can reach an address beyond this machine.
    #[error(
        "--listen {0} can be reached from other machines, and there is no API key, so that everybody who reaches it \
         could use the API: make a key first with `batchwright keys create --project NAME` and the same storage \
         settings, or allow calls without a key with --allow-anonymous"
    )]
    NoKeys(SocketAddr),
    /// The data directory cannot be made.
    #[error("the data directory {} cannot be made", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The lock file of the data directory cannot be written.
    #[error("{} cannot be written", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has locked the data directory.
    #[error(
        "the data directory {} is in use by another batchwright; stop it, or give another directory with --data-dir",
        .0.display()
    )]
    DataDirectoryInUse(PathBuf),
    /// The operating system refused threads or paths.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The task that accepts connections has panicked.
    #[error("the server has panicked")]
    Server(#[source] tokio::task::JoinError),
}
