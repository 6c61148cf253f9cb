//! What projects may use: the table `[limits]` of the settings file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use serde::Deserialize;

use super::{ConfigError, file};
use crate::domain::owner::Owner;
use crate::domain::project_limits::{ProjectLimitTable, ProjectLimits};

/// The table of a settings file that has the limits.
pub(super) const SECTION: &str = "limits";

/// `[limits]`: those of every project.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    requests_per_minute: Option<NonZeroU32>,
    queued_rows: Option<u64>,
    share: Option<NonZeroU32>,
    /// `[limits.projects."name"]`: what is different for a project.
    #[serde(default)]
    projects: BTreeMap<String, OwnLimitsTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnLimitsTable {
    requests_per_minute: Option<NonZeroU32>,
    queued_rows: Option<u64>,
    share: Option<NonZeroU32>,
}

/// Reads the limits of projects of a settings file. Without the table there are none.
///
/// # Errors
/// What is wrong with them.
pub fn read_project_limits(path: &Path) -> Result<ProjectLimitTable, ConfigError> {
    #[derive(Deserialize)]
    struct Tables {
        #[serde(default)]
        limits: LimitsTable,
    }
    let Tables { limits } = file::read_tables(path, &[SECTION])?;
    let LimitsTable { requests_per_minute, queued_rows, share, projects } = limits;
    let own = |(name, own): (String, OwnLimitsTable)| {
        let OwnLimitsTable { requests_per_minute, queued_rows, share } = own;
        Owner::parse(&name).map(|name| (name, ProjectLimits { requests_per_minute, queued_rows, share })).ok_or(name)
    };
    let projects = projects.into_iter().map(own).collect::<Result<_, _>>();
    let projects = projects.map_err(|name| ConfigError::NoProject { path: path.to_owned(), name })?;
    Ok(ProjectLimitTable { every: ProjectLimits { requests_per_minute, queued_rows, share }, projects })
}
