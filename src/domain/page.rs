//! Pages of a list, cut by the id of the last item seen (contract §1.8).

/// Which way a list runs, by creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// A request for a page of a list.
#[derive(Debug, Clone)]
pub struct PageRequest<Id> {
    /// Only items after this one; an id that never existed gives an empty page.
    pub after: Option<Id>,
    /// The most items to give; 0 gives an empty page.
    pub limit: u32,
    /// The way the list runs.
    pub order: Order,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The items, in the order asked for.
    pub data: Vec<T>,
    /// Whether the list goes on after the last of them. Never true on an empty page.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// A page without items.
    #[must_use]
    pub fn empty() -> Self {
        Self { data: Vec::new(), has_more: false }
    }

    /// Cuts a page of `limit` items from up to `limit + 1` that were read.
    #[must_use]
    pub fn cut(mut read: Vec<T>, limit: u32) -> Self {
        let has_more = limit > 0 && read.len() > limit as usize;
        read.truncate(limit as usize);
        Self { data: read, has_more }
    }
}
