//! Who may see the dashboard, and what browsers may do with its pages.
//!
//! Where calls need a key, a visitor signs in with one ([`super::sign_in`]), from any machine. As long as there are no
//! keys, a page answers only to peers on this machine. A web page of another site runs on this machine too: the `Host`
//! must then be a name of this machine, because such a page can have a name of its own lead here (DNS rebinding). In
//! either case it can post a form here, which the browser tells.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::page::PageError;
use super::sign_in::{self, SIGN_IN, SIGN_OUT};
use super::view::encoded;
use crate::api::{App, AppState, AuditedCall, Caller, comes_from_this_site, host, names_this_machine};
use crate::domain::api_key::{KeyScope, KeyScopes};
use crate::storage::StorageError;

/// Only what this server sends is run or shown, and nothing inside of a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Style and scripts, which tell nothing.
const ASSETS: &str = "/dashboard/assets/";

/// What proxies add for the browser behind them, which is on another machine as likely as not.
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// Answers those who may ask, in the name of the owner that they act for, and adds the headers that every answer has.
pub(super) async fn guard(State(app): AppState, request: Request, next: Next) -> Response {
    let audited = AuditedCall::of(&request);
    let (mut head, body) = request.into_parts();
    let mut caller = None;
    let mut response = match admit(&app, &head).await {
        Ok(admitted) => {
            if let Some(admitted) = admitted {
                head.extensions.insert(admitted.clone());
                caller = Some(admitted);
            }
            next.run(Request::from_parts(head, body)).await
        }
        Err(refusal) => refusal,
    };
    if let Some(audited) = audited {
        let caller = caller.as_ref().or(response.extensions().get());
        audited.log(caller, &response);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Whom a request acts for, or the answer that it gets instead of a page. Nobody, of what is there before a visitor has
/// signed in.
async fn admit(app: &App, head: &Parts) -> Result<Option<Caller>, Response> {
    let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
    let refused = |why: &str| PageError::new(StatusCode::FORBIDDEN, why).into_response();
    let failed = |error: StorageError| PageError::from(error).into_response();
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    if changes && !comes_from_this_site(host(uri, headers), headers) {
        return Err(refused("This was sent by a page of another site, and nothing was done."));
    }
    if !app.access.keys_are_in_force().await.map_err(failed)? && app.access.answers_without_key() {
        let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        check_local(peer, uri, headers).map_err(refused)?;
        return Ok(Some(Caller::anonymous(KeyScopes::all())));
    }
    let caller = match sign_in::token(headers) {
        Some(token) => app.storage.key_of_session(&token, app.clock.now()).await.map_err(failed)?.map(Caller::of_key),
        None => None,
    };
    match caller {
        _ if [SIGN_IN, SIGN_OUT].contains(&uri.path()) || uri.path().starts_with(ASSETS) => Ok(caller),
        Some(caller) if !changes || caller.may(KeyScope::Write) => Ok(Some(caller)),
        Some(_) => Err(refused("Your key lets you look and change nothing: it does not have the scope 'write'.")),
        None => Err(to_sign_in(method, uri, headers)),
    }
}

/// A browser that opens a page is led to the sign-in. A script that asks for what is fresh is told so, and says that
/// the page is not.
fn to_sign_in(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    if *method == Method::GET && !headers.contains_key("hx-request") {
        let wanted = uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
        return Redirect::to(&format!("{SIGN_IN}?next={}", encoded(wanted))).into_response();
    }
    PageError::new(StatusCode::UNAUTHORIZED, "Your session has ended. Open the overview to sign in again.")
        .into_response()
}

/// Whether a visitor without a key is on this machine.
fn check_local(peer: Option<IpAddr>, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    if !peer.is_some_and(|peer| peer.to_canonical().is_loopback()) {
        return Err(
            "As long as there are no keys, the dashboard answers only to browsers on the machine that it runs \
                    on. Make a key there to sign in from here: batchwright keys create --project default. Or forward a \
                    port: ssh -L 8080:127.0.0.1:8080 HOST, then open http://127.0.0.1:8080/dashboard.",
        );
    }
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return Err("As long as there are no keys, the dashboard answers to no proxy. Make a key (batchwright keys \
                    create --project default), or open it on its own machine: http://127.0.0.1:PORT/dashboard.");
    }
    if !host(uri, headers).is_some_and(names_this_machine) {
        return Err(
            "As long as there are no keys, the dashboard answers only under the names localhost, 127.0.0.1 and \
                    [::1]. Open http://127.0.0.1:PORT/dashboard.",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_str(value).expect("a value");
        let named = headers.iter().map(|(name, text)| (axum::http::HeaderName::from_static(name), value(text)));
        named.collect()
    }

    fn checked(peer: &str, headers: &[(&'static str, &str)]) -> bool {
        check_local(peer.parse().ok(), &Uri::from_static("/dashboard"), &of(headers)).is_ok()
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
            assert_eq!(checked(peer, &[("host", "localhost:8080")]), answered, "{peer}");
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
            assert_eq!(checked("127.0.0.1", &[("host", host)]), answered, "{host:?}");
        }
        assert!(!checked("127.0.0.1", &[]));
    }

    #[test]
    fn proxies_are_not_answered() {
        for name in FORWARDED {
            assert!(!checked("127.0.0.1", &[("host", "localhost"), (name, "127.0.0.1")]), "{name}");
        }
    }
}
