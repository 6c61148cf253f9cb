//! What a request tells of the browser that has sent it, if one has: browsers on this machine run pages of any site.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri, header};

use crate::api::ApiError;

/// Refuses a call without a key that comes under another name than one of this machine: a page can have a name of its
/// own lead here (DNS rebinding).
pub(super) fn check_name(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if host(uri, headers).is_some_and(names_this_machine) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        "As long as there are no API keys, calls are answered only under the names localhost, 127.0.0.1 and [::1]. \
         Make a key (batchwright keys create --project default), or have calls without one answered under every name \
         (--allow-anonymous).",
    ))
}

/// Refuses a call without a key that a page of another site has had a browser make, which the browser tells. `origins`
/// are those whose pages may call the API.
pub(super) fn check_page(method: &Method, uri: &Uri, headers: &HeaderMap, origins: &[String]) -> Result<(), ApiError> {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let is_allowed = origins.iter().any(|allowed| allowed == "*" || origin.is_some_and(|origin| origin == allowed));
    let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && !is_allowed && !comes_from_this_site(host(uri, headers), headers) {
        return Err(ApiError::forbidden(
            "This was sent by a page of another site, and nothing was done. --cors-allowed-origins names the origins \
             whose pages may call the API.",
        ));
    }
    Ok(())
}

/// The name that the client has for this program.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| uri.authority().map(Authority::as_str))
}

/// Whether a `Host`, with or without a port, is `localhost` or a loopback address.
pub(crate) fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a page of this site has sent the request, as far as a browser says. Programs say nothing, and have no
/// cookies or keys here that could be abused. Pages send no referrer, so that the origin of their own forms is `null`.
pub(crate) fn comes_from_this_site(host: Option<&str>, headers: &HeaderMap) -> bool {
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_own = |origin: &str| origin.split_once("://").map(|(_, authority)| authority) == host;
    match (said("sec-fetch-site"), said("origin")) {
        (Some(site), origin) => site == "same-origin" && origin.is_none_or(|origin| origin == "null" || is_own(origin)),
        (None, origin) => origin.is_none_or(is_own),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_str(value).expect("a value");
        headers.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    #[test]
    fn pages_of_other_sites_are_told_from_programs() {
        type Case<'a> = (Method, &'a [(&'static str, &'a str)], bool);
        let (host, allowed) = (("host", "127.0.0.1:8080"), ("origin", "https://app.example.com"));
        let cases: [Case<'_>; 9] = [
            (Method::POST, &[host], true),
            (Method::GET, &[("host", "localhost:8080")], true),
            (Method::GET, &[("host", "evil.example:8080")], false),
            (Method::GET, &[], false),
            (Method::POST, &[host, ("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")], false),
            (Method::POST, &[host, ("origin", "http://evil.example")], false),
            (Method::DELETE, &[host, ("origin", "null")], false),
            (Method::GET, &[host, ("sec-fetch-site", "cross-site")], true),
            (Method::POST, &[host, ("sec-fetch-site", "cross-site"), allowed], true),
        ];
        for (method, headers, answered) in cases {
            let origins = ["https://app.example.com".to_owned()];
            let (uri, headers) = (Uri::from_static("/v1/batches"), of(headers));
            let checked = check_name(&uri, &headers).and_then(|()| check_page(&method, &uri, &headers, &origins));
            assert_eq!(checked.is_ok(), answered, "{method} {headers:?}");
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
            let headers = of(&headers);
            assert_eq!(comes_from_this_site(Some("localhost:8080"), &headers), accepted, "{headers:?}");
        }
    }
}
