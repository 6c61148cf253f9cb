//! The server that the client's commands call, and its key: from flags, the environment, or a profile in the user's
//! configuration directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use url::Url;

use super::file::{ConfigError, read};
use super::{Secret, shown_url};

const DEFAULT_SERVER: &str = "http://127.0.0.1:8080/v1";

/// The flags that choose the server.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Base URL of the server, such as `https://batch.example/v1`. Without a path, `/v1` is added. Without the flag it
    /// comes from the environment variable `OPENAI_BASE_URL`, otherwise it is `http://127.0.0.1:8080/v1`. The key comes
    /// from the environment variable `OPENAI_API_KEY`.
    #[arg(long, value_name = "URL", conflicts_with = "profile")]
    pub server: Option<String>,

    /// Server and key of a profile: the table `[profiles.NAME]` of `batchwright/config.toml` in the user's
    /// configuration directory (`~/.config`), with `server = "URL"` and `key = "…"`.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
}

/// A server and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteServer {
    /// The base URL. It may have a password in it.
    pub server: String,
    /// The key, if the server wants one.
    pub key: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfilesFile {
    #[serde(default)]
    profiles: BTreeMap<String, RemoteServer>,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The user has no configuration directory.
    #[error("there is no directory for profiles: set HOME or XDG_CONFIG_HOME, or use --server and OPENAI_API_KEY")]
    NoDirectory,
    /// The file is not there, or cannot be read.
    #[error("--profile reads {path}, which cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be understood.
    #[error(transparent)]
    Unclear(#[from] ConfigError),
    /// The file has a key that is no secret.
    #[error("{path} has a key in it, and other users may read the file: run `chmod 600 {path}`")]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
    },
    /// The file has no such profile.
    #[error("{path} has no profile '{name}'; it has {known}")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The profile that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
}

impl ServerArgs {
    /// The server that is meant.
    ///
    /// # Errors
    /// Why the profile cannot be used.
    pub fn resolve(&self) -> Result<RemoteServer, ProfileError> {
        let chosen = if let Some(name) = &self.profile {
            profile(name, &profiles_path(variable("XDG_CONFIG_HOME"), variable("HOME"))?)?
        } else {
            let named = self.server.clone().or_else(|| text("OPENAI_BASE_URL"));
            let key = text("OPENAI_API_KEY").and_then(|key| key.parse().ok());
            RemoteServer { server: named.unwrap_or_else(|| DEFAULT_SERVER.to_owned()), key }
        };
        Ok(RemoteServer { server: with_v1(chosen.server), ..chosen })
    }

    /// The flags as they may be shown, for a command that goes on with the same server. Empty, or with a space before.
    #[must_use]
    pub fn as_flags(&self) -> String {
        let server = self.server.as_ref().map(|url| format!(" --server {}", shown_url(url)));
        server.or_else(|| Some(format!(" --profile {}", self.profile.as_ref()?))).unwrap_or_default()
    }
}

/// An environment variable that is not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}

/// A URL without a path can only mean the server itself, whose API is below `/v1`.
fn with_v1(url: String) -> String {
    match Url::parse(&url) {
        Ok(mut parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.path() == "/" => {
            parsed.set_path("/v1");
            parsed.into()
        }
        _ => url,
    }
}

fn profiles_path(xdg: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, ProfileError> {
    // The specification of these directories tells programs to ignore a relative one.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = xdg.or_else(|| Some(PathBuf::from(home?).join(".config"))).ok_or(ProfileError::NoDirectory)?;
    Ok(directory.join("batchwright/config.toml"))
}

fn profile(name: &str, path: &Path) -> Result<RemoteServer, ProfileError> {
    let unreadable = |source| ProfileError::Unreadable { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    let file = read(path)?;
    let ProfilesFile { mut profiles } =
        toml::from_str(&file).map_err(|error| ConfigError::not_toml(path, &file, &error))?;
    if mode & 0o077 != 0 && profiles.values().any(|profile| profile.key.is_some()) {
        return Err(ProfileError::ReadableByOthers { path: path.to_owned() });
    }
    profiles.remove(name).ok_or_else(|| {
        let names: Vec<&str> = profiles.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        ProfileError::Unknown { path: path.to_owned(), name: name.to_owned(), known }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_means_the_api_below_v1() {
        let cases = [
            ("http://host:8080", "http://host:8080/v1"),
            ("http://host:8080/", "http://host:8080/v1"),
            ("http://host/v1", "http://host/v1"),
            ("http://host/openai", "http://host/openai"),
            ("host:8080", "host:8080"),
        ];
        for (given, meant) in cases {
            assert_eq!(with_v1(given.to_owned()), meant);
        }
    }

    #[test]
    fn profiles_are_in_the_configuration_directory_of_the_user() {
        let home = || Some("/home/me".into());
        let cases = [
            (Some("/etc/me".into()), home(), Some("/etc/me/batchwright/config.toml")),
            (Some("relative".into()), home(), Some("/home/me/.config/batchwright/config.toml")),
            (None, home(), Some("/home/me/.config/batchwright/config.toml")),
            (None, None, None),
        ];
        for (xdg, home, expected) in cases {
            assert_eq!(profiles_path(xdg, home).ok(), expected.map(PathBuf::from));
        }
    }
}
