//! `/dashboard/sign-in`: a key opens a session, whose token the browser keeps in a cookie.
//!
//! The cookie has a random token and not the key: what a browser has is good for 12 hours at most, and for no program.

use std::collections::HashMap;
use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Redirect, Response};
use axum::{Extension, Form};

use super::page::{PageError, page};
use super::view::Layout;
use crate::api::{App, AppState, Caller};
use crate::domain::api_key::{ApiKey, RandomSecret, SecretHash};

/// Where a visitor without a session is led.
pub(super) const SIGN_IN: &str = "/dashboard/sign-in";
/// Where a session is ended.
pub(super) const SIGN_OUT: &str = "/dashboard/sign-out";

const COOKIE: &str = "batchwright_session";

/// A working day.
const SESSION: Duration = Duration::from_hours(12);

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    layout: Layout,
    /// The page that the visitor wanted.
    next: String,
    is_refused: bool,
}

impl SignInPage {
    fn leading_to(next: Option<&String>) -> Self {
        let layout = Layout::of("sign-in", "Sign in");
        Self { layout, next: own_page(next).to_owned(), is_refused: false }
    }
}

pub(super) async fn form(
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    page(&SignInPage::leading_to(query.get("next")), &headers)
}

/// Opens a session.
pub(super) async fn sign_in(
    State(app): AppState,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Response, PageError> {
    let key = form.get("key").map(|key| key.trim()).unwrap_or_default();
    let Some(key) = app.access.holder(key).await? else {
        let refusal = SignInPage { is_refused: true, ..SignInPage::leading_to(form.get("next")) };
        return Ok((StatusCode::UNAUTHORIZED, page(&refusal, &HeaderMap::new())?).into_response());
    };
    let (token, now) = (RandomSecret::new_token(), app.clock.now());
    app.storage.create_session(&token.hash(), key.id, now.plus(SESSION), now).await?;
    let cookie = cookie(token.reveal(), SESSION, came_by_tls(&app, &headers));
    let next = Redirect::to(own_page(form.get("next")));
    // For the audit log.
    let caller = Extension(Caller::of_key(ApiKey::clone(&key)));
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), caller, next).into_response())
}

/// Ends the session.
pub(super) async fn sign_out(State(app): AppState, headers: HeaderMap) -> Result<Response, PageError> {
    if let Some(token) = token(&headers) {
        app.storage.end_session(&token).await?;
    }
    let cookie = cookie("", Duration::ZERO, came_by_tls(&app, &headers));
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to(SIGN_IN)).into_response())
}

/// The hash of the token that a browser has sent.
pub(super) fn token(headers: &HeaderMap) -> Option<SecretHash> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| SecretHash::of(token))
}

/// Scripts cannot read it, pages of other sites cannot have it sent, and the API does not get it.
fn cookie(token: &str, age: Duration, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Max-Age={}; Path=/dashboard; HttpOnly; SameSite=Strict{secure}", age.as_secs())
}

/// Whether the browser has used TLS, as the request itself or a proxy says. A false word of a client harms only itself:
/// its browser does not send the cookie again.
fn came_by_tls(app: &App, headers: &HeaderMap) -> bool {
    app.is_tls || headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https")
}

/// The page that a visitor wanted, if it is one of the dashboard, and otherwise the overview.
fn own_page(next: Option<&String>) -> &str {
    let is_own = |next: &&str| {
        let is_below =
            next.strip_prefix("/dashboard").is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        is_below && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    next.map(String::as_str).filter(is_own).unwrap_or("/dashboard")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_visitor_is_led_to_pages_of_the_dashboard_alone() {
        let cases = [
            ("/dashboard/batches?status=active", "/dashboard/batches?status=active"),
            ("/dashboard?a=b", "/dashboard?a=b"),
            ("/dashboards", "/dashboard"),
            ("https://evil.example/dashboard", "/dashboard"),
            ("//evil.example/dashboard", "/dashboard"),
            ("/dashboard/\r\nset-cookie: a=b", "/dashboard"),
            ("/dashboard\\evil", "/dashboard"),
            ("", "/dashboard"),
        ];
        for (next, led_to) in cases {
            assert_eq!(own_page(Some(&next.to_owned())), led_to, "{next:?}");
        }
        assert_eq!(own_page(None), "/dashboard");
    }

    #[test]
    fn a_token_is_found_among_other_cookies() {
        let cases = [
            ("batchwright_session=abc", Some("abc")),
            ("theme=dark; batchwright_session=abc;x=y", Some("abc")),
            ("x_batchwright_session=abc", None),
            ("", None),
        ];
        for (cookies, expected) in cases {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(cookies))]);
            assert_eq!(token(&headers), expected.map(SecretHash::of), "{cookies}");
        }
    }

    #[test]
    fn a_cookie_that_came_by_tls_goes_back_by_tls_alone() {
        let plain = cookie("abc", SESSION, false);
        assert_eq!(plain, "batchwright_session=abc; Max-Age=43200; Path=/dashboard; HttpOnly; SameSite=Strict");
        assert_eq!(cookie("abc", SESSION, true), format!("{plain}; Secure"));
    }
}
