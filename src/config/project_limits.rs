//! What projects may use: the table `[limits]` of the settings file.

use std::num::NonZeroU32;
use std::path::Path;

use bytesize::ByteSize;
use serde::Deserialize;
use toml::{Table, Value};

use super::{ConfigError, file};
use crate::domain::owner::Owner;
use crate::domain::project_limits::{OverLimit, ProjectLimitTable, ProjectLimits};

/// The table of a settings file that has the limits.
pub(super) const SECTION: &str = "limits";
/// `[limits.projects."name"]`: what is different for a project.
const PROJECTS: &str = "projects";

/// Reads the limits of projects of a settings file. Without the table there are none.
///
/// # Errors
/// What is wrong with them.
pub fn read_project_limits(path: &Path) -> Result<ProjectLimitTable, ConfigError> {
    #[derive(Deserialize)]
    struct Tables {
        #[serde(default)]
        limits: Table,
    }
    let Tables { mut limits } = file::read_tables(path, &[SECTION])?;
    let bad = |table: String, why| ConfigError::BadLimits { path: path.to_owned(), table, why };
    let projects = limits.remove(PROJECTS).unwrap_or_else(|| Table::new().into());
    let every = limits_of(limits).map_err(|why| bad(SECTION.to_owned(), why))?;
    let tables = |table: &str| bad(format!("{SECTION}.{table}"), "it must be a table".to_owned());
    let Value::Table(projects) = projects else { return Err(tables(PROJECTS)) };
    let own = |(name, own): (String, Value)| {
        let Some(project) = Owner::parse(&name) else {
            return Err(ConfigError::NoProject { path: path.to_owned(), name });
        };
        let table = format!("{PROJECTS}.{name}");
        let Value::Table(own) = own else { return Err(tables(&table)) };
        let own = limits_of(own).map_err(|why| bad(format!("{SECTION}.{table}"), why))?;
        Ok((project, own))
    };
    Ok(ProjectLimitTable { every, projects: projects.into_iter().map(own).collect::<Result<_, _>>()? })
}

/// The limits that a table has. The error says what is wrong, without the values, which may be misplaced keys.
fn limits_of(table: Table) -> Result<ProjectLimits, String> {
    let mut limits = ProjectLimits::default();
    for (key, value) in table {
        match key.as_str() {
            "requests_per_minute" => limits.requests_per_minute = Some(count(&key, &value, NO_LIMIT)?),
            "queued_rows" => limits.queued_rows = Some(number(&key, &value)?),
            "queued_tokens" => limits.queued_tokens = Some(number(&key, &value)?),
            "over_limit" => limits.over_limit = Some(over_limit(&key, &value)?),
            "storage_bytes" => limits.storage_bytes = Some(size(&key, &value)?),
            "concurrent_uploads" => limits.concurrent_uploads = Some(count(&key, &value, NO_LIMIT)?),
            "share" => limits.share = Some(count(&key, &value, "leave it out for a share of 1")?),
            _ => return Err(format!("it has `{key}`, which is no limit")),
        }
    }
    Ok(limits)
}

const NO_LIMIT: &str = "leave it out for no limit";

fn count(key: &str, value: &Value, without: &str) -> Result<NonZeroU32, String> {
    let count = value.as_integer().and_then(|count| NonZeroU32::new(count.try_into().ok()?));
    count.ok_or_else(|| format!("`{key}` must be a whole number, at least 1; {without}"))
}

fn number(key: &str, value: &Value) -> Result<u64, String> {
    let number = value.as_integer().and_then(|number| number.try_into().ok());
    number.ok_or_else(|| format!("`{key}` must be a whole number, at least 0; {NO_LIMIT}"))
}

/// A number of bytes, or a text with a unit.
fn size(key: &str, value: &Value) -> Result<u64, String> {
    let size = match value {
        Value::String(text) => text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
        number => number.as_integer().and_then(|number| number.try_into().ok()),
    };
    size.ok_or_else(|| format!("`{key}` must be a number of bytes or a size such as \"100GiB\"; {NO_LIMIT}"))
}

fn over_limit(key: &str, value: &Value) -> Result<OverLimit, String> {
    let known = value.as_str().and_then(OverLimit::parse);
    known.ok_or_else(|| format!("`{key}` must be \"fail\" or \"wait\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ProjectLimitTable, ConfigError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("batchwright.toml");
        std::fs::write(&path, text).expect("the file can be written");
        read_project_limits(&path)
    }

    #[test]
    fn a_table_has_every_limit() {
        let table = read(
            "[limits]\nrequests_per_minute = 6\nqueued_rows = 0\nqueued_tokens = 5\nover_limit = 'wait'\n\
             storage_bytes = '1KiB'\nconcurrent_uploads = 2\n\
             [limits.projects.\"team\"]\nstorage_bytes = 7\nshare = 3\n",
        );

        let every = ProjectLimits {
            requests_per_minute: NonZeroU32::new(6),
            queued_rows: Some(0),
            queued_tokens: Some(5),
            over_limit: Some(OverLimit::Wait),
            storage_bytes: Some(1024),
            concurrent_uploads: NonZeroU32::new(2),
            share: None,
        };
        let team = ProjectLimits { storage_bytes: Some(7), share: NonZeroU32::new(3), ..ProjectLimits::default() };
        let projects = [(Owner::parse("team").expect("an id"), team)].into();
        assert_eq!(table.expect("it is in order"), ProjectLimitTable { every, projects });
        assert_eq!(read("").expect("there need be none"), ProjectLimitTable::default());
    }

    #[test]
    fn what_is_wrong_with_a_limit_is_said_with_its_name_and_without_its_value() {
        let at_least_one = "`requests_per_minute` must be a whole number, at least 1; leave it out for no limit";
        let cases = [
            ("[limits]\nrequests_per_minute = 0", "[limits]", at_least_one),
            ("[limits]\nrequests_per_minute = -1", "[limits]", at_least_one),
            (
                "[limits.projects.team]\nshare = 0",
                "[limits.projects.team]",
                "at least 1; leave it out for a share of 1",
            ),
            ("[limits]\nqueued_rows = 'sk-1'", "[limits]", "`queued_rows` must be a whole number, at least 0"),
            ("[limits]\nqueued_tokens = -1", "[limits]", "`queued_tokens` must be a whole number, at least 0"),
            ("[limits]\nover_limit = 'sk-1'", "[limits]", "`over_limit` must be \"fail\" or \"wait\""),
            ("[limits]\nstorage_bytes = 'sk-1'", "[limits]", "`storage_bytes` must be a number of bytes or a size"),
            ("[limits]\nconcurrent_uploads = 1.5", "[limits]", "`concurrent_uploads` must be a whole number"),
            ("[limits]\nrows = 5", "[limits]", "it has `rows`, which is no limit"),
            ("[limits]\nprojects = 5", "[limits.projects]", "it must be a table"),
            ("[limits.projects]\nteam = 5", "[limits.projects.team]", "it must be a table"),
        ];
        for (text, table, why) in cases {
            let message = read(text).expect_err("it is wrong").to_string();
            assert!(message.contains(table) && message.contains(why), "{text}: {message}");
            assert!(!message.contains("sk-1") && !message.contains("TOML"), "{text}: {message}");
        }
    }
}
