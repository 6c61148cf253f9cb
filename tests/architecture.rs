//! The rules of `ARCHITECTURE.md` that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules at the top, from the bottom up: a module names only modules of earlier layers, and itself.
const LAYERS: &[&[&str]] = &[
    &["causes", "domain", "fault", "sync", "wakeup"],
    &["config", "net", "telemetry"],
    &["client", "simulator", "storage", "verify", "webhooks"],
    &["intake"],
    &["upstream"],
    &["tools"],
    &["processor"],
    &["daemon"],
    &["actions"],
    &["api"],
    &["dashboard"],
    &["app"],
    &["cli"],
];

/// Two groups of modules that do not name each other: what answers clients, and what runs rows. They meet in storage
/// and in `wakeup`, so that each can be a process of its own.
const WINGS: [&[&str]; 2] = [&["intake", "actions", "api", "dashboard"], &["tools", "processor", "daemon"]];

/// Where Rust files are.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "examples"];

const LONGEST_FILE: usize = 400;
const LONGEST_LINE: usize = 120;

const SQL: [&str; 5] = ["SELECT ", "INSERT INTO ", "DELETE FROM ", "CREATE TABLE ", "ORDER BY "];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file: its path below `src`, and its text.
fn sources() -> Vec<(String, String)> {
    let below_src = |(path, text): (String, String)| (path["src/".len()..].to_owned(), text);
    let sources: Vec<_> = rust_files("src").into_iter().map(below_src).collect();
    assert!(sources.len() > 50, "the sources are found");
    sources
}

/// The Rust files of one of the [`FOLDERS`]: the path of each, and its text.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut paths = below(&root().join(folder));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("sources are text");
        (path.strip_prefix(root()).expect("it is below").display().to_string(), text)
    };
    paths.into_iter().map(read).collect()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("the directory can be read").path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

/// The modules that a text names as `crate::…`, alone or in a list.
fn named_modules(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mentions = code.flat_map(|line| line.split("crate::").skip(1));
    mentions.map(|rest| rest.split(|c| !is_name(c)).next().unwrap_or_default()).collect()
}

#[test]
fn every_file_begins_with_its_purpose() {
    let without: Vec<_> = sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).collect();

    assert!(without.is_empty(), "{:?}", without.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long() {
    for (path, text) in FOLDERS.into_iter().flat_map(rust_files) {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE, "{path} has {lines} lines");
    }
}

#[test]
fn no_line_is_too_long() {
    // Only the program has raw strings and rows of tables that cannot be broken.
    let is_whole = |line: &str| line.contains("r#\"") || line.trim_start().starts_with("//! |");
    for (path, text) in FOLDERS.into_iter().flat_map(rust_files) {
        let is_program = path.starts_with("src/");
        for (no, line) in text.lines().enumerate().filter(|(_, line)| !is_program || !is_whole(line)) {
            let columns = line.chars().count();
            assert!(columns <= LONGEST_LINE, "line {} of {path} has {columns} columns", no + 1);
        }
    }
}

#[test]
fn unit_tests_stand_at_the_end_of_their_file() {
    for (path, text) in sources() {
        let mut lines = text.lines().skip_while(|line| !line.ends_with("mod tests;") && !line.ends_with("mod tests {"));
        if lines.next().is_some_and(|head| head.ends_with('{')) {
            lines.find(|line| *line == "}");
        }
        assert_eq!(lines.next(), None, "{path} goes on after its tests");
    }
}

#[test]
fn imports_are_one_path_each() {
    for (path, text) in sources() {
        assert!(!text.contains("crate::{"), "{path} has a list after `crate::`, which the other tests cannot read");
    }
}

/// Every source file below the modules at the top: its module, its path, and the other modules that it names.
fn names_of_other_modules() -> Vec<(String, String, Vec<String>)> {
    let of_file = |(path, text): (String, String)| {
        let module = path.split(['/', '.']).next().unwrap_or_default().to_owned();
        // `fuzz` is there for tests only.
        let is_other = |named: &&str| *named != module && *named != "fuzz";
        let named = named_modules(&text).into_iter().filter(is_other).map(str::to_owned).collect();
        (module, path, named)
    };
    let files = sources().into_iter().map(of_file);
    files.filter(|(module, ..)| !matches!(module.as_str(), "lib" | "main" | "fuzz")).collect()
}

/// The number of a module's layer, counted from the lowest.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn modules_name_only_those_of_lower_layers() {
    for (module, path, named) in names_of_other_modules() {
        let above = layer(&module).unwrap_or_else(|| panic!("{path} belongs to no layer"));
        for named in named {
            let below = layer(&named).unwrap_or_else(|| panic!("{path} names crate::{named}, which is no module"));
            assert!(below < above, "{path} names crate::{named}, which is no lower");
        }
    }
}

#[test]
fn what_answers_clients_and_what_runs_rows_do_not_name_each_other() {
    for (module, path, named) in names_of_other_modules() {
        for (wing, other) in [(WINGS[0], WINGS[1]), (WINGS[1], WINGS[0])] {
            let named = named.iter().find(|named| other.contains(&named.as_str()));
            assert!(!wing.contains(&module.as_str()) || named.is_none(), "{path} names {named:?}");
        }
    }
}

#[test]
fn what_answers_clients_reads_in_the_name_of_an_owner() {
    let is_for_clients = |path: &str| ["api/", "actions/", "dashboard/"].iter().any(|folder| path.starts_with(folder));
    for (path, text) in sources().into_iter().filter(|(path, _)| is_for_clients(path)) {
        assert!(!text.contains(".any_"), "{path} calls a method of the storage that is for daemons");
    }
}

#[test]
fn the_document_has_the_same_layers() {
    let layers: Vec<String> = LAYERS.iter().map(|layer| layer.join(", ")).collect();
    let expected = format!("\n```text\n{}\n```\n", layers.join("\n"));
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the document is there");

    assert!(document.contains(&expected), "ARCHITECTURE.md should have:\n{expected}");
}

#[test]
fn only_the_app_chooses_the_storage() {
    for (path, text) in sources() {
        let is_allowed = path.starts_with("storage/") || path.starts_with("app/");
        assert!(is_allowed || !text.contains("storage::sql"), "{path} names storage::sql");
    }
}

#[test]
fn http_clients_are_built_in_one_place() {
    for (path, text) in sources() {
        let builds = ["Client::builder(", "ClientBuilder::new("].iter().any(|builder| text.contains(builder));
        assert!(!builds || path.starts_with("net/"), "{path} builds an HTTP client");
    }
}

#[test]
fn only_the_storage_knows_the_database() {
    for (path, text) in sources() {
        assert!(path.starts_with("storage/") || !text.contains("sqlx::"), "{path} uses sqlx");
    }
}

#[test]
fn sql_stands_only_below_storage_sql() {
    for (path, text) in sources() {
        let statement = SQL.iter().find(|statement| text.contains(**statement));
        assert!(path.starts_with("storage/sql/") || statement.is_none(), "{path} has {statement:?}");
    }
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |database: &str| -> BTreeSet<_> {
        let paths = below(&root().join("migrations").join(database));
        paths.into_iter().filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect()
    };

    assert!(!names("sqlite").is_empty());
    assert_eq!(names("sqlite"), names("postgres"));
}

#[test]
fn a_public_type_name_has_one_meaning() {
    let mut files: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    // What stands for SQLite's types has a twin of the same name for PostgreSQL's.
    let is_looked_at = |path: &str| !path.contains("tests") && path != "storage/sql/postgres.rs";
    for (path, text) in sources().into_iter().filter(|(path, _)| is_looked_at(path)) {
        for (name, is_public) in declared_types(&text) {
            files.entry(name.to_owned()).or_default().push((path.clone(), is_public));
        }
    }
    files.retain(|_, declarations| declarations.len() > 1 && declarations.iter().any(|(_, is_public)| *is_public));

    assert!(files.is_empty(), "types that share their name with a public one: {files:#?}");
}

#[test]
fn the_source_uses_the_words_of_the_glossary() {
    let contributing = fs::read_to_string(root().join("CONTRIBUTING.md")).expect("the file is there");
    let (_, glossary) = contributing.split_once("### Glossary\n").expect("it has a glossary");
    let rows = glossary.lines().filter(|line| line.starts_with("| ")).skip(1);
    let words: Vec<&str> =
        rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.trim().split(", ")).collect();
    assert!(words.len() > 20, "the words are found: {words:?}");

    let source: String = sources().into_iter().map(|(_, text)| text.to_lowercase()).collect();
    let missing: Vec<&str> = words.into_iter().filter(|word| !source.contains(word)).collect();

    assert!(missing.is_empty(), "the source does not use {missing:?}");
}

/// The types that a file declares, and whether each is `pub` in any form. What its tests declare is left out, and so
/// are aliases inside of `impl` blocks.
fn declared_types(text: &str) -> Vec<(&str, bool)> {
    let code = text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(code, _)| code);
    let declared = code.lines().filter_map(|line| {
        let is_nested = line.starts_with(' ');
        let line = line.trim_start();
        let (is_public, rest) = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => (true, rest.split_once(") ")?.1),
            Some(rest) => (true, rest.trim_start()),
            None => (false, line),
        };
        let (kind, rest) = rest.split_once(' ')?;
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "union") || kind == "type" && !is_nested;
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        // A macro that declares types gives them the names of its caller.
        (is_type && !name.is_empty()).then_some((name, is_public))
    });
    declared.collect()
}
