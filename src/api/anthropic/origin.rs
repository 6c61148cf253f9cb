//! Where a client finds this API: what its own request says of that.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};

use crate::api::App;

static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The origin of the URL that a request was sent to, such as `https://batch.example`: that of a proxy before this
/// program, if it says so. Empty if the request has no host. Only the client that has sent it is told of it.
pub struct PublicOrigin(pub(super) String);

impl FromRequestParts<Arc<App>> for PublicOrigin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers, app.is_tls))
    }
}

impl PublicOrigin {
    fn of(headers: &HeaderMap, is_tls: bool) -> Self {
        // Of several proxies, the first is the one that the client knows.
        let first = |name: &HeaderName| headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim);
        let host = [&FORWARDED_HOST, &header::HOST].into_iter().find_map(first);
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        let is_https = first(&FORWARDED_PROTO).map_or(is_tls, |proto| proto == "https");
        let scheme = if is_https { "https" } else { "http" };
        Self(host.map_or_else(String::new, |host| format!("{scheme}://{host}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_that_of_the_first_proxy() {
        // The headers, whether this program speaks TLS, and the origin.
        type Case<'a> = (&'a [(&'a HeaderName, &'a str)], bool, &'a str);
        let cases: [Case<'_>; 8] = [
            (&[(&header::HOST, "127.0.0.1:8080")], false, "http://127.0.0.1:8080"),
            (&[(&header::HOST, "batch.example")], true, "https://batch.example"),
            (&[(&header::HOST, "batch.example"), (&FORWARDED_PROTO, "https")], false, "https://batch.example"),
            (&[(&header::HOST, "batch.example"), (&FORWARDED_PROTO, "http")], true, "http://batch.example"),
            (&[(&header::HOST, "10.0.0.1:80"), (&FORWARDED_HOST, "a.example, b.example")], false, "http://a.example"),
            (&[(&header::HOST, "[::1]:8080"), (&FORWARDED_PROTO, "gopher")], false, "http://[::1]:8080"),
            (&[(&header::HOST, "a b")], false, ""),
            (&[], true, ""),
        ];
        for (headers, is_tls, expected) in cases {
            let headers = headers.iter().map(|(name, value)| ((*name).clone(), value.parse().expect("a value")));
            assert_eq!(PublicOrigin::of(&headers.collect(), is_tls).0, expected);
        }
    }
}
