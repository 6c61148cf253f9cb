//! Answers about many rows, of which one that cannot be read spoils only itself.
//!
//! A row is read by itself, after the statement has returned all of them: what `fetch_all` reads into a type fails as a
//! whole.

use sqlx::{FromRow, Row};

use super::{corrupt, to_i64};
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::storage::{Result, StorageError, WorkPage};
use crate::telemetry::{chain, metrics};

/// One row of a page: its place in the order of the page, if at least that can be read, and the rest of it.
pub(super) struct Placed<Place, T> {
    pub(super) place: Option<Place>,
    pub(super) read: Result<T>,
}

/// Reads one row into `Raw`, and that into what it means.
pub(super) fn read_row<R, Raw, T>(table: &'static str, id: Option<String>, row: &R) -> Result<T>
where
    R: Row,
    Raw: for<'r> FromRow<'r, R>,
    T: TryFrom<Raw, Error = StorageError>,
{
    let unreadable = |error| {
        tracing::debug!(table, error = chain(&error), "a column has a value of another type");
        corrupt(table, "*", id.unwrap_or_else(|| "a row without a readable id".to_owned()))
    };
    Raw::from_row(row).map_err(unreadable)?.try_into()
}

/// What can be read of many. The rest is logged, counted and left out.
pub(super) fn readable<T>(read: impl IntoIterator<Item = Result<T>>) -> Vec<T> {
    read.into_iter().filter_map(|read| read.inspect_err(left_out).ok()).collect()
}

/// The rows of a list that can be read, gathered until there is one more than its page has: whether there is a next
/// page is decided by rows that can be read. As many as have to be left out are asked for again.
pub(super) struct Gathered<T> {
    found: Vec<T>,
    wanted: usize,
}

impl<T> Gathered<T> {
    /// For a page of `limit`.
    pub(super) fn with_limit(limit: u32) -> Self {
        Self { found: Vec::new(), wanted: limit as usize + 1 }
    }

    /// How many rows to ask for.
    pub(super) fn missing(&self) -> i64 {
        to_i64((self.wanted - self.found.len()) as u64)
    }

    /// Takes what was found. Returns the place to go on behind, if anything is missing and there may be more.
    pub(super) fn take<Place>(&mut self, rows: Vec<Placed<Place, T>>) -> Option<Place> {
        let is_last = rows.len() < self.wanted - self.found.len();
        let mut last = None;
        for row in rows {
            last = row.place.or(last);
            self.found.extend(readable([row.read]));
        }
        last.filter(|_| !is_last && self.found.len() < self.wanted)
    }

    /// What was found: one more than the page has, if the list goes on.
    pub(super) fn into_found(self) -> Vec<T> {
        self.found
    }

    pub(super) fn page(self) -> Page<T> {
        let limit = u32::try_from(self.wanted - 1).expect("it was made of one");
        Page::cut(self.found, limit)
    }
}

impl<Id: Copy, T> WorkPage<Id, T> {
    /// A page of up to `limit` rows. Rows whose id cannot be read are left out: nothing can be done about them.
    pub(super) fn of(rows: Vec<Placed<(Timestamp, Id), T>>, limit: u32) -> Self {
        let is_last = rows.len() < limit as usize;
        let next = rows.iter().rev().find_map(|row| row.place).filter(|_| !is_last);
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            match row.place {
                Some((_, id)) => items.push((id, row.read)),
                None => drop(readable([row.read])),
            }
        }
        Self { items, next }
    }
}

fn left_out(error: &StorageError) {
    if let StorageError::Corrupt { table, .. } = error {
        metrics::row_unreadable(table);
    }
    tracing::error!(error = chain(error), "a row of the database is left out of an answer");
}
