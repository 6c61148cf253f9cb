//! TLS of the listener, with a certificate that can be replaced while the server runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::sync::lock;
use crate::telemetry::chain;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file of the certificate has none.
    #[error("{} has no certificate in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// The file of the key has none.
    #[error("{} has no private key in PEM (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The two do not belong together, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] Box<rustls::Error>),
}

/// The certificate of the server. Connections that begin use the newest one that could be read.
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Arc<ServerConfig>>,
    /// What the files had when they were last read.
    seen: Mutex<PemPair>,
}

/// The contents of the files of a certificate and its key.
#[derive(PartialEq)]
struct PemPair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl ServerTls {
    /// Reads a certificate with those that vouch for it, and its key, both in PEM.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let seen = PemPair::read(certificate, key)?;
        let current = Mutex::new(seen.config(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current, seen: Mutex::new(seen) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        lock(&self.current).clone().into()
    }

    /// Takes in what the files have, whenever that changes. A pair that cannot be used changes nothing: one of the two
    /// may be about to follow.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = self.clone();
            let looked = tokio::task::spawn_blocking(move || tls.look()).await;
            match looked.expect("reading files does not panic") {
                Ok(false) => {}
                Ok(true) => tracing::info!("the TLS certificate was read again"),
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "the TLS certificate stays as it is: the new one is not usable"
                    );
                }
            }
        }
    }

    /// Reads the files. True if they had another pair, which is used from now on.
    fn look(&self) -> Result<bool, TlsError> {
        let found = PemPair::read(&self.certificate, &self.key)?;
        if *lock(&self.seen) == found {
            return Ok(false);
        }
        let config = found.config(&self.certificate, &self.key);
        *lock(&self.seen) = found;
        *lock(&self.current) = config?;
        Ok(true)
    }
}

impl PemPair {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| TlsError::Unreadable(path.to_owned(), error));
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    fn config(&self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(certificate.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::NoKey(key.to_owned()))?;
        let unusable = |error| TlsError::Unusable(Box::new(error));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(unusable)?;
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
