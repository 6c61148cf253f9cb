//! Certificates of servers for 127.0.0.1, and TLS as their clients speak it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, IpAddr, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate that vouches for itself, in two files.
pub struct OwnCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub der: CertificateDer<'static>,
}

impl OwnCertificate {
    /// Writes a new one into a directory, over one that is there.
    pub fn write(directory: &Path) -> Self {
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let own = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        std::fs::write(&key, own.key().serialize_pem()).expect("the directory can be written");
        std::fs::write(&certificate, own.pem()).expect("the directory can be written");
        Self { certificate, key, der: own.der().clone() }
    }

    /// The flags of `serve`.
    pub fn flags(&self) -> [String; 4] {
        let path = |path: &Path| path.display().to_string();
        ["--tls-cert".to_owned(), path(&self.certificate), "--tls-key".to_owned(), path(&self.key)]
    }

    /// Connects as a client that trusts this certificate alone, and asks for one of these protocols.
    pub async fn connect(&self, to: SocketAddr, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("it can be read");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("plain settings").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::IpAddress(IpAddr::try_from("127.0.0.1").expect("an address"));
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(to).await?).await
    }
}
