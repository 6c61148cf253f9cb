//! Where a client finds this API: what its own request says of that.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};

static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The origin of the URL that a request was sent to, such as `https://batch.example`: that of a proxy before this
/// program, if it says so. Empty if the request has no host. Only the client that has sent it is told of it.
pub struct PublicOrigin(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PublicOrigin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl PublicOrigin {
    fn of(headers: &HeaderMap) -> Self {
        // Of several proxies, the first is the one that the client knows.
        let first = |name: &HeaderName| headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim);
        let host = [&FORWARDED_HOST, &header::HOST].into_iter().find_map(first);
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        let scheme = if first(&FORWARDED_PROTO) == Some("https") { "https" } else { "http" };
        Self(host.map_or_else(String::new, |host| format!("{scheme}://{host}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_that_of_the_first_proxy() {
        let cases: [(&[(&HeaderName, &str)], &str); 6] = [
            (&[(&header::HOST, "127.0.0.1:8080")], "http://127.0.0.1:8080"),
            (&[(&header::HOST, "batch.example"), (&FORWARDED_PROTO, "https")], "https://batch.example"),
            (&[(&header::HOST, "10.0.0.1:80"), (&FORWARDED_HOST, "a.example, b.example")], "http://a.example"),
            (&[(&header::HOST, "[::1]:8080"), (&FORWARDED_PROTO, "gopher")], "http://[::1]:8080"),
            (&[(&header::HOST, "a b")], ""),
            (&[], ""),
        ];
        for (headers, expected) in cases {
            let headers = headers.iter().map(|(name, value)| ((*name).clone(), value.parse().expect("a value")));
            assert_eq!(PublicOrigin::of(&headers.collect()).0, expected);
        }
    }
}
