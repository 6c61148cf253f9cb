//! HTTP in, HTTP out: OpenAI's Files and Batch API, and Anthropic's Message Batches.
//!
//! One file for each operation, named after its handler. A handler reads a request and writes an answer; it decides
//! nothing else. `error` has the one envelope for all errors.

mod access;
mod anthropic;
mod batches;
mod caller;
mod content_coding;
mod cors;
mod error;
mod expires_after;
mod extract;
mod files;
mod form;
mod health;
mod integer;
mod json_body;
mod limits;
mod models;
pub mod openapi;
mod page;
mod request_key;
mod request_rate;
mod responses;
mod router;
mod safe_headers;
mod server;
mod sse;
mod storage_room;
mod upload_slots;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use access::Access;
pub(crate) use access::{AuditedCall, comes_from_this_site, host, names_this_machine};
pub use caller::Caller;
pub use error::{ApiError, ErrorObject};
pub(crate) use files::{create_file, file_content};
pub use request_rate::RequestRates;
pub(crate) use router::with_request_ids;
pub use router::{health_router, metrics_router, router};
pub(crate) use safe_headers::always_tls;
pub use server::{ServerLimits, ServerTls, ShutdownTokens, TlsError, serve};
pub(crate) use storage_room::StorageRoom;
pub use upload_slots::UploadSlots;

use crate::actions::{BatchObserver, BatchOfRows, BatchRetrier};
use crate::domain::batch::Window;
use crate::domain::cost::Prices;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::report::{BatchLimits, IntakeLimits};
use crate::domain::time::Clock;
use crate::net::Reach;
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::storage::result_files::ResultSource;
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
    /// The uploads that may be taken in at once.
    pub uploads: UploadSlots,
    /// What tokens cost, if the settings say so.
    pub prices: Option<Prices>,
    /// One permit for each request that may wait at once for results or events.
    pub waits: Arc<Semaphore>,
    /// One permit for each answer that may have the results in the order of the input at once.
    pub orders: Arc<Semaphore>,
    /// How long the steps and attempts of rows are kept after their batch has ended.
    pub steps_retention: Duration,
    /// The completion windows that clients may choose.
    pub windows: Vec<Window>,
    /// Which addresses the webhook of a batch may have.
    pub webhook_reach: Reach,
    /// The inference servers, whose models `GET /v1/models` lists.
    pub registry: Registry,
    /// The loops of the daemon in this process, if there is one.
    pub liveness: Option<Liveness>,
    /// Whose calls are answered.
    pub access: Arc<Access>,
    /// What projects may use.
    pub project_limits: Arc<ProjectLimitTable>,
    /// The calls of each project.
    pub request_rates: RequestRates,
    /// The origins whose web pages may call the API; `*` is every origin.
    pub cors_allowed_origins: Vec<String>,
    /// Cancelled when the service is told to stop. Uploads are then refused; everything else is still answered.
    pub stopping: CancellationToken,
    /// Whether clients talk to the server by TLS.
    pub is_tls: bool,
    /// Whether `/metrics` has a listener of its own, and is not among the routes of the API.
    pub has_metrics_apart: bool,
    /// Renders the metrics, if they are collected.
    pub metrics: Option<PrometheusHandle>,
}

impl App {
    /// What looks at batches of an owner.
    pub(crate) fn observer<'a>(&'a self, owner: &'a Owner) -> BatchObserver<'a> {
        let Self { storage, clock, project_limits: projects, .. } = self;
        BatchObserver { storage: &**storage, clock, projects, owner }
    }

    /// What creates batches of an owner together with their rows.
    pub(crate) fn batch_of_rows<'a>(&'a self, owner: &'a Owner) -> BatchOfRows<'a> {
        let Self { storage, blobs, wakeup, batch_limits: limits, project_limits: projects, .. } = self;
        BatchOfRows { storage: &**storage, blobs, wakeup, limits, projects, owner }
    }

    /// What creates batches that run rows of a batch of an owner again, with input files within these limits.
    pub(crate) fn retrier<'a>(&'a self, owner: &Owner, batch: BatchId, intake: &'a IntakeLimits) -> BatchRetrier<'a> {
        let Self { storage, blobs, clock, wakeup, .. } = self;
        let (storage, blobs, clock) = (storage.clone(), blobs.clone(), clock.clone());
        BatchRetrier { source: ResultSource { storage, blobs, clock, owner: owner.clone(), batch }, intake, wakeup }
    }
}

/// The handlers' shared state.
pub type AppState = axum::extract::State<Arc<App>>;
