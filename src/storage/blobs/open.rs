//! Which blob store: a local directory, or what a `--blob-url` names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::{BlobError, Blobs};
use crate::config::shown_url;

/// What is not left to the environment, as proxies and certificates are.
const CLIENT: [(ClientConfigKey, &str); 4] = [
    // For one request: a piece of a few MiB at most.
    (ClientConfigKey::Timeout, "20s"),
    (ClientConfigKey::ConnectTimeout, "5s"),
    // An idle connection may have broken in silence, which a request would find out only by its timeout.
    (ClientConfigKey::PoolIdleTimeout, "10s"),
    // Plain HTTP for stores in the same rack; only an endpoint that says so is spoken to like that.
    (ClientConfigKey::AllowHttp, "true"),
];
/// Failures that pass are tried again here for so long, a timeout among them; after that it is for the caller to say
/// what is to become of it.
const RETRIED_FOR: Duration = Duration::from_secs(60);

impl Blobs {
    /// A store in a local directory, which is made if it is not there. What is written is synced to disk.
    pub fn local(directory: &Path) -> Result<Self, BlobError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| BlobError::Directory { path: directory.display().to_string(), source })?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self::new(Arc::new(store), Some(directory.to_owned())))
    }

    /// The store a `--blob-url` names. Credentials, regions and endpoints are those that the environment has for the
    /// store's own tools: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    pub fn at_url(url: &str) -> Result<Self, BlobError> {
        let unknown = || BlobError::UnknownUrl(shown_url(url));
        let parsed = Url::parse(url).map_err(|_| unknown())?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(BlobError::Credentials(shown_url(url)));
        }
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|_| unknown())?;
        let store = match scheme {
            ObjectStoreScheme::Local => return Self::local(&parsed.to_file_path().map_err(|()| unknown())?),
            ObjectStoreScheme::AmazonS3 => {
                let from_env = AmazonS3Builder::from_env().with_url(url).with_retry(retries());
                let set =
                    |store: AmazonS3Builder, (key, value)| store.with_config(AmazonS3ConfigKey::Client(key), value);
                shared(CLIENT.into_iter().fold(from_env, set).build())
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                let from_env = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retries());
                let set = |store: GoogleCloudStorageBuilder, (key, value)| {
                    store.with_config(GoogleConfigKey::Client(key), value)
                };
                shared(CLIENT.into_iter().fold(from_env, set).build())
            }
            ObjectStoreScheme::MicrosoftAzure => {
                let from_env = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retries());
                let set =
                    |store: MicrosoftAzureBuilder, (key, value)| store.with_config(AzureConfigKey::Client(key), value);
                shared(CLIENT.into_iter().fold(from_env, set).build())
            }
            _ => return Err(unknown()),
        };
        let store = store.map_err(|source| BlobError::Settings { url: shown_url(url), source })?;
        Ok(Self::new(Arc::new(PrefixStore::new(store, prefix)), None))
    }
}

fn shared(store: object_store::Result<impl ObjectStore>) -> object_store::Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(store?))
}

fn retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 5, retry_timeout: RETRIED_FOR }
}
