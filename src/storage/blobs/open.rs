//! Which blob store: a local directory, or what a `--blob-url` names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::{BlobError, Blobs};

/// How long a store may take for one request: a piece of a few MiB at most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection may have broken in silence, which a request would find out only by its timeout.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Failures that pass are tried again here for so long, a timeout among them; after that it is for the caller to say
/// what is to become of it.
const RETRIED_FOR: Duration = Duration::from_secs(60);

impl Blobs {
    /// A store in a local directory, which is made if it is not there. What is written is synced to disk.
    pub fn local(directory: &Path) -> Result<Self, BlobError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| BlobError::Directory { path: directory.display().to_string(), source })?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), directory: Some(directory.to_owned()) })
    }

    /// The store a `--blob-url` names. Credentials, regions and endpoints are those that the environment has for the
    /// store's own tools: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    pub fn at_url(url: &str) -> Result<Self, BlobError> {
        let unknown = || BlobError::UnknownUrl(url.to_owned());
        let parsed = Url::parse(url).map_err(|_| unknown())?;
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|_| unknown())?;
        let store = match scheme {
            ObjectStoreScheme::Local => return Self::local(&parsed.to_file_path().map_err(|()| unknown())?),
            ObjectStoreScheme::AmazonS3 => shared(
                AmazonS3Builder::from_env()
                    .with_url(url)
                    .with_client_options(client_options())
                    .with_retry(retries())
                    .build(),
            ),
            ObjectStoreScheme::GoogleCloudStorage => shared(
                GoogleCloudStorageBuilder::from_env()
                    .with_url(url)
                    .with_client_options(client_options())
                    .with_retry(retries())
                    .build(),
            ),
            ObjectStoreScheme::MicrosoftAzure => shared(
                MicrosoftAzureBuilder::from_env()
                    .with_url(url)
                    .with_client_options(client_options())
                    .with_retry(retries())
                    .build(),
            ),
            _ => return Err(unknown()),
        };
        let store = store.map_err(|source| BlobError::Settings { url: url.to_owned(), source })?;
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), directory: None })
    }
}

fn shared(store: object_store::Result<impl ObjectStore>) -> object_store::Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(store?))
}

fn client_options() -> ClientOptions {
    // Plain HTTP for stores in the same rack; only an endpoint that says so is spoken to like that.
    ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_pool_idle_timeout(IDLE_TIMEOUT)
        .with_allow_http(true)
}

fn retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 5, retry_timeout: RETRIED_FOR }
}
