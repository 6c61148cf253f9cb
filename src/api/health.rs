//! Liveness, readiness and metrics.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;

use super::AppState;
use crate::telemetry::{self, chain};

/// How long a check may take: `/readyz` must answer soon, also when something hangs.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses(
    (status = 200, description = "The process lives")
))]
pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// Whether the database and the blob store answer, and the daemon's loops run without failing again and again.
/// `warnings` lists items that need attention but do not stop anything else, and upstreams that take no calls. Where
/// calls need a key, only one with the scope `admin` is told more than the status: warnings name models of any project.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "It can work; `warnings`, if present, lists items that fail"),
    (status = 503, description = "It cannot; `problems` says why")
))]
pub(super) async fn readyz(State(app): AppState, headers: HeaderMap) -> Response {
    let mut problems = Vec::new();
    if app.stopping.is_cancelled() {
        problems.push("the service is stopping".to_owned());
    }
    let (database, blobs, is_operator) = tokio::join!(
        timeout(PATIENCE, app.storage.check()),
        timeout(PATIENCE, app.blobs.check()),
        app.access.is_operator(&headers, PATIENCE)
    );
    match database {
        Ok(answer) => problems.extend(answer.err().map(|error| chain(&error))),
        Err(_) => problems.push("the database does not answer".to_owned()),
    }
    match blobs {
        Ok(answer) => problems.extend(answer.err().map(|error| chain(&error))),
        Err(_) => problems.push("the blob store does not answer".to_owned()),
    }
    let mut warnings = app.registry.warnings();
    if let Some(liveness) = &app.liveness {
        problems.extend(liveness.stuck().iter().map(|name| format!("the {name} loop does not turn")));
        let failing = |(name, since): &(_, Duration)| {
            format!("the {name} loop has failed for {} s, turn after turn: the log says why", since.as_secs())
        };
        problems.extend(liveness.failing().iter().map(failing));
        let waiting = |(name, items): &(_, usize)| {
            format!(
                "the {name} loop could not deal with {items} of its items, and tries them again: the log names them"
            )
        };
        warnings.extend(liveness.in_backoff().iter().map(waiting));
    }
    let mut answer = json!({ "status": if problems.is_empty() { "ready" } else { "not ready" } });
    for (member, texts) in [("problems", &problems), ("warnings", &warnings)] {
        if !texts.is_empty() && is_operator {
            answer[member] = json!(texts);
        }
    }
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

/// The metrics, in the text format of Prometheus. Where calls need a key, they need one with the scope `admin`.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "Metrics", content_type = "text/plain")
))]
pub(super) async fn metrics(State(app): AppState) -> String {
    telemetry::metrics::permits_held(app.registry.permits_held());
    for server in &*app.registry.servers() {
        telemetry::metrics::rows_at_upstream(server.name(), server.rows());
    }
    app.metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default()
}
