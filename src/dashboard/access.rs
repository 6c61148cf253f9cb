//! Who may see the dashboard, and what browsers may do with its pages.
//!
//! There are no keys yet, so a page answers only to peers on this machine. A web page of another site runs on this
//! machine too: the `Host` must be a name of this machine, because such a page can have a name of its own lead here
//! (DNS rebinding), and it can post a form here, which the browser then tells.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::page::PageError;
use crate::api::AppState;

/// Only what this server sends is run or shown, and nothing inside of a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What proxies add for the browser behind them, which is on another machine as likely as not.
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// Answers those who may ask, and adds the headers that every answer has.
pub(super) async fn guard(State(app): AppState, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let checked = check(peer, request.method(), request.uri(), request.headers());
    let keyless = app.access.caller(&HeaderMap::new()).await;
    let mut response = match checked.and(keyless.map_err(|_| "The dashboard cannot be used with keys.")) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => PageError::new(StatusCode::FORBIDDEN, refusal).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn check(peer: Option<IpAddr>, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    if !peer.is_some_and(|peer| peer.to_canonical().is_loopback()) {
        return Err("The dashboard answers only to browsers on the machine that it runs on, because it asks for no \
                    key. From elsewhere, forward a port: ssh -L 8080:127.0.0.1:8080 HOST, then open \
                    http://127.0.0.1:8080/dashboard. A container can be reached with its own network: --network host.");
    }
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return Err("The dashboard answers to no proxy, because it asks for no key. Open it on its own machine: \
                    http://127.0.0.1:PORT/dashboard.");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(Authority::as_str));
    if !host.is_some_and(names_this_machine) {
        return Err(
            "The dashboard answers only under the names localhost, 127.0.0.1 and [::1], because it asks for no \
                    key. Open http://127.0.0.1:PORT/dashboard.",
        );
    }
    if !matches!(*method, Method::GET | Method::HEAD) && !comes_from_this_site(host, headers) {
        return Err("This was sent by a page of another site, and nothing was done.");
    }
    Ok(())
}

/// Whether a `Host`, with or without a port, is `localhost` or a loopback address.
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a page of this site has sent the request, as far as a browser says. Programs say nothing, and have no
/// cookies or keys here that could be abused. Pages send no referrer, so that the origin of their own forms is `null`.
fn comes_from_this_site(host: Option<&str>, headers: &HeaderMap) -> bool {
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_own = |origin: &str| origin.split_once("://").map(|(_, authority)| authority) == host;
    match (said("sec-fetch-site"), said("origin")) {
        (Some(site), origin) => site == "same-origin" && origin.is_none_or(|origin| origin == "null" || is_own(origin)),
        (None, origin) => origin.is_none_or(is_own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(peer: &str, method: &Method, headers: &[(&'static str, &str)]) -> bool {
        let value = |value: &str| HeaderValue::from_str(value).expect("a value");
        let headers = headers
            .iter()
            .map(|(name, text)| (axum::http::HeaderName::from_static(name), value(text)))
            .collect::<HeaderMap>();
        check(peer.parse().ok(), method, &Uri::from_static("/dashboard"), &headers).is_ok()
    }

    #[test]
    fn only_peers_on_this_machine_are_answered() {
        let cases = [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.7", false),
            ("::ffff:10.0.0.7", false),
            ("0.0.0.0", false),
            ("fe80::1", false),
            ("unknown", false),
        ];
        for (peer, answered) in cases {
            assert_eq!(checked(peer, &Method::GET, &[("host", "localhost:8080")]), answered, "{peer}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let cases = [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1:1", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("localhost.evil.example", false),
            ("10.0.0.7:8080", false),
            ("0.0.0.0:8080", false),
            ("[::]:8080", false),
            ("", false),
        ];
        for (host, answered) in cases {
            assert_eq!(checked("127.0.0.1", &Method::GET, &[("host", host)]), answered, "{host:?}");
        }
        assert!(!checked("127.0.0.1", &Method::GET, &[]));
    }

    #[test]
    fn proxies_are_not_answered() {
        for name in FORWARDED {
            assert!(!checked("127.0.0.1", &Method::GET, &[("host", "localhost"), (name, "127.0.0.1")]), "{name}");
        }
    }

    #[test]
    fn only_pages_of_this_site_may_post() {
        let host = ("host", "localhost:8080");
        let cases = [
            (vec![host], true),
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")], true),
            (vec![host, ("origin", "https://localhost:8080")], true),
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "null")], true),
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "http://evil.example")], false),
            (vec![host, ("sec-fetch-site", "same-site")], false),
            (vec![host, ("sec-fetch-site", "cross-site"), ("origin", "null")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "none")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "http://localhost:3000")], false),
            (vec![host, ("origin", "http://evil.example")], false),
        ];
        for (headers, accepted) in cases {
            assert_eq!(checked("::1", &Method::POST, &headers), accepted, "{headers:?}");
            assert!(checked("::1", &Method::GET, &headers), "{headers:?} only reads");
        }
    }
}
