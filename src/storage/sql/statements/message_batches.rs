//! Batches as Anthropic's Message Batches has them.

use uuid::Uuid;

use super::Conn;
use super::batches::page_by;
use super::files;
use super::query::query_as;
use crate::domain::batch::Batch;
use crate::domain::ids::{BatchId, FileId};
use crate::domain::owner::Owner;
use crate::domain::page::Order;
use crate::domain::time::Timestamp;
use crate::storage::Result;
use crate::storage::sql::End;
use crate::storage::sql::batches::{BatchRow, batch_columns};
use crate::storage::sql::readable::Placed;

const BATCH: &str =
    concat!("SELECT ", batch_columns!(), " FROM batches WHERE owner = $1 AND id = $2 AND api = 'messages'");

const OLDER: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches WHERE owner = $1 AND id < $2 AND api = 'messages' ORDER BY id DESC LIMIT $3"
);
const NEWER: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches WHERE owner = $1 AND id > $2 AND api = 'messages' ORDER BY id LIMIT $3"
);

const DELETE: &str = "
    UPDATE batches
    SET api = NULL
    WHERE owner = $1 AND id = $2 AND api = 'messages'
      AND status IN ('completed', 'failed', 'expired', 'cancelled')
    RETURNING input_file_id, output_file_id, error_file_id";

pub async fn batch(conn: &mut Conn, owner: &Owner, id: BatchId) -> Result<Option<BatchRow>> {
    Ok(query_as(BATCH).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?)
}

pub async fn page(
    conn: &mut Conn,
    owner: &Owner,
    order: Order,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Placed<Uuid, Batch>>> {
    let statement = match order {
        Order::Descending => OLDER,
        Order::Ascending => NEWER,
    };
    page_by(conn, statement, owner, after, limit).await
}

pub async fn delete(tx: &mut Conn, owner: &Owner, id: BatchId, now: Timestamp) -> Result<End<bool>> {
    let deleted: Option<(String, Uuid, Uuid)> =
        query_as(DELETE).bind(owner.as_str()).bind(id.0).fetch_optional(&mut *tx).await?;
    let Some((input, output, errors)) = deleted else { return Ok(End::Commit(false)) };
    for file in [FileId::parse(&input), Some(FileId(output)), Some(FileId(errors))].into_iter().flatten() {
        files::delete(tx, owner, file, now).await?;
    }
    Ok(End::Commit(true))
}
