//! How many uploads are taken in at once: by this process, and of each project.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::ApiError;
use crate::domain::owner::Owner;
use crate::domain::project_limits::ProjectLimitTable;
use crate::sync::lock;

/// The slots of uploads.
pub struct UploadSlots {
    /// One permit for each upload that this process takes in at once.
    all: Semaphore,
    limits: Arc<ProjectLimitTable>,
    /// The projects that have uploads under way, and how many.
    projects: Mutex<HashMap<Owner, u32>>,
}

/// An upload that is taken in. It ends when this is dropped.
pub(crate) struct UploadSlot<'a> {
    slots: &'a UploadSlots,
    project: Owner,
    _permit: SemaphorePermit<'a>,
}

impl UploadSlots {
    /// Slots for so many uploads at once.
    #[must_use]
    pub fn new(at_once: usize, limits: Arc<ProjectLimitTable>) -> Self {
        Self { all: Semaphore::new(at_once), limits, projects: Mutex::default() }
    }

    /// Begins an upload of a project.
    ///
    /// # Errors
    /// 429 if the project has as many under way as it may, and 503 if this process has.
    pub(crate) fn begin(&self, project: &Owner) -> Result<UploadSlot<'_>, ApiError> {
        let limit = self.limits.of(project).concurrent_uploads;
        let mut projects = lock(&self.projects);
        let under_way = projects.get(project).copied().unwrap_or(0);
        if let Some(limit) = limit.filter(|limit| under_way >= limit.get()) {
            return Err(ApiError::too_many_uploads_of_project(limit.get()));
        }
        let permit = self.all.try_acquire().map_err(|_| ApiError::too_many_uploads())?;
        projects.insert(project.clone(), under_way + 1);
        Ok(UploadSlot { slots: self, project: project.clone(), _permit: permit })
    }

    /// How many uploads a project has under way.
    pub(super) fn under_way(&self, project: &Owner) -> u32 {
        lock(&self.projects).get(project).copied().unwrap_or(0)
    }
}

impl Drop for UploadSlot<'_> {
    fn drop(&mut self) {
        let mut projects = lock(&self.slots.projects);
        match projects.get_mut(&self.project) {
            Some(under_way) if *under_way > 1 => *under_way -= 1,
            // A project without uploads takes no memory.
            _ => drop(projects.remove(&self.project)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::domain::project_limits::ProjectLimits;

    #[test]
    fn a_project_has_its_uploads_and_all_have_those_of_the_process() {
        let every = ProjectLimits { concurrent_uploads: NonZeroU32::new(2), ..ProjectLimits::default() };
        let slots = UploadSlots::new(3, Arc::new(ProjectLimitTable { every, ..ProjectLimitTable::default() }));
        let [one, other] = ["one", "other"].map(|name| Owner::parse(name).expect("an id"));
        let refused = |project| slots.begin(project).err().and_then(|error| error.object().code);

        let first = slots.begin(&one).ok();
        let second = slots.begin(&one).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(refused(&one), Some("rate_limit_exceeded"));
        let third = slots.begin(&other).ok();
        assert!(third.is_some());
        assert!(slots.begin(&other).is_err_and(|error| error.object().code.is_none()), "the process has no more");
        assert_eq!([slots.under_way(&one), slots.under_way(&other)], [2, 1]);

        drop((first, third));
        assert_eq!([slots.under_way(&one), slots.under_way(&other)], [1, 0]);
        assert!(slots.begin(&one).is_ok());
        drop(second);
        assert!(lock(&slots.projects).is_empty());
    }
}
