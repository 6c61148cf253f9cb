//! The address, and how the program starts and stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use url::Url;

use super::durations::duration;
use crate::domain::cost::Prices;

/// The address, and how the program starts and stops.
#[derive(Args, Debug, Clone)]
pub struct HttpConfig {
    /// Address and port to listen on. Clients use `http://ADDRESS/v1` as their base URL.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Answer calls without a key, in the name of the project `default`. Otherwise they are answered only as long as no
    /// key was ever made, and only on a loopback address.
    #[arg(long)]
    pub allow_anonymous: bool,

    /// Certificate in PEM, followed by those that vouch for it: clients then talk by TLS, to `https://ADDRESS/v1`. It
    /// is read again within seconds when the file changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of `--tls-cert` in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Another address for `/metrics`, which is then not among the routes of `--listen`. Plain HTTP.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,

    /// What this process does: `api` answers clients, `worker` runs rows, `all` does both.
    #[arg(long, value_enum, default_value = "all")]
    pub role: Role,

    /// Origins whose web pages may call the API from a browser, such as `https://app.example.com`; `*` is every origin.
    /// Without it, browsers let no page read an answer.
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub cors_allowed_origins: Vec<String>,

    /// How long calls in flight may go on after the first SIGTERM or Ctrl-C. A second one ends the program at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub grace: Duration,

    /// What tokens cost: the table `[prices]` of the settings file.
    #[arg(skip)]
    pub prices: Option<Prices>,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers clients and runs rows.
    All,
    /// Answers clients.
    Api,
    /// Runs rows.
    Worker,
}

impl Role {
    /// Whether the process answers clients.
    #[must_use]
    pub fn serves_api(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    /// Whether the process runs rows.
    #[must_use]
    pub fn runs_rows(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}

/// An origin as browsers send it, or `*`.
fn origin(text: &str) -> Result<String, String> {
    let is_origin = |url: Url| matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *text;
    if text == "*" || !text.contains('*') && Url::parse(text).is_ok_and(is_origin) {
        return Ok(text.to_owned());
    }
    Err("an origin is `*`, or a scheme and a host as browsers send them: in small letters, with the port only if it is \
         not the usual one, and without a path or a slash at the end, such as `https://app.example.com`"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        for text in ["*", "https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "http://10.0.0.1"] {
            assert_eq!(origin(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "null",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/x",
            "https://App.example.com",
            "https://app.example.com:443",
            "https://user@app.example.com",
            "https://*.example.com",
            "https://bücher.example",
            "file:///x",
            " https://app.example.com",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
