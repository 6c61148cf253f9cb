//! What a project may use. A project is an [`Owner`]: the one of a client's key, or `default`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::owner::Owner;

/// The share of a project that is given none.
const USUAL_SHARE: NonZeroU32 = NonZeroU32::MIN;

/// Batches in progress whose rows are counted against the limit of a project.
pub const COUNTED_BATCHES: u32 = 100_000;

/// The limits of a project. Without a number there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectLimits {
    /// Calls of the API in a minute, which each API process counts for itself.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Rows without a result of batches in progress.
    pub queued_rows: Option<u64>,
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

impl ProjectLimits {
    /// The share as a number.
    #[must_use]
    pub fn share(&self) -> NonZeroU32 {
        self.share.unwrap_or(USUAL_SHARE)
    }
}

impl ProjectLimitTable {
    /// The limits of a project.
    #[must_use]
    pub fn of(&self, project: &Owner) -> ProjectLimits {
        let Some(own) = self.projects.get(project) else { return self.every };
        ProjectLimits {
            requests_per_minute: own.requests_per_minute.or(self.every.requests_per_minute),
            queued_rows: own.queued_rows.or(self.every.queued_rows),
            share: own.share.or(self.every.share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
