//! `batchwright keys`: API keys, made and revoked in the database itself.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Exit;
use super::output::{OutputArgs, Tabled, print_text, say, time};
use crate::app::{existing_storage_beside, lacks_database, storage_beside};
use crate::config::StorageConfig;
use crate::domain::api_key::{ApiKey, KeyScope, KeyScopes, RandomSecret};
use crate::domain::ids::KeyId;
use crate::domain::owner::Owner;
use crate::domain::time::{Clock, Timestamp};

/// The most characters of a name.
const LONGEST_NAME: usize = 200;
/// Keys that are read at once.
const PAGE: u32 = 500;

/// What is done with keys.
#[derive(Subcommand)]
pub(super) enum KeysAction {
    /// Make a key, and print it. It cannot be shown again: only a hash of it is kept.
    ///
    /// Once a first key was made, every call needs one, also after that key is revoked.
    Create(CreateKeyArgs),
    /// List keys, the oldest first, revoked ones too.
    List(ListKeysArgs),
    /// Revoke a key. Every replica refuses it within 2 seconds, and its sessions of the dashboard end.
    Revoke(RevokeKeyArgs),
}

/// The arguments of `keys create`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  batchwright keys create --project team-a
  export OPENAI_API_KEY=$(batchwright keys create --project team-a --name nightly --scopes read,write)")]
pub(super) struct CreateKeyArgs {
    /// Project that the key's holder acts for: 1 to 128 printable characters without spaces. Files and batches belong
    /// to a project, and no other one sees them. What was made without a key belongs to the project `default`.
    #[arg(long, value_name = "PROJECT", value_parser = project)]
    project: Owner,
    /// Text by which people know the key.
    #[arg(long, value_name = "NAME", default_value = "", value_parser = name)]
    name: String,
    /// What the key allows: `read`, `write` (includes `read`), `admin` (includes both, and what concerns all projects,
    /// such as the metrics).
    #[arg(long, value_name = "SCOPES", default_value = "read,write", value_parser = scopes)]
    scopes: KeyScopes,
    #[command(flatten)]
    storage: StorageConfig,
}

/// The arguments of `keys list`.
#[derive(Args, Debug)]
pub(super) struct ListKeysArgs {
    /// Only the keys of this project.
    #[arg(long, value_name = "PROJECT", value_parser = project)]
    project: Option<Owner>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    storage: StorageConfig,
}

/// The arguments of `keys revoke`.
#[derive(Args, Debug)]
pub(super) struct RevokeKeyArgs {
    /// Id of the key, as `keys list` prints it.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    storage: StorageConfig,
}

/// A key as it is printed.
#[derive(Serialize)]
struct ListedKey {
    id: String,
    project: String,
    name: String,
    scopes: Vec<&'static str>,
    ending: String,
    created_at: i64,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl From<ApiKey> for ListedKey {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            project: key.owner.to_string(),
            scopes: key.scopes.names(),
            name: key.name,
            ending: key.ending,
            created_at: key.created_at.seconds(),
            last_used_at: key.last_used_at.map(Timestamp::seconds),
            revoked_at: key.revoked_at.map(Timestamp::seconds),
        }
    }
}

impl Tabled for ListedKey {
    const COLUMNS: &'static [&'static str] =
        &["ID", "PROJECT", "NAME", "SCOPES", "KEY", "CREATED", "LAST USED", "REVOKED"];

    fn cells(&self) -> Vec<String> {
        let at = |seconds: Option<i64>| seconds.map(time).unwrap_or_default();
        vec![
            self.id.clone(),
            self.project.clone(),
            self.name.clone(),
            self.scopes.join(","),
            format!("…{}", self.ending),
            time(self.created_at),
            at(self.last_used_at),
            at(self.revoked_at),
        ]
    }
}

fn project(text: &str) -> Result<Owner, String> {
    let rule = || format!("a project has 1 to {} printable ASCII characters, and no space", Owner::MAX_LENGTH);
    Owner::parse(text).ok_or_else(rule)
}

fn name(text: &str) -> Result<String, String> {
    let is_name = text.chars().count() <= LONGEST_NAME && !text.chars().any(char::is_control);
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(format!("a name has at most {LONGEST_NAME} characters, on one line"))
    }
}

fn scopes(text: &str) -> Result<KeyScopes, String> {
    let known = || KeyScope::ALL.map(KeyScope::as_str).join(", ");
    KeyScopes::parse(text).ok_or_else(|| format!("the scopes are {}", known()))
}

pub(super) async fn run(action: KeysAction) -> anyhow::Result<ExitCode> {
    match action {
        KeysAction::Create(args) => create(args).await?,
        KeysAction::List(args) => list(args).await?,
        KeysAction::Revoke(args) => revoke(args).await?,
    }
    Ok(Exit::Well.into())
}

async fn create(args: CreateKeyArgs) -> anyhow::Result<()> {
    let is_new = lacks_database(&args.storage);
    let (storage, _lock) = storage_beside(&args.storage).await?;
    let is_first = !storage.has_keys().await?;
    let secret = RandomSecret::new_key();
    let key = ApiKey {
        id: KeyId::new(),
        owner: args.project,
        name: args.name,
        scopes: args.scopes,
        ending: secret.ending().to_owned(),
        created_at: Clock::System.now(),
        last_used_at: None,
        revoked_at: None,
    };
    storage.create_key(&key, &secret.hash()).await.context("the key could not be kept")?;
    say(format!("{} acts for the project {} ({}); it is not shown again:", key.id, key.owner, key.scopes));
    print_text(&format!("{}\n", secret.reveal()))?;
    if is_first {
        let place = match &args.storage.database_url {
            Some(_) => "of this database".to_owned(),
            None => format!("in {}", std::path::absolute(&args.storage.data_dir)?.display()),
        };
        say(format!("This is the first key {place}: from now on, every call of the service there needs one."));
    }
    if is_new {
        say("No service has run there yet. The key is not for one that runs with another --data-dir.");
    }
    Ok(())
}

async fn list(args: ListKeysArgs) -> anyhow::Result<()> {
    let (storage, _lock) = existing_storage_beside(&args.storage).await?;
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = storage.any_keys(args.project.as_ref(), after, PAGE).await?;
        after = page.data.last().map(|key| key.id);
        keys.extend(page.data.into_iter().map(ListedKey::from));
        if !page.has_more {
            break;
        }
    }
    Ok(args.output.print_list(&keys)?)
}

async fn revoke(args: RevokeKeyArgs) -> anyhow::Result<()> {
    let (storage, _lock) = existing_storage_beside(&args.storage).await?;
    let unknown = || anyhow!("there is no key with the id '{}': `batchwright keys list` shows all", args.id);
    let id = KeyId::parse(&args.id).ok_or_else(unknown)?;
    let key = storage.any_revoke_key(id, Clock::System.now()).await?.ok_or_else(unknown)?;
    Ok(args.output.print_one(&ListedKey::from(key))?)
}
