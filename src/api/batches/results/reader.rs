//! Looking for result lines again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::no_such_place;
use crate::api::batches::not_found;
use crate::api::{ApiError, App};
use crate::domain::batch::{Batch, BatchStatus, Counts};
use crate::domain::ids::{BatchId, FileId};
use crate::domain::owner::Owner;
use crate::domain::result_cursor::{ResultCursor, ResultKind};
use crate::storage::result_files::{ResultFile, ResultFiles, ResultPage, ResultPageError, ResultSource};

/// The shortest pause between two looks: much happens in this process that is of no interest to one reader.
const PAUSE: Duration = Duration::from_millis(200);
/// How much longer it is without news: other processes need not say that they have recorded lines.
const PAUSE_WITHOUT_NEWS: Duration = Duration::from_millis(300);

/// A reader of the result lines of one batch.
pub(super) struct ResultReader {
    pub(super) app: Arc<App>,
    pub(super) kind: ResultKind,
    source: ResultSource,
    /// How the batch stood when all its lines were read. A line that is recorded changes the counts or the status, so
    /// a reader that waits looks at nothing else.
    read_at: Option<(BatchStatus, Counts)>,
}

/// What a reader has found behind a cursor.
pub(super) struct FoundResults {
    pub(super) batch: Batch,
    /// The lines; none if there are none behind the cursor.
    pub(super) lines: Option<(ResultFiles, ResultPage)>,
    /// Whether the batch has ended, and no line comes behind these.
    pub(super) has_ended: bool,
}

impl ResultReader {
    pub(super) fn new(app: Arc<App>, owner: Owner, batch: BatchId, kind: ResultKind) -> Self {
        let (storage, blobs, clock) = (app.storage.clone(), app.blobs.clone(), app.clock.clone());
        Self { app, kind, source: ResultSource { storage, blobs, clock, owner, batch }, read_at: None }
    }

    /// A reader of the lines of another batch.
    pub(super) fn of(&self, batch: BatchId) -> Self {
        Self {
            app: self.app.clone(),
            kind: self.kind,
            source: ResultSource { batch, ..self.source.clone() },
            read_at: None,
        }
    }

    /// The batch as it stands.
    pub(super) async fn batch(&self) -> Result<Batch, ApiError> {
        let ResultSource { storage, owner, batch, .. } = &self.source;
        storage.batch(owner, *batch).await?.ok_or_else(|| not_found(&batch.to_string()))
    }

    /// The result files, which have the lines that `batch` counts, and maybe more.
    pub(super) async fn files(&self, batch: &Batch) -> Result<ResultFiles, ApiError> {
        let files = self.source.files().await?;
        let published = [
            (self.kind.has_output(), ResultFile::Output, batch.output_file()),
            (self.kind.has_errors(), ResultFile::Errors, batch.error_file()),
        ];
        for (_, file, id) in published.into_iter().filter(|(is_read, ..)| *is_read) {
            if let Some(id) = id.filter(|_| files.file(file).is_empty()) {
                return Err(gone(file, id));
            }
        }
        Ok(files)
    }

    /// Checks that lines behind a cursor can be read.
    pub(super) async fn check(&self, from: ResultCursor) -> Result<(), ApiError> {
        self.page(&self.batch().await?, from, Some(1)).await.map(drop)
    }

    async fn page(
        &self,
        batch: &Batch,
        from: ResultCursor,
        limit: Option<u64>,
    ) -> Result<(ResultFiles, ResultPage), ApiError> {
        let files = self.files(batch).await?;
        let page = files.page(from, self.kind, limit).await.map_err(|error| match error {
            ResultPageError::NoSuchPlace => no_such_place(from),
            ResultPageError::Read(error) => error.into(),
        })?;
        Ok((files, page))
    }

    /// The lines behind a cursor. If there are none, this waits for one, or for the end of the batch, until the time is
    /// over or the service stops.
    pub(super) async fn next(
        &mut self,
        from: ResultCursor,
        limit: Option<u64>,
        wait: Duration,
    ) -> Result<FoundResults, ApiError> {
        let until = Instant::now() + wait;
        let mut woken = self.app.wakeup.listen();
        loop {
            let found = self.look(from, limit).await?;
            let left = until.saturating_duration_since(Instant::now());
            if found.lines.is_some() || found.has_ended || left.is_zero() {
                return Ok(found);
            }
            // Not shorter while the service stops: the client may ask again at once.
            sleep(PAUSE.min(left)).await;
            let _ = timeout(PAUSE_WITHOUT_NEWS.min(left), woken.changed()).await;
            if self.app.stopping.is_cancelled() {
                return self.look(from, limit).await;
            }
        }
    }

    async fn look(&mut self, from: ResultCursor, limit: Option<u64>) -> Result<FoundResults, ApiError> {
        // First, because what is recorded later is then found by the next look.
        let batch = self.batch().await?;
        let stands = Some((batch.status, batch.counts));
        if self.read_at == stands {
            let has_ended = batch.status.is_terminal();
            return Ok(FoundResults { batch, lines: None, has_ended });
        }
        let (files, page) = self.page(&batch, from, limit).await?;
        self.read_at = stands.filter(|_| page.is_last);
        let has_ended = page.is_last && batch.status.is_terminal();
        Ok(FoundResults { batch, lines: (page.bytes() > 0).then_some((files, page)), has_ended })
    }
}

fn gone(file: ResultFile, id: FileId) -> ApiError {
    let name = match file {
        ResultFile::Output => "output",
        ResultFile::Errors => "error",
    };
    ApiError::not_found(format!("The {name} file of this batch, {id}, was deleted or has expired."))
}
