//! What a project may use. A project is an [`Owner`]: the one of a client's key, or `default`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::ids::BatchId;
use super::owner::Owner;
use super::text_enum::text_enum;

/// The share of a project that is given none.
const USUAL_SHARE: NonZeroU32 = NonZeroU32::MIN;

/// Bytes of a row that are counted as one token: about as many as a token of English text has.
const BYTES_PER_TOKEN: u64 = 4;

/// Batches in progress whose rows are counted against the limit of a project.
pub const COUNTED_BATCHES: u32 = 100_000;

text_enum! {
    /// What happens to a batch for which its project has no room.
    pub enum OverLimit {
        /// It fails.
        Fail = "fail",
        /// It waits until there is room.
        Wait = "wait",
    }
}

/// The limits of a project. Without a number there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectLimits {
    /// Calls of the API in a minute, which each API process counts for itself.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Rows without a result of batches in progress.
    pub queued_rows: Option<u64>,
    /// Estimated input tokens of those rows.
    pub queued_tokens: Option<u64>,
    /// What happens to a batch beyond one of these two.
    pub over_limit: Option<OverLimit>,
    /// Bytes of the files that are not deleted, and of the parts of uploads that are open.
    pub storage_bytes: Option<u64>,
    /// Uploads under way at once, which each API process counts for itself.
    pub concurrent_uploads: Option<NonZeroU32>,
    /// Rows that are under way, beside those of other projects that have rows of the same model: with 3, three times as
    /// many as a project with 1.
    pub share: Option<NonZeroU32>,
}

/// The limits of all projects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectLimitTable {
    /// Those of every project.
    pub every: ProjectLimits,
    /// What is different for some.
    pub projects: BTreeMap<Owner, ProjectLimits>,
}

/// Rows without a result, and the bytes of their lines in the input files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueuedInput {
    /// How many rows these are.
    pub rows: u64,
    /// The bytes of their lines.
    pub bytes: u64,
}

/// What a limit of queued input counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuedUnit {
    /// Rows: `queued_rows`.
    Rows,
    /// Estimated tokens: `queued_tokens`.
    Tokens,
}

/// A limit of queued input that leaves no room for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExceededLimit {
    /// What it counts.
    pub unit: QueuedUnit,
    /// The limit.
    pub limit: u64,
    /// What batches in progress use of it.
    pub used: u64,
    /// What the batch would use of it.
    pub needed: u64,
}

/// The batches of a project that wait until there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingQueue {
    /// The batch that is next.
    pub first: BatchId,
    /// Why it waits.
    pub exceeded: ExceededLimit,
}

impl ProjectLimits {
    /// The share as a number.
    #[must_use]
    pub fn share(&self) -> NonZeroU32 {
        self.share.unwrap_or(USUAL_SHARE)
    }

    /// What happens to a batch for which there is no room.
    #[must_use]
    pub fn over_limit(&self) -> OverLimit {
        self.over_limit.unwrap_or(OverLimit::Fail)
    }

    /// Whether rows or tokens in line are limited.
    #[must_use]
    pub fn limits_queue(&self) -> bool {
        self.queued_rows.is_some() || self.queued_tokens.is_some()
    }

    /// Whether batches wait until there is room.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.limits_queue() && self.over_limit() == OverLimit::Wait
    }

    /// The limit that leaves no room for more input, beside what is used. One that the input exceeds alone comes first.
    #[must_use]
    pub fn exceeded(&self, used: QueuedInput, new: QueuedInput) -> Option<ExceededLimit> {
        let rows = (QueuedUnit::Rows, self.queued_rows, used.rows, new.rows);
        let tokens = (QueuedUnit::Tokens, self.queued_tokens, used.tokens(), new.tokens());
        let exceeded = [rows, tokens].into_iter().filter_map(|(unit, limit, used, needed)| {
            let limit = limit.filter(|limit| used.saturating_add(needed) > *limit)?;
            Some(ExceededLimit { unit, limit, used, needed })
        });
        exceeded.min_by_key(|exceeded| !exceeded.is_for_good())
    }
}

impl ProjectLimitTable {
    /// The limits of a project.
    #[must_use]
    pub fn of(&self, project: &Owner) -> ProjectLimits {
        let Some(own) = self.projects.get(project) else { return self.every };
        let every = &self.every;
        ProjectLimits {
            requests_per_minute: own.requests_per_minute.or(every.requests_per_minute),
            queued_rows: own.queued_rows.or(every.queued_rows),
            queued_tokens: own.queued_tokens.or(every.queued_tokens),
            over_limit: own.over_limit.or(every.over_limit),
            storage_bytes: own.storage_bytes.or(every.storage_bytes),
            concurrent_uploads: own.concurrent_uploads.or(every.concurrent_uploads),
            share: own.share.or(every.share),
        }
    }
}

impl QueuedInput {
    /// About how many tokens the rows have.
    #[must_use]
    pub fn tokens(self) -> u64 {
        self.bytes.div_ceil(BYTES_PER_TOKEN)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { rows: self.rows.saturating_add(other.rows), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// What is left of an input file of `bytes` with `rows` when `owed` of its rows have no result: each row is taken
    /// to be as long as the others.
    #[must_use]
    pub fn of_file(bytes: u64, rows: u64, owed: u64) -> Self {
        let left = u128::from(bytes) * u128::from(owed) / u128::from(rows.max(1));
        Self { rows: owed, bytes: u64::try_from(left).unwrap_or(u64::MAX) }
    }
}

impl QueuedUnit {
    /// The unit in a sentence.
    fn singular(self) -> &'static str {
        match self {
            Self::Rows => "row",
            Self::Tokens => "token",
        }
    }

    /// The setting that has the limit.
    fn setting(self) -> &'static str {
        match self {
            Self::Rows => "queued_rows",
            Self::Tokens => "queued_tokens",
        }
    }
}

impl ExceededLimit {
    /// The code of the error (contract §8.3).
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.unit {
            QueuedUnit::Rows => "row_limit_exceeded",
            QueuedUnit::Tokens => "token_limit_exceeded",
        }
    }

    /// Whether the batch exceeds the limit alone, so that there is never room for it.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        self.needed > self.limit
    }

    /// The error for people, in OpenAI's words (contract §8.3).
    #[must_use]
    pub fn message(&self, project: &Owner) -> String {
        let Self { limit, used, needed, unit } = self;
        let unit = unit.singular();
        let about = if self.unit == QueuedUnit::Tokens { "about " } else { "" };
        let reached = format!("Enqueued {unit} limit reached in project {project}. Limit: {limit} enqueued {unit}s");
        if self.is_for_good() {
            return format!("{reached}; this batch alone has {about}{needed}. Please split it into smaller batches.");
        }
        format!(
            "{reached}, of which {used} are used; this batch has {about}{needed}. Please try again once some \
             in_progress batches have been completed."
        )
    }

    /// Why the batch that is next waits, and what can be done.
    #[must_use]
    pub fn why_it_waits(&self) -> String {
        let Self { limit, used, needed, unit } = self;
        let (units, setting) = (unit.singular(), unit.setting());
        format!(
            "Its project may have {limit} {units}s in line ({setting}), of which {used} are used; this batch has \
             {needed}. It starts once there is room. Cancel batches that are not needed, or ask the operator for a \
             higher limit."
        )
    }

    /// Why a batch behind the one that is next waits, and what can be done.
    #[must_use]
    pub fn why_later_ones_wait(&self) -> String {
        let Self { limit, used, unit, .. } = self;
        let (units, setting) = (unit.singular(), unit.setting());
        format!(
            "An earlier batch of its project waits: the project may have {limit} {units}s in line ({setting}), of \
             which {used} are used. Batches of a project start in the order of their creation. Cancel batches that \
             are not needed, or ask the operator for a higher limit."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn input(rows: u64, bytes: u64) -> QueuedInput {
        QueuedInput { rows, bytes }
    }

    #[test]
    fn a_project_has_its_own_limits_and_for_the_rest_those_of_every_project() {
        let team = Owner::parse("team").expect("an id");
        let table = ProjectLimitTable {
            every: ProjectLimits { queued_rows: Some(7), share: NonZeroU32::new(2), ..ProjectLimits::default() },
            projects: [(team.clone(), ProjectLimits { queued_rows: Some(9), ..ProjectLimits::default() })].into(),
        };

        assert_eq!((table.of(&team).queued_rows, table.of(&team).share().get()), (Some(9), 2));
        assert_eq!(table.of(&Owner::default()), table.every);
        assert_eq!(ProjectLimits::default().share().get(), 1);
    }

    #[test]
    fn input_exceeds_a_limit_together_with_what_is_used_or_alone() {
        let limits = |queued_rows, queued_tokens| ProjectLimits { queued_rows, queued_tokens, ..Default::default() };
        // The limits of rows and of tokens, what is used, what is new; the unit and whether it is for good.
        let cases = [
            (limits(None, None), input(9, 9), input(9, 9), None),
            (limits(Some(10), None), input(4, 400), input(6, 600), None),
            (limits(Some(10), None), input(5, 0), input(6, 600), Some((QueuedUnit::Rows, false))),
            (limits(Some(10), None), input(0, 0), input(11, 0), Some((QueuedUnit::Rows, true))),
            (limits(None, Some(100)), input(9, 200), input(9, 200), None),
            (limits(None, Some(100)), input(9, 200), input(9, 201), Some((QueuedUnit::Tokens, false))),
            (limits(None, Some(100)), input(0, 0), input(1, 401), Some((QueuedUnit::Tokens, true))),
            (limits(Some(10), Some(100)), input(9, 0), input(2, 401), Some((QueuedUnit::Tokens, true))),
            (limits(Some(10), Some(100)), input(9, 300), input(2, 200), Some((QueuedUnit::Rows, false))),
            (limits(Some(0), None), input(0, 0), input(1, 0), Some((QueuedUnit::Rows, true))),
        ];
        for (limits, used, new, expected) in cases {
            let exceeded = limits.exceeded(used, new).map(|exceeded| (exceeded.unit, exceeded.is_for_good()));
            assert_eq!(exceeded, expected, "{limits:?} {used:?} {new:?}");
        }
    }

    #[test]
    fn a_file_counts_for_less_as_its_rows_end() {
        let cases = [(1000, 10, 10, 1000), (1000, 10, 3, 300), (1000, 10, 0, 0), (1001, 3, 1, 333), (10, 0, 0, 0)];
        for (bytes, rows, owed, left) in cases {
            assert_eq!(QueuedInput::of_file(bytes, rows, owed), input(owed, left));
        }
        assert_eq!(QueuedInput::of_file(u64::MAX, 3, 3).bytes, u64::MAX);
        assert_eq!([0, 1, 4, 5].map(|bytes| input(0, bytes).tokens()), [0, 1, 1, 2]);
    }
}
