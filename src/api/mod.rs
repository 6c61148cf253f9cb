//! HTTP in, HTTP out: OpenAI's Files and Batch API.
//!
//! One file for each operation, named as its handler. Nothing is decided here but how a request is read and how an
//! answer is written; `error` has the one envelope for everything that goes wrong.

mod batches;
mod error;
mod expires_after;
mod extract;
mod files;
mod health;
mod integer;
mod models;
pub mod openapi;
mod page;
mod responses;
mod router;
mod server;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use error::{ApiError, ErrorObject};
pub use router::{health_router, router};
pub use server::{ServerLimits, ShutdownTokens, serve};

use crate::domain::batch::Window;
use crate::domain::report::IntakeLimits;
use crate::domain::time::Clock;
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::telemetry::Liveness;
use crate::upstream::ReqwestHttpClient;
use crate::wakeup::Wakeup;

/// What the handlers work with.
pub struct App {
    /// Metadata.
    pub storage: Arc<dyn Storage>,
    /// Bytes.
    pub blobs: Blobs,
    /// Where the time comes from.
    pub clock: Clock,
    /// How the daemon learns of new and of called-off batches.
    pub wakeup: Wakeup,
    /// What an upload must keep to.
    pub intake: IntakeLimits,
    /// One permit for each upload that may be taken in at once.
    pub uploads: Semaphore,
    /// The completion windows clients may ask for.
    pub windows: Vec<Window>,
    /// Where the list of models comes from; without one `GET /v1/models` gives an empty list.
    pub upstream: Option<ReqwestHttpClient>,
    /// The loops of the daemon in this process, if there is one.
    pub liveness: Option<Liveness>,
    /// Cancelled when the service is told to stop: it takes no more uploads, and still answers everything else.
    pub stopping: CancellationToken,
    /// What renders the metrics, if they are collected.
    pub metrics: Option<PrometheusHandle>,
}

/// The handlers' shared state.
pub type AppState = axum::extract::State<Arc<App>>;
