//! `/dashboard/submit`: a file becomes a batch. The browser sends the file to the handler of `POST /v1/files`; what
//! intake has found in it is shown before a batch is made of it.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::page::{PageError, page};
use super::view::{Layout, grouped, plural, size};
use crate::actions::{CreateBatchError, create_batch};
use crate::api::{App, AppState, Caller};
use crate::domain::api_key::KeyScope;
use crate::domain::batch::{BatchError, NewBatch, Window};
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::file::File;
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::report::Report;
use crate::domain::row::shown;

/// Errors that a page shows; the rest is told by its number.
const SHOWN_ERRORS: usize = 100;

#[derive(Template)]
#[template(path = "submit.html")]
struct ChoosePage {
    layout: Layout,
}

#[derive(Template)]
#[template(path = "check.html")]
struct CheckPage {
    layout: Layout,
    file: File,
    size: String,
    rows: u64,
    models: Vec<(String, String)>,
    endpoints: Vec<(&'static str, bool)>,
    windows: Vec<String>,
    errors: Vec<BatchError>,
    more_errors: usize,
}

pub(super) async fn choose(caller: Caller, headers: HeaderMap) -> Result<Response, PageError> {
    page(&ChoosePage { layout: layout(&caller)? }, &headers)
}

/// A visitor who can create no batch gets no page to do so.
fn layout(caller: &Caller) -> Result<Layout, PageError> {
    if caller.may(KeyScope::Write) {
        return Ok(Layout::of("submit", "Submit a batch").for_caller(caller));
    }
    Err(PageError::new(StatusCode::FORBIDDEN, "Your key does not have the scope 'write', and so submits no batches."))
}

/// Shows what intake has found, for the endpoint that is chosen or that the rows name.
pub(super) async fn check(
    State(app): AppState,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(chosen): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let (file, report) = uploaded(&app, &caller.owner, &file_id).await?;
    let named = BatchEndpoint::of_urls(report.urls.iter().map(|rows| rows.url.as_str()));
    let choices = choices(&app);
    let chosen = chosen.get("endpoint").and_then(|endpoint| chosen_endpoint(&choices, endpoint));
    let endpoint = chosen.or(named).or(choices.first().copied()).unwrap_or(BatchEndpoint::Any);
    let mut errors = report.lanes(endpoint, file.bytes, &app.batch_limits).err().unwrap_or_default();
    let more_errors = errors.len().saturating_sub(SHOWN_ERRORS);
    errors.truncate(SHOWN_ERRORS);
    let model = |name: &str| if name.is_empty() { "(the server's own)".to_owned() } else { name.to_owned() };
    let check = CheckPage {
        layout: layout(&caller)?,
        size: size(file.bytes),
        rows: report.rows,
        models: report.models.iter().map(|of| (model(&of.model), grouped(u64::from(of.rows)))).collect(),
        endpoints: choices.iter().map(|choice| (choice.as_str(), *choice == endpoint)).collect(),
        windows: app.windows.iter().map(|window| window.text.clone()).collect(),
        errors,
        more_errors,
        file,
    };
    page(&check, &headers)
}

/// Creates a batch of the file.
pub(super) async fn create(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Path(file_id): Path<String>,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Response, PageError> {
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let (file, _) = uploaded(&app, &owner, &file_id).await?;
    let endpoint = chosen_endpoint(&choices(&app), field("endpoint"));
    let window: Option<&Window> = app.windows.iter().find(|window| window.text == field("completion_window"));
    let new = NewBatch {
        input_file_id: file.id.to_string(),
        endpoint: endpoint.ok_or_else(|| PageError::invalid("Choose an endpoint."))?,
        window: window.ok_or_else(|| PageError::invalid("Choose a completion window."))?.clone(),
        metadata: None,
        output_expires_after: None,
        // A form that is sent twice creates one batch.
        idempotency_key: Some(field("key").to_owned()).filter(|key| (1..=64).contains(&key.len())),
        canary: None,
        retry: None,
        webhook: None,
        is_message_batch: false,
    };
    let batch = create_batch(&*app.storage, &app.wakeup, &owner, &new, app.clock.now()).await?;
    Ok(Redirect::to(&format!("/dashboard/batches/{}", batch.id)).into_response())
}

/// The endpoints that a batch may be for.
fn choices(app: &App) -> Vec<BatchEndpoint> {
    app.intake.endpoints.all().map(BatchEndpoint::One).chain([BatchEndpoint::Any]).collect()
}

fn chosen_endpoint(choices: &[BatchEndpoint], text: &str) -> Option<BatchEndpoint> {
    choices.iter().copied().find(|choice| choice.as_str() == text)
}

async fn uploaded(app: &Arc<App>, owner: &Owner, id: &str) -> Result<(File, Report), PageError> {
    let no_file = || PageError::not_found(format!("There is no batch input file '{}'.", shown(id)));
    let id = FileId::parse(id).ok_or_else(no_file)?;
    let file = app.storage.file(owner, id, app.clock.now()).await?.ok_or_else(no_file)?;
    let report = app.storage.file_report(owner, id).await?.ok_or_else(no_file)?;
    Ok((file, report))
}

impl From<CreateBatchError> for PageError {
    fn from(error: CreateBatchError) -> Self {
        match error {
            CreateBatchError::Storage(error) => error.into(),
            refused => Self::new(StatusCode::BAD_REQUEST, refused.to_string()),
        }
    }
}
