//! Completions and manual pages have every flag of every command.

use batchwright::cli::documented_command;
use clap::Command;

use crate::common::process::{batchwright, run, said};

/// The flags of a command that `--help` shows.
fn flags(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown.filter_map(|arg| arg.get_long()).map(|long| format!("--{long}")).collect()
}

/// Every command with its path below `batchwright`, such as `["run"]`.
fn commands() -> Vec<(Vec<String>, Command)> {
    let mut commands = Vec::new();
    let mut below = vec![(Vec::new(), documented_command())];
    while let Some((path, command)) = below.pop() {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let path = [&path[..], &[inner.get_name().to_owned()]].concat();
            below.push((path.clone(), inner.clone()));
            commands.push((path, inner.clone()));
        }
    }
    assert!(commands.len() > 10, "the commands are found");
    commands
}

#[tokio::test]
async fn the_completions_have_every_flag_of_every_command() {
    let output = run(batchwright(&["completions", "bash"])).await;
    let script = String::from_utf8(output.stdout).expect("UTF-8");

    for (path, command) in commands() {
        let name = path.join("__subcmd__");
        let (_, branch) =
            script.split_once(&format!("  batchwright__subcmd__{name})\n")).unwrap_or_else(|| panic!("{name}"));
        let options = branch.lines().next().expect("the options");
        let words: Vec<_> = options.split(['"', ' ']).collect();
        for flag in flags(&command) {
            assert!(words.contains(&flag.as_str()), "{name} {flag}: {options}");
        }
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = run(batchwright(&["completions", shell])).await;
        assert!(output.status.success() && said(&output).contains("max-concurrency"), "{shell}");
    }
}

#[tokio::test]
async fn the_manual_has_every_flag_of_every_command() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pages = directory.path().join("man").display().to_string();

    let written = run(batchwright(&["man", "--dir", &pages])).await;
    let main = run(batchwright(&["man"])).await;

    assert_eq!(written.status.code(), Some(0), "{}", said(&written));
    for (path, command) in commands() {
        let name = path.join("-");
        let page = std::fs::read_to_string(format!("{pages}/batchwright-{name}.1")).expect("a page");
        let page = page.replace('\\', "");
        for flag in flags(&command) {
            assert!(page.contains(&format!("fB{flag}fR")), "{name} {flag}");
        }
        let is_named = said(&main).replace('\\', "").contains(&format!("batchwright-{name}(1)"));
        assert_eq!(is_named, path.len() == 1, "{name}");
    }
}
