//! Whether the program lives, whether it can work, and its metrics.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;

use super::AppState;
use crate::telemetry::chain;

/// Whoever asks whether the program can work wants to know soon, also when something hangs.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "The process lives")))]
pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// Whether database and blob store answer and the daemon's loops turn.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "It can work"),
    (status = 503, description = "It cannot; `problems` says why")
))]
pub(super) async fn readyz(State(app): AppState) -> Response {
    let mut problems = Vec::new();
    if app.stopping.is_cancelled() {
        problems.push("the service is stopping".to_owned());
    }
    let (database, blobs) = tokio::join!(timeout(PATIENCE, app.storage.check()), timeout(PATIENCE, app.blobs.check()));
    match database {
        Ok(answer) => problems.extend(answer.err().map(|error| chain(&error))),
        Err(_) => problems.push("the database does not answer".to_owned()),
    }
    match blobs {
        Ok(answer) => problems.extend(answer.err().map(|error| chain(&error))),
        Err(_) => problems.push("the blob store does not answer".to_owned()),
    }
    let stuck = app.liveness.as_ref().map(crate::telemetry::Liveness::stuck).unwrap_or_default();
    problems.extend(stuck.iter().map(|name| format!("the {name} loop does not turn")));
    if problems.is_empty() {
        Json(json!({ "status": "ready" })).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "problems": problems }))).into_response()
    }
}

/// The metrics, in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Metrics", content_type = "text/plain")))]
pub(super) async fn metrics(State(app): AppState) -> String {
    app.metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default()
}
