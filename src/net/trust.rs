//! TLS with certificates that the operator trusts besides those of the system.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// TLS for clients that trust these certificates too.
///
/// # Errors
/// One of them cannot be read.
pub fn tls_with(trusted: &Arc<[CertificateDer<'static>]>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in trusted.iter() {
        roots.add(certificate.clone())?;
    }
    let own = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
    let verifier = TrustedCertificates {
        system: Verifier::new_with_extra_roots(trusted.iter().cloned(), provider.clone())?,
        own: own.map_err(|error| Error::General(error.to_string()))?,
        trusted: trusted.clone(),
    };
    let tls = ClientConfig::builder_with_provider(provider);
    let tls = tls.with_safe_default_protocol_versions()?.dangerous();
    Ok(tls.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Verifies as the system does, with further authorities, of which each may also be the server itself.
#[derive(Debug)]
struct TrustedCertificates {
    system: Verifier,
    own: Arc<WebPkiServerVerifier>,
    trusted: Arc<[CertificateDer<'static>]>,
}

impl ServerCertVerifier for TrustedCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.trusted.contains(end_entity) {
            return self.system.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        match self.own.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The server's own certificate is an authority's, as `openssl req -x509` makes it. The time has been
            // checked before that; the name has not.
            Err(error) if is_of_authority(&error) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own.supported_verify_schemes()
    }
}

/// Whether a certificate was refused only because it is that of an authority.
fn is_of_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}
