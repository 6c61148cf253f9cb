//! Servers with certificates that only the operator trusts.

use std::path::Path;
use std::sync::Arc;

use axum::routing::post;
use axum::serve::Listener;
use batchwright::simulator::{Simulator, SimulatorArgs};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::common::client::text;
use crate::common::process::{Process, batchwright, refusal};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Connections over TLS, for `axum`.
struct TlsListener(TcpListener, TlsAcceptor);

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (connection, from) = self.0.accept().await.expect("a connection");
            if let Ok(connection) = self.1.accept(connection).await {
                return (connection, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A certificate of an authority, signed by itself, for a server of this name, until a year.
fn authority(name: &str, until: i32) -> Issuer {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(until, 1, 1);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// Starts a simulated inference server with a certificate; its base URL.
async fn serve_with(certificate: &rcgen::Certificate, key: &KeyPair) -> String {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config =
        ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let config = config.expect("plain settings").with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], key).expect("they belong together");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("it is bound"));
    let router = Simulator::new(SimulatorArgs::default()).router().route("/tool", post(async || "sunny"));
    tokio::spawn(async move { axum::serve(TlsListener(listener, TlsAcceptor::from(Arc::new(config))), router).await });
    url
}

/// `serve` with the certificates of a file for an upstream, on a data directory beside it.
async fn trusting(file: &Path, flags: &[&str]) -> Process {
    let (data, ca) = (file.with_extension("data").display().to_string(), file.display().to_string());
    let flags = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data, "--upstream-ca", &ca], flags].concat();
    Process::start(batchwright(&flags)).await
}

#[tokio::test]
async fn a_server_is_trusted_by_its_own_certificate_or_its_authority_and_by_nothing_else() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (own, other_key) = (authority("127.0.0.1", 4000), authority("127.0.0.1", 4000));
    let (expired, other_name) = (authority("127.0.0.1", 2001), authority("localhost", 4000));
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&leaf_key, &own).expect("a certificate");
    let by_leaf = serve_with(&leaf, &leaf_key).await;
    let by = async |authority: &Issuer| serve_with(authority.as_ref(), authority.key()).await;
    let cases = [
        ("its own certificate", by(&own).await, own.pem(), ""),
        ("one of two", by(&own).await, [other_name.pem(), own.pem()].concat(), ""),
        ("its authority", by_leaf, own.pem(), ""),
        ("its certificate has expired", by(&expired).await, expired.pem(), "certificate expired"),
        ("its certificate is for another name", by(&other_name).await, other_name.pem(), "not valid for name"),
        ("another certificate of its name", by(&own).await, other_key.pem(), "invalid peer certificate"),
    ];
    for (number, (what, url, trusted, refusal)) in cases.into_iter().enumerate() {
        let file = directory.path().join(format!("{number}.pem"));
        std::fs::write(&file, trusted).expect("a file");
        let server = trusting(&file, &["--upstream", &format!("{url}/v1")]).await;

        let answer = server.client().get("/v1/models").await.json();
        match refusal {
            "" => assert_eq!(answer["object"], "list", "{what}: {answer}"),
            refusal => assert!(text(&answer["error"]["message"]).contains(refusal), "{what}: {answer}"),
        }
    }
}

#[tokio::test]
async fn tools_are_trusted_as_upstreams_are_and_an_upstream_may_have_a_file_of_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (upstream, tool) = (authority("127.0.0.1", 4000), authority("127.0.0.1", 4000));
    let (upstream_url, tool_url) =
        (serve_with(upstream.as_ref(), upstream.key()).await, serve_with(tool.as_ref(), tool.key()).await);
    let [ca, own, config] = ["tools.pem", "own.pem", "settings.toml"].map(|name| directory.path().join(name));
    std::fs::write(&ca, tool.pem()).expect("a file");
    std::fs::write(&own, upstream.pem()).expect("a file");
    let table =
        format!("[[upstreams]]\nname = 'it'\nurl = '{upstream_url}/v1'\nmodels = '*'\nca = '{}'\n", own.display());
    std::fs::write(&config, format!("{table}[[tools]]\nname = 'weather'\nurl = '{tool_url}/tool'\n")).expect("a file");
    let server = trusting(&ca, &["--config", &config.display().to_string()]).await;
    let client = server.client();

    let script = json!({ "turns": [[{ "name": "weather", "arguments": {} }]] });
    let body = json!({
        "model": "m", "input": format!("simulate:{script}"), "tools": [{ "type": "function", "name": "weather" }],
    });
    let row = json!({ "custom_id": "r", "method": "POST", "url": "/v1/responses", "body": body });
    let file = client.upload(row.to_string()).await;
    let new = json!({ "input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h" });
    let batch = client.post("/v1/batches", &new).await.ok();
    let batch = client.wait_for(text(&batch["id"]), "completed").await;

    let output = client.results(&batch).await.output[0].to_string();
    assert!(output.contains("sunny") && !output.contains("could not be reached"), "{output}");
}

#[tokio::test]
async fn a_file_without_a_certificate_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for (name, text, expected) in [
        ("missing", None, "cannot be read"),
        ("empty", Some("key\n"), "has no certificate in it"),
        ("bad", Some(cut), "has a certificate that cannot be used, number 1"),
    ] {
        let [file, config] = ["pem", "toml"].map(|extension| directory.path().join(name).with_extension(extension));
        let shown = file.display().to_string();
        if let Some(text) = text {
            std::fs::write(&file, text).expect("a file");
        }
        std::fs::write(&config, format!("[[upstreams]]\nname = 'it'\nurl = 'https://h'\nca = '{shown}'\n"))
            .expect("a file");
        let by_flag = ["serve", "--upstream", "https://h", "--upstream-ca", &shown];
        let by_table = ["serve", "--config", &config.display().to_string()];
        for (flags, status) in [(&by_flag[..], 2), (&by_table[..], 1)] {
            let said = refusal(batchwright(flags), status).await;

            assert!(said.contains(&shown) && said.contains(expected), "{said}");
        }
    }
}
