//! How the server and the key are found.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::command::{Cli, Said};
use crate::stand_in::StandIn;

const KEY: &str = "hunter2";

/// A configuration directory whose file has this mode.
fn profiles(text: &str, mode: u32) -> TempDir {
    let home = tempfile::tempdir().expect("a temporary directory");
    let directory = home.path().join("batchwright");
    fs::create_dir(&directory).expect("it can be made");
    let file = directory.join("config.toml");
    fs::write(&file, text).expect("it can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode can be set");
    home
}

fn with_profile(home: &Path, name: &str) -> Cli {
    let home = home.to_str().expect("text");
    Cli::new(&["list", "--profile", name]).env("XDG_CONFIG_HOME", home).env("OPENAI_API_KEY", "other")
}

fn is_silent_about_the_key(said: &Said) -> bool {
    !said.out.contains(KEY) && !said.err.contains(KEY)
}

#[tokio::test]
async fn a_profile_has_server_and_key() {
    let server = StandIn::with_batch("completed", [1, 1, 0], false).await;
    let url = &server.base_url;
    let text = format!("[profiles.lab]\nserver = \"{url}/v1\"\nkey = \"{KEY}\"\n[profiles.open]\nserver = \"{url}\"\n");
    let home = profiles(&text, 0o600);

    let said = with_profile(home.path(), "lab").exits(0).await;
    assert_eq!(server.world().headers["authorization"], format!("Bearer {KEY}"));
    assert!(is_silent_about_the_key(&said));

    with_profile(home.path(), "open").exits(0).await;
    assert!(!server.world().headers.contains_key("authorization"), "no other key goes to the server of a profile");

    let said = with_profile(home.path(), "nobody").exits(1).await;
    assert!(said.err.contains("no profile 'nobody'; it has lab, open"), "{said:?}");
}

#[tokio::test]
async fn a_file_with_a_key_that_others_may_read_is_refused() {
    let server = StandIn::with_batch("completed", [1, 1, 0], false).await;
    let text = format!("[profiles.lab]\nserver = \"{}\"\nkey = \"{KEY}\"\n", server.base_url);
    for mode in [0o644, 0o640, 0o602] {
        let home = profiles(&text, mode);
        let said = with_profile(home.path(), "lab").exits(1).await;

        let file = home.path().join("batchwright/config.toml");
        assert!(said.err.contains(&format!("run `chmod 600 {}`", file.display())), "{said:?}");
        assert!(is_silent_about_the_key(&said));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        with_profile(home.path(), "lab").exits(0).await;
    }
    let without_key = text.replace(&format!("key = \"{KEY}\"\n"), "");
    with_profile(profiles(&without_key, 0o644).path(), "lab").exits(0).await;
}

#[tokio::test]
async fn a_file_that_is_wrong_is_explained_without_its_key() {
    let cases = [
        (format!("[profiles.lab]\nserver = \"http://h\"\nkey = \"{KEY}"), "line 3"),
        (format!("[profiles.lab]\nserver = \"http://h\"\ntoken = \"{KEY}\"\n"), "unknown field `token`"),
        (format!("[profiles.lab]\nkey = \"{KEY}\"\n"), "missing field `server`"),
    ];
    for (text, message) in cases {
        let said = with_profile(profiles(&text, 0o600).path(), "lab").exits(1).await;
        assert!(said.err.contains(message) && is_silent_about_the_key(&said), "{message}: {said:?}");
    }
    let said = with_profile(Path::new("/no/such/directory"), "lab").exits(1).await;
    assert!(said.err.contains("/no/such/directory/batchwright/config.toml"), "{said:?}");
    let said = Cli::new(&["list", "--profile", "lab"]).exits(1).await;
    assert!(said.err.contains("set HOME or XDG_CONFIG_HOME"), "{said:?}");
}

#[tokio::test]
async fn a_flag_wins_over_the_environment() {
    let server = StandIn::with_batch("completed", [1, 1, 0], false).await;
    let elsewhere = "http://127.0.0.1:9/v1";
    for url in [server.base_url.clone(), format!("{}/", server.base_url), format!("{}/v1", server.base_url)] {
        let cli = Cli::new(&["list", "--server", &url]).env("OPENAI_BASE_URL", elsewhere);
        let said = cli.env("OPENAI_API_KEY", KEY).exits(0).await;

        assert_eq!(server.world().headers["authorization"], format!("Bearer {KEY}"), "{url}");
        assert!(is_silent_about_the_key(&said));
    }
    // An empty variable is what `${NAME:-}` makes of one that is not set.
    server.cli(&["list"]).env("OPENAI_API_KEY", "").exits(0).await;
    assert!(!server.world().headers.contains_key("authorization"));
    Cli::new(&["list", "--server", elsewhere, "--profile", "lab"]).exits(2).await;
}

#[tokio::test]
async fn a_password_in_the_url_is_not_shown() {
    let said = Cli::new(&["list", "--server", "http://me:hunter2@127.0.0.1:9/v1"]).exits(7).await;

    assert!(said.err.contains("http://127.0.0.1:9/v1") && is_silent_about_the_key(&said), "{said:?}");
}
