//! The documents say what the program does.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use batchwright::domain::line::NeverRan;
use batchwright::domain::outcome::FailureReason;
use clap::Command;

/// The table of README.md, from the help texts of `serve`.
fn settings_table(serve: &Command) -> String {
    let mut table = String::from("| setting | default | what it does |\n|---|---|---|\n");
    for arg in serve.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
        let long = arg.get_long().expect("every setting is a flag");
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let takes_value = arg.get_action().takes_values();
        let value = match (takes_value, values.is_empty()) {
            (false, _) => String::new(),
            (true, false) => format!(" {}", values.join("\\|")),
            (true, true) => format!(" {}", arg.get_value_names().expect("a value has a name")[0]),
        };
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = match defaults.join(",") {
            text if takes_value && !text.is_empty() => format!("`{text}`"),
            _ => String::new(),
        };
        let help = arg.get_help().expect("every setting is explained");
        writeln!(table, "| `--{long}{value}` | {default} | {help} |").expect("a String takes all");
    }
    table
}

/// A table of README.md, whose start and end are marked with its name.
fn table_of_readme(name: &str) -> &'static str {
    let (_, rest) =
        include_str!("../README.md").split_once(&format!("<!-- {name} -->\n")).expect("the table's start is marked");
    rest.split_once(&format!("<!-- /{name} -->")).expect("the table's end is marked").0
}

#[test]
fn the_readme_has_every_code_of_a_failure_and_no_other() {
    let rows = table_of_readme("codes").lines().skip(2);
    let first_cell = |row: &'static str| row.split('|').nth(1).expect("a cell").trim().trim_matches('`');
    let explained: Vec<&str> = rows.map(first_cell).collect();
    let codes: BTreeSet<&str> = FailureReason::CODES.iter().chain(NeverRan::CODES).copied().collect();

    assert_eq!(explained.iter().copied().collect::<BTreeSet<_>>(), codes);
    assert_eq!(explained.len(), codes.len(), "each has one row");
}

#[test]
fn the_readme_has_every_setting_with_its_default_and_its_help() {
    let table = table_of_readme("settings");

    let command = batchwright::cli::documented_command();
    let expected = settings_table(command.find_subcommand("serve").expect("the command has it"));

    assert!(table == expected, "README.md's table of settings should be:\n\n{expected}");
}

#[test]
fn the_openapi_document_in_the_repository_is_the_one_the_program_prints() {
    let kept = std::fs::read_to_string("openapi/openapi.json").unwrap_or_default();

    assert!(kept == batchwright::api::openapi::document_text(), "openapi/openapi.json is stale: run `make openapi`");
}
