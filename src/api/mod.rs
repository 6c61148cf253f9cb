//! HTTP in, HTTP out: OpenAI's Files and Batch API.
//!
//! One file for each operation, named after its handler. A handler reads a request and writes an answer; it decides
//! nothing else. `error` has the one envelope for all errors.

mod batches;
mod caller;
mod cors;
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

pub use caller::Caller;
pub use error::{ApiError, ErrorObject};
pub use router::{health_router, router};
pub use server::{ServerLimits, ShutdownTokens, serve};

use crate::domain::batch::Window;
use crate::domain::report::{BatchLimits, IntakeLimits};
use crate::domain::time::Clock;
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::telemetry::Liveness;
use crate::upstream::Registry;
use crate::wakeup::Wakeup;

/// What the handlers work with.
pub struct App {
    /// Metadata.
    pub storage: Arc<dyn Storage>,
    /// Bytes.
    pub blobs: Blobs,
    /// The source of the time.
    pub clock: Clock,
    /// Tells the daemon of new and of cancelled batches.
    pub wakeup: Wakeup,
    /// The limits of an upload.
    pub intake: IntakeLimits,
    /// The limits of a batch.
    pub batch_limits: BatchLimits,
    /// One permit for each upload that may be taken in at once.
    pub uploads: Semaphore,
    /// The completion windows that clients may choose.
    pub windows: Vec<Window>,
    /// The inference servers, whose models `GET /v1/models` lists.
    pub registry: Registry,
    /// The loops of the daemon in this process, if there is one.
    pub liveness: Option<Liveness>,
    /// The origins whose web pages may call the API; `*` is every origin.
    pub cors_allowed_origins: Vec<String>,
    /// Cancelled when the service is told to stop. Uploads are then refused; everything else is still answered.
    pub stopping: CancellationToken,
    /// Renders the metrics, if they are collected.
    pub metrics: Option<PrometheusHandle>,
}

/// The handlers' shared state.
pub type AppState = axum::extract::State<Arc<App>>;
