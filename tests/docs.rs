//! The documents say what the program does.

use std::fmt::Write as _;

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

#[test]
fn the_readme_has_every_setting_with_its_default_and_its_help() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("<!-- settings -->\n").expect("the table's start is marked");
    let (table, _) = rest.split_once("<!-- /settings -->").expect("the table's end is marked");

    let expected = settings_table(&batchwright::cli::serve_command());

    assert!(table == expected, "README.md's table of settings should be:\n\n{expected}");
}

#[test]
fn the_openapi_document_in_the_repository_is_the_one_the_program_prints() {
    let kept = std::fs::read_to_string("openapi/openapi.json").unwrap_or_default();

    assert!(kept == batchwright::api::openapi::document_text(), "openapi/openapi.json is stale: run `make openapi`");
}
