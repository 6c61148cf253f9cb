//! What stands around the routes: it finds out whom a call acts for, before any of its body is read.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::AuditedCall;
use super::browser::{check_name, check_page};
use crate::api::{ApiError, App, AppState, Caller};
use crate::domain::api_key::KeyScope;

/// Paths that anybody may ask for. `/readyz` itself decides whom it tells more than its status.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];

/// Puts the [`Caller`] into the request, or answers 401 or 403. Of a call that changes something, the log gets a line.
pub(in crate::api) async fn guard(State(app): AppState, mut request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let audited = AuditedCall::of(&request);
    let needed = needed_scope(request.method(), request.uri().path());
    let caller = app.access.caller(request.headers()).await;
    let caller = caller.and_then(|caller| check_anonymous(&app, &request, &caller).map(|()| caller));
    let response = match &caller {
        Ok(caller) if caller.may(needed) => {
            request.extensions_mut().insert(Caller::clone(caller));
            counted(&app, caller, request, next).await
        }
        Ok(_) => ApiError::missing_scope(needed).into_response(),
        Err(error) => error.clone().into_response(),
    };
    if let Some(audited) = audited {
        audited.log(caller.as_ref().ok(), &response);
    }
    response
}

/// Refuses a call without a key that a page of another site may have had a browser make.
fn check_anonymous(app: &App, request: &Request, caller: &Caller) -> Result<(), ApiError> {
    if caller.key.is_some() {
        return Ok(());
    }
    let (uri, headers) = (request.uri(), request.headers());
    if !app.access.allows_anonymous() {
        check_name(uri, headers)?;
    }
    check_page(request.method(), uri, headers, &app.cors_allowed_origins)
}

/// Answers a call, if its project may make one more now.
async fn counted(app: &App, caller: &Caller, mut request: Request, next: Next) -> Response {
    match app.request_rates.count(&caller.owner) {
        Ok(None) => next.run(request).await,
        Ok(Some(call)) => {
            request.extensions_mut().insert(call);
            let mut response = next.run(request).await;
            call.tell(response.headers_mut());
            response
        }
        Err(refusal) => *refusal,
    }
}

fn needed_scope(method: &Method, path: &str) -> KeyScope {
    match *method {
        // They tell of the rows and the models of every project.
        _ if path == "/metrics" => KeyScope::Admin,
        Method::GET | Method::HEAD | Method::OPTIONS => KeyScope::Read,
        _ => KeyScope::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_change_something_needs_a_key_that_may() {
        let cases = [
            (Method::GET, "/v1/files", KeyScope::Read),
            (Method::HEAD, "/v1/files", KeyScope::Read),
            (Method::POST, "/v1/files", KeyScope::Write),
            (Method::DELETE, "/v1/files/file-1", KeyScope::Write),
            (Method::PUT, "/none", KeyScope::Write),
            (Method::GET, "/metrics", KeyScope::Admin),
        ];
        for (method, path, needed) in cases {
            assert_eq!(needed_scope(&method, path), needed, "{method} {path}");
        }
    }
}
