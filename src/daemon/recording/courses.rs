//! What was recorded of each model in the last minutes, for the heartbeats to tell.

use std::collections::HashMap;
use std::sync::Mutex;

use super::RowOutcome;
use crate::domain::activity::MAX_MODELS;
use crate::domain::recent_course::RecentCourse;
use crate::domain::time::Timestamp;
use crate::sync::lock;

/// The recent course of each model. The recorder writes it, and the heartbeat reads it.
#[derive(Debug, Default)]
pub(in crate::daemon) struct ModelCourses(Mutex<HashMap<String, RecentCourse>>);

impl ModelCourses {
    /// Adds what was recorded. Of more than [`MAX_MODELS`] models at once, the last have no course.
    pub(in crate::daemon) fn record<'a>(&self, now: Timestamp, recorded: impl IntoIterator<Item = &'a RowOutcome>) {
        let mut courses = lock(&self.0);
        for outcome in recorded {
            if let Some(course) = course_of(&mut courses, &outcome.model, now) {
                course.record(now, 1, outcome.usage.total_tokens);
            }
        }
    }

    /// What was recorded of a model in the last minutes, up to the last point that is over.
    pub(in crate::daemon) fn of(&self, model: &str, now: Timestamp) -> RecentCourse {
        lock(&self.0).get(model).map(|course| course.whole(now)).unwrap_or_default()
    }
}

/// The course of a model, if there is room for it.
fn course_of<'a>(
    courses: &'a mut HashMap<String, RecentCourse>,
    model: &str,
    now: Timestamp,
) -> Option<&'a mut RecentCourse> {
    if !courses.contains_key(model) {
        if courses.len() >= MAX_MODELS {
            courses.retain(|_, course| !course.is_over(now));
        }
        if courses.len() >= MAX_MODELS {
            return None;
        }
        courses.insert(model.to_owned(), RecentCourse::default());
    }
    courses.get_mut(model)
}
