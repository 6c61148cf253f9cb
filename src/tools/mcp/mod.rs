//! A client of one MCP server over streamable HTTP.
//!
//! `rmcp` implements the protocol. This module sets its limits: which hosts, how long, and how many bytes.

mod failure;
mod http;
mod tool;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{self, HeaderMap, HeaderName};
use rmcp::model::{CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation, RequestMetaObject};
use rmcp::service::{ClientCacheConfig, Peer, RoleClient, RunningService, ServiceExt as _};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::FixedInterval;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use url::Url;

use self::http::BoundedHttp;
pub use self::tool::McpTool;
use super::ToolError;
use crate::net::{AllowedHosts, ClientSettings, IDEMPOTENCY_KEY, Reach};

/// How long a list of tools is cached.
const TOOLS_KEPT: Duration = Duration::from_mins(5);
/// How many calls may wait for the headers of their answers at once. Other limits bound the calls of rows.
const MAX_CALLS: usize = 1024;
/// KiB of answers of all servers together. Each call reserves the longest answer: 256 calls at once by default.
const ROOM_KIB: u32 = 1 << 20;
static ROOM: Semaphore = Semaphore::const_new(ROOM_KIB as usize);
/// How often an answer that broke off is resumed, a second apart. Without a limit, `rmcp` would never stop.
const MAX_RESUMES: usize = 5;
/// Headers of the protocol itself, and headers that would change the target or the end of a request.
const RESERVED: [HeaderName; 12] = [
    header::ACCEPT,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-session-id"),
];

/// The settings of an MCP server. It has no `Debug`: there may be keys in it.
#[derive(Clone)]
pub struct McpServer {
    /// Its name in logs.
    pub label: String,
    /// Its URL, such as `https://mcp.example.com/mcp`.
    pub url: Url,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// TLS with other certificates than those of the system.
    pub tls: Option<rustls::ClientConfig>,
    /// The tools that may be listed and called; all of them if `None`.
    pub allowed_tools: Option<Vec<String>>,
    /// How long a call, or listing the tools, may take, including connecting.
    pub timeout: Duration,
    /// The longest text of a result, in bytes.
    pub max_output_bytes: usize,
    /// The hosts that rows may name, for a server that a row names. `None` for the operator's own servers, which may be
    /// anywhere.
    pub row_hosts: Option<Arc<AllowedHosts>>,
}

/// A client of one MCP server. It connects at its first use, and again after the session is lost. All calls share one
/// session, which ends in the background when the client is dropped.
pub struct McpClient {
    server: McpServer,
    http: BoundedHttp,
    session: Mutex<Option<RunningService<RoleClient, ClientConfig>>>,
    tools: Mutex<Option<(Instant, Arc<[McpTool]>)>>,
}

impl McpClient {
    /// A client of this server. No connection is made yet.
    pub fn new(server: McpServer) -> Result<Self, ToolError> {
        if let Some(hosts) = &server.row_hosts {
            hosts.check(&server.url)?;
        }
        if let Some(name) = RESERVED.iter().find(|name| server.headers.contains_key(*name)) {
            return Err(ToolError::Refused(format!("the header `{name}` cannot be set")));
        }
        let client = ClientSettings {
            headers: server.headers.clone(),
            tls: server.tls.clone(),
            read_timeout: Some(server.timeout * 2),
            reach: if server.row_hosts.is_some() { Reach::PublicOnly } else { Reach::Everywhere },
            ..ClientSettings::default()
        };
        let client = client.build().map_err(|error| ToolError::of_http(&error))?;
        Ok(Self { http: BoundedHttp::new(client), server, session: Mutex::default(), tools: Mutex::default() })
    }

    /// The tools that may be called. The list is cached for five minutes.
    pub async fn tools(&self) -> Result<Arc<[McpTool]>, ToolError> {
        if let Ok(kept) = self.tools.try_lock()
            && let Some(tools) = fresh(kept.as_ref())
        {
            return Ok(tools);
        }
        let _room = self.room().await;
        self.in_time(async {
            let mut kept = self.tools.lock().await;
            if let Some(tools) = fresh(kept.as_ref()) {
                return Ok(tools);
            }
            let tools = tool::list(&self.session().await?, |name| self.is_allowed(name)).await?;
            tracing::debug!(mcp_server = self.server.label, tools = tools.len(), "an MCP server has listed its tools");
            Ok(kept.insert((Instant::now(), tools.into())).1.clone())
        })
        .await
    }

    /// Calls a tool and returns the text of its result. `key` is sent as the member `idempotency-key` of `_meta`, so
    /// that the server can recognise a repeated call.
    pub async fn call(&self, name: &str, arguments: Map<String, Value>, key: &str) -> Result<String, ToolError> {
        if !self.is_allowed(name) {
            return Err(ToolError::Refused(format!("`{name}` is not among the tools that are allowed")));
        }
        let mut meta = RequestMetaObject::new();
        meta.insert(IDEMPOTENCY_KEY.as_str().to_owned(), key.into());
        let mut call = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        call.meta = Some(meta);

        let _room = self.room().await;
        let session = self.session();
        let answer = self.in_time(async { session.await?.call_tool(call).await.map_err(failure::of_call) });
        tool::text_of(answer.await?, self.server.max_output_bytes)
    }

    /// Reserves room for the longest possible answer. Waiting for room does not count as the server's time, because the
    /// server is not at fault.
    async fn room(&self) -> SemaphorePermit<'static> {
        let kib = http::max_message_bytes(self.server.max_output_bytes) >> 10;
        let kib = u32::try_from(kib).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        ROOM.acquire_many(kib).await.expect("the semaphore is never closed")
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.server.allowed_tools.as_ref().is_none_or(|allowed| allowed.iter().any(|tool| tool == name))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ToolError>>) -> Result<T, ToolError> {
        let limit = self.server.timeout;
        tokio::time::timeout(limit, work).await.map_err(|_| ToolError::TimedOut(limit))?
    }

    /// The session. It is started if there is none; concurrent callers wait for the same one.
    async fn session(&self) -> Result<Peer<RoleClient>, ToolError> {
        let mut session = self.session.lock().await;
        if let Some(session) = session.as_ref().filter(|session| !session.is_transport_closed()) {
            return Ok(session.peer().clone());
        }
        let limit = http::max_message_bytes(self.server.max_output_bytes);
        let mut resuming = FixedInterval::default();
        resuming.max_times = Some(MAX_RESUMES);
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.server.url.as_str())
            .max_concurrent_requests(MAX_CALLS)
            .max_sse_event_size(limit)
            .max_json_response_size(limit);
        config.retry_config = Arc::new(resuming);
        let me = Implementation::new("batchwright", env!("CARGO_PKG_VERSION"));
        let transport = StreamableHttpClientTransport::with_client(self.http.clone(), config);
        // Boxed, because it is far larger than a call and rarely needed.
        let begun = Box::pin(ClientConfig::new(ClientCapabilities::default(), me).serve(transport));
        let begun = begun.await.map_err(failure::of_beginning)?;
        // The cache of `rmcp` would keep answers for as long as the server says.
        begun.set_response_cache_config(ClientCacheConfig::disabled()).await;
        tracing::debug!(mcp_server = self.server.label, "a session with an MCP server has begun");
        Ok(session.insert(begun).peer().clone())
    }
}

/// The cached list of tools, if it is not too old.
fn fresh(kept: Option<&(Instant, Arc<[McpTool]>)>) -> Option<Arc<[McpTool]>> {
    kept.filter(|(since, _)| since.elapsed() < TOOLS_KEPT).map(|(_, tools)| tools.clone())
}
