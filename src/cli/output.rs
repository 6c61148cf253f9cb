//! The forms in which commands print objects on standard output. All else that a command says is on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use serde::Serialize;

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputForm {
    /// For people: aligned columns with a head.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// The columns of the table without head and padding, with a tab between.
    Plain,
}

/// The flag that chooses the form.
#[derive(Args, Debug, Clone, Copy, Default)]
pub(super) struct OutputArgs {
    /// Form of what is printed. Without the flag: a table on a terminal, otherwise JSON (`jsonl` for lists).
    #[arg(long, value_name = "FORM")]
    output: Option<OutputForm>,
}

/// An object that can be printed in every form.
pub(super) trait Tabled: Serialize {
    /// The heads of the columns.
    const COLUMNS: &'static [&'static str];

    /// The text of each column. Empty text is shown as `-`.
    fn cells(&self) -> Vec<String>;
}

impl OutputArgs {
    /// The form that was asked for.
    pub(super) fn asked(self) -> Option<OutputForm> {
        self.output
    }

    /// Prints one object. In a table it has one line for each column.
    pub(super) fn print_one<T: Tabled>(self, item: &T) -> io::Result<()> {
        let form = self.output.unwrap_or(by_default(OutputForm::Json));
        let text =
            if form == OutputForm::Table { vertical(item) } else { list(form, std::slice::from_ref(item), false)? };
        print_text(&text)
    }

    /// Prints a list of objects.
    pub(super) fn print_list<T: Tabled>(self, items: &[T]) -> io::Result<()> {
        let form = self.output.unwrap_or(by_default(OutputForm::Jsonl));
        print_text(&list(form, items, true)?)
    }
}

fn by_default(otherwise: OutputForm) -> OutputForm {
    if io::stdout().is_terminal() { OutputForm::Table } else { otherwise }
}

/// Prints text on standard output. A reader that has gone is an error here, which [`Exit`](super::exit::Exit) knows;
/// `println!` would panic.
pub(super) fn print_text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Says something on standard error. `eprintln!` would panic if nobody reads it.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A time on the wire, as people read it.
pub(super) fn time(seconds: i64) -> String {
    let since_epoch = u64::try_from(seconds).unwrap_or_default();
    match SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since_epoch)) {
        // Later years have more than four digits, which the format does not have.
        Some(time) if since_epoch < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => seconds.to_string(),
    }
}

fn list<T: Tabled>(form: OutputForm, items: &[T], is_list: bool) -> io::Result<String> {
    let text = match form {
        OutputForm::Table => horizontal(items),
        OutputForm::Plain => items.iter().map(|item| shown(item).join("\t") + "\n").collect(),
        OutputForm::Jsonl => {
            let lines = items.iter().map(|item| Ok(serde_json::to_string(item)? + "\n"));
            lines.collect::<serde_json::Result<String>>()?
        }
        OutputForm::Json if is_list => serde_json::to_string_pretty(items)? + "\n",
        OutputForm::Json => {
            items.iter().map(serde_json::to_string_pretty).collect::<serde_json::Result<String>>()? + "\n"
        }
    };
    Ok(text)
}

fn vertical<T: Tabled>(item: &T) -> String {
    let width = T::COLUMNS.iter().map(|head| head.len()).max().unwrap_or_default();
    let line = |(head, cell): (&&str, String)| format!("{head:width$}  {cell}\n");
    T::COLUMNS.iter().zip(shown(item)).map(line).collect()
}

fn horizontal<T: Tabled>(items: &[T]) -> String {
    let head = T::COLUMNS.iter().map(|&head| head.to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(items.iter().map(shown)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..T::COLUMNS.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

/// The cells as a terminal may show them.
fn shown<T: Tabled>(item: &T) -> Vec<String> {
    let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { harmless(&cell) };
    item.cells().into_iter().map(shown).collect()
}

/// A text of others as a terminal may show it: control characters could move the cursor or break the lines.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        id: &'static str,
        rows: u32,
    }

    impl Tabled for Thing {
        const COLUMNS: &'static [&'static str] = &["ID", "ROWS", "NOTE"];

        fn cells(&self) -> Vec<String> {
            vec![self.id.to_owned(), self.rows.to_string(), String::new()]
        }
    }

    #[test]
    fn each_form_shows_a_list_and_a_single_object() {
        let things = [Thing { id: "a\x1b[2J\n", rows: 1 }, Thing { id: "long-name", rows: 20 }];
        let cases = [
            (OutputForm::Table, true, "ID         ROWS  NOTE\na\u{fffd}[2J\u{fffd}     1     -\nlong-name  20    -\n"),
            (OutputForm::Plain, true, "a\u{fffd}[2J\u{fffd}\t1\t-\nlong-name\t20\t-\n"),
            (OutputForm::Jsonl, true, "{\"id\":\"a\\u001b[2J\\n\",\"rows\":1}\n{\"id\":\"long-name\",\"rows\":20}\n"),
            (OutputForm::Jsonl, false, "{\"id\":\"long-name\",\"rows\":20}\n"),
            (OutputForm::Json, false, "{\n  \"id\": \"long-name\",\n  \"rows\": 20\n}\n"),
        ];
        for (form, is_list, expected) in cases {
            let items = if is_list { &things[..] } else { &things[1..] };
            assert_eq!(list(form, items, is_list).unwrap(), expected, "{form:?}");
        }
        let json: serde_json::Value = serde_json::from_str(&list(OutputForm::Json, &things, true).unwrap()).unwrap();
        assert_eq!(json[1]["rows"], 20);
        assert_eq!(list(OutputForm::Json, &things[..0], true).unwrap(), "[]\n");
        assert_eq!(vertical(&things[1]), "ID    long-name\nROWS  20\nNOTE  -\n");
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(time(1_790_000_000), "2026-09-21T14:13:20Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }
}
