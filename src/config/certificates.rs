//! Certificates that the operator trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The certificates of a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates(Arc<[CertificateDer<'static>]>);

impl Certificates {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be used, as the end of a sentence about it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
        let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| format!("is not PEM: {error}"))?;
        if certificates.is_empty() {
            return Err("has no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned());
        }
        for (position, certificate) in certificates.iter().enumerate() {
            let read = RootCertStore::empty().add(certificate.clone());
            read.map_err(|error| format!("has a certificate that cannot be used, number {}: {error}", position + 1))?;
        }
        Ok(Self(certificates.into()))
    }

    /// The certificates.
    #[must_use]
    pub fn all(&self) -> &Arc<[CertificateDer<'static>]> {
        &self.0
    }
}
