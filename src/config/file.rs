//! The layers of settings: a settings file below the environment below the flags.
//!
//! The file's values become the defaults of the flags with the same names, so that types, bounds and messages are those
//! of the flags.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Arg, Args as _, Command};
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::{ServeConfig, prices, project_limits, tools, upstreams, webhooks};

/// How near a key is to the name of a setting that it may stand for: 1 is the same.
const NEAR: f64 = 0.8;

/// The flag that names the settings file.
const CONFIG: &str = "config";

/// Bytes of a settings file. A longer file must be the wrong one.
const LONGEST: u64 = 4 << 20;

/// What is wrong with a settings file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the settings file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, or has a value that its key cannot have.
    #[error("the settings file {path}{place} cannot be used: {why}")]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, as a part of the message; empty if it is not known.
        place: String,
        /// Why.
        why: String,
    },
    /// It has a key that is not a setting.
    #[error(
        "the settings file {path} has `{key}`, which is no setting; they are named like the flags of `serve`{meant}"
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it may stand for, as a part of the message.
        meant: String,
    },
    /// A table of an upstream cannot be used.
    #[error("the settings file {path} has an upstream '{table}' that cannot be used: {why}")]
    BadTable {
        /// The file.
        path: PathBuf,
        /// The upstream's name.
        table: String,
        /// Why.
        why: String,
    },
    /// The limits are of a project that cannot be.
    #[error(
        "the settings file {path} has limits of the project '{name}': a project has 1 to 128 printable ASCII \
         characters and no space"
    )]
    NoProject {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A table of limits cannot be used.
    #[error("the settings file {path} has limits that cannot be used, in [{table}]: {why}")]
    BadLimits {
        /// The file.
        path: PathBuf,
        /// The table.
        table: String,
        /// Why.
        why: String,
    },
    /// A table of a webhook cannot be used.
    #[error("the settings file {path} has a webhook '{name}' that cannot be used: {why}")]
    BadWebhook {
        /// The file.
        path: PathBuf,
        /// The receiver's name.
        name: String,
        /// Why.
        why: String,
    },
    /// A value has a type that no setting has.
    #[error(
        "the settings file {path} gives `{key}` a value that is neither text, a number, true or false, nor a list of \
         those"
    )]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

impl ConfigError {
    /// The error of a settings file that is not TOML. It does not show the line itself, which may have a key in it.
    pub(super) fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start));
        let place = before.map_or_else(String::new, |before| format!(", line {},", before.matches('\n').count() + 1));
        Self::NotToml { path: path.to_owned(), place, why: without_values(error.message()) }
    }
}

/// The parser's message without the text that it found, which may be a misplaced key.
fn without_values(message: &str) -> String {
    match (message.find("string \""), message.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}a text{}", &message[..start], &message[end + 1..])
        }
        _ => message.to_owned(),
    }
}

/// Puts the environment below those of a command's flags that are settings of `serve`, and below it the settings file
/// that the arguments name with `--config`.
///
/// # Errors
/// What is wrong with the file.
pub fn layered(command: Command, arguments: &[OsString]) -> Result<Command, ConfigError> {
    let settings = ServeConfig::augment_args(Command::new("serve"));
    let command = command.mut_args(|arg| match arg.get_long() {
        Some(long) if long == CONFIG || has_flag(&settings, long) => {
            let variable = variable_of(long);
            // An empty variable is what `${NAME:-}` makes in compose files and charts of one that is not set.
            if std::env::var_os(&variable).is_some_and(|value| value.is_empty()) { arg } else { arg.env(variable) }
        }
        _ => arg,
    });
    match config_path(&command, arguments) {
        Some(path) => with_file(command, &settings, &path),
        None => Ok(command),
    }
}

/// The environment variable of a flag.
pub(crate) fn variable_of(long: &str) -> String {
    format!("BATCHWRIGHT_{}", long.replace('-', "_").to_uppercase())
}

/// The setting that a key may stand for, as a part of a message.
fn meant(command: &Command, long: &str) -> String {
    let flags = command.get_arguments().filter_map(Arg::get_long);
    let near = flags.map(|flag| (strsim::jaro_winkler(flag, long), flag)).filter(|(nearness, _)| *nearness > NEAR);
    let nearest = near.max_by(|one, other| one.0.total_cmp(&other.0));
    nearest.map_or_else(String::new, |(_, flag)| format!("; did you mean `{}`?", flag.replace('-', "_")))
}

fn has_flag(command: &Command, long: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(long))
}

/// Finds `--config` before the arguments are really parsed, because the file determines the defaults.
fn config_path(command: &Command, arguments: &[OsString]) -> Option<PathBuf> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(arguments).ok()?;
    // It is an error if the command has no such flag.
    matches.try_get_one::<PathBuf>(CONFIG).ok()?.cloned()
}

/// Reads a settings file of at most [`LONGEST`] bytes.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    let read = read.and_then(|_| {
        let is_longer = text.len() as u64 > LONGEST;
        if is_longer { Err(io::Error::other("it is longer than 4 MiB")) } else { Ok(()) }
    });
    read.map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    Ok(text)
}

/// Reads those tables of a settings file that are no flags and have one of these names.
pub(super) fn read_tables<T: DeserializeOwned>(path: &Path, names: &[&str]) -> Result<T, ConfigError> {
    let text = read(path)?;
    let not_toml = |error: toml::de::Error| ConfigError::not_toml(path, &text, &error);
    // Errors have their line as long as the table keeps its places in the text.
    let mut table = DeTable::parse(&text).map_err(not_toml)?;
    let tables = std::mem::take(table.get_mut()).into_iter();
    *table.get_mut() = tables.filter(|(key, _)| names.contains(&&**key.get_ref())).collect();
    T::deserialize(toml::Deserializer::from(table)).map_err(not_toml)
}

/// `settings` has all settings of `serve`: a file may have them for any command, which ignores those of others.
fn with_file(mut command: Command, settings: &Command, path: &Path) -> Result<Command, ConfigError> {
    let path = path.to_owned();
    let text = read(&path)?;
    let table: toml::Table = text.parse().map_err(|error| ConfigError::not_toml(&path, &text, &error))?;
    let is_flag = |key: &str| {
        ![upstreams::SECTION, prices::SECTION, project_limits::SECTION, webhooks::SECTION].contains(&key)
            && !tools::SECTIONS.contains(&key)
    };
    for (key, value) in table.into_iter().filter(|(key, _)| is_flag(key)) {
        let long = key.replace('_', "-");
        if !has_flag(settings, &long) {
            return Err(ConfigError::Unknown { path, key, meant: meant(settings, &long) });
        }
        let Some(values) = as_texts(&value) else { return Err(ConfigError::BadValue { path, key }) };
        let id = command.get_arguments().find(|arg| arg.get_long() == Some(&long)).map(|arg| arg.get_id().clone());
        let Some(id) = id else { continue };
        command = command.mut_arg(id, |arg: Arg| {
            // A flag that hides its value from the environment hides the value from the file too.
            let is_secret = arg.is_hide_env_values_set();
            arg.default_values(values).hide_default_value(is_secret)
        });
    }
    Ok(command)
}

fn as_texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::Array(values) => {
            values.iter().map(as_texts).collect::<Option<Vec<_>>>().map(|texts| texts.concat())
        }
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Float(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Some(vec![flag.to_string()]),
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
