//! The rules of `ARCHITECTURE.md` that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LONGEST_FILE: usize = 600;

/// Which modules a module must not name. `*` is every other module.
const FORBIDDEN: [(&str, &[&str]); 13] = [
    ("domain", &["*"]),
    ("telemetry", &["storage", "upstream", "intake", "processor", "daemon", "service", "api", "cli"]),
    ("storage", &["intake", "upstream", "processor", "daemon", "service", "api", "cli"]),
    ("upstream", &["intake", "storage", "processor", "daemon", "service", "api", "cli"]),
    ("tools", &["intake", "storage", "upstream", "processor", "daemon", "service", "api", "cli"]),
    ("intake", &["upstream", "processor", "daemon", "service", "api", "cli"]),
    ("processor", &["intake", "daemon", "service", "api", "cli"]),
    ("service", &["upstream", "processor", "daemon", "api", "cli"]),
    ("daemon", &["intake", "service", "api", "cli"]),
    ("api", &["processor", "daemon", "cli"]),
    ("config", &["storage", "upstream", "daemon", "service", "api", "cli"]),
    ("simulator", &["storage", "upstream", "intake", "processor", "daemon", "service", "api", "cli"]),
    ("verify", &["storage", "upstream", "intake", "processor", "daemon", "service", "api", "cli", "simulator"]),
];

const SQL: [&str; 5] = ["SELECT ", "INSERT INTO ", "DELETE FROM ", "CREATE TABLE ", "ORDER BY "];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file: its path below `src`, and its text.
fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let mut paths = below(&src);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("sources are text");
        (path.strip_prefix(&src).expect("it is below").display().to_string(), text)
    };
    let sources: Vec<_> = paths.into_iter().map(read).collect();
    assert!(sources.len() > 50, "the sources are found");
    sources
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
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE, "{path} has {lines} lines");
    }
}

#[test]
fn imports_are_one_path_each() {
    for (path, text) in sources() {
        assert!(!text.contains("crate::{"), "{path} has a list after `crate::`, which the other tests cannot read");
    }
}

#[test]
fn no_module_names_one_above_it() {
    for (path, text) in sources() {
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let Some((_, forbidden)) = FORBIDDEN.iter().find(|(name, _)| *name == module) else { continue };
        for named in named_modules(&text) {
            let is_forbidden = forbidden.contains(&named) || forbidden == &["*"] && named != module;
            assert!(!is_forbidden, "{path} names crate::{named}");
        }
    }
}

#[test]
fn nothing_but_the_program_names_the_command_line() {
    for (path, text) in sources() {
        let is_allowed = path.starts_with("cli/") || path == "main.rs" || path == "lib.rs";
        assert!(is_allowed || !named_modules(&text).contains("cli"), "{path} names crate::cli");
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

/// Type names with two meanings, one of which has to be renamed. A name that is no longer ambiguous must go from here.
const AMBIGUOUS: [&str; 6] = ["Batch", "Ended", "Gathered", "Row", "Share", "Turn"];

#[test]
fn a_public_type_name_has_one_meaning() {
    let mut files: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.contains("tests")) {
        for (name, is_public) in declared_types(&text) {
            files.entry(name.to_owned()).or_default().push((path.clone(), is_public));
        }
    }
    files.retain(|_, declarations| declarations.len() > 1 && declarations.iter().any(|(_, is_public)| *is_public));

    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert!(names == AMBIGUOUS, "types that share their name with a public one: {files:#?}");
}

/// Words of the glossary that the source does not use yet. A word that it uses must go from here.
const MISSING_WORDS: [&str; 6] = ["lease validity", "quarantine", "poison row", "outbox", "group commit", "purge"];

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

    assert_eq!(missing, MISSING_WORDS);
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
        is_type.then_some((name, is_public))
    });
    declared.collect()
}
