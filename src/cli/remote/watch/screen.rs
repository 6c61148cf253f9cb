//! What is seen of batches: bars on a terminal, lines elsewhere, or events as JSON.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::WatchDisplay;
use super::observe::{Observation, Sight};
use crate::cli::output::{harmless, print_text, say};
use crate::client::RemoteBatch;
use crate::domain::progress::ReasonCode;

/// Lines about rows come no more often than this.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Events about rows come no more often than this.
const EVENT_EVERY: Duration = Duration::from_secs(1);
/// As many reasons why a file was refused are shown.
const SHOWN_ERRORS: usize = 10;

/// Where the batches are shown, each at its place.
pub(super) struct Screen {
    display: WatchDisplay,
    bars: Option<Bars>,
    shown: Vec<Shown>,
    /// The server is away, which was said once for all batches.
    is_away: bool,
}

struct Bars {
    all: MultiProgress,
    each: Vec<ProgressBar>,
}

/// What was shown of a batch last.
#[derive(Default)]
struct Shown {
    status: String,
    text: String,
    at: Option<Instant>,
}

impl Screen {
    pub(super) fn new(display: WatchDisplay, batches: &[RemoteBatch]) -> anyhow::Result<Self> {
        let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        let has_bars = display == WatchDisplay::Progress && io::stderr().is_terminal() && !is_ci;
        let bars = if has_bars { Some(Bars::new(batches)?) } else { None };
        let shown = batches.iter().map(|_| Shown::default()).collect();
        Ok(Self { display, bars, shown, is_away: false })
    }

    pub(super) fn show(&mut self, place: usize, sight: Sight<'_>) -> io::Result<()> {
        match sight {
            Sight::Seen(observation) => self.show_batch(place, observation),
            Sight::Away(text) if !std::mem::replace(&mut self.is_away, true) => self.announce("away", &text),
            Sight::Back(text) if std::mem::replace(&mut self.is_away, false) => self.announce("back", &text),
            Sight::Away(_) | Sight::Back(_) => Ok(()),
        }
    }

    /// Leaves the bars of the end on the terminal.
    pub(super) fn finish(&self) {
        for bar in self.bars.iter().flat_map(|bars| &bars.each) {
            bar.abandon();
        }
    }

    fn show_batch(&mut self, place: usize, seen: &Observation) -> io::Result<()> {
        let (shown, text) = (&mut self.shown[place], describe(seen));
        let status = if is_paused(seen) { "paused" } else { seen.batch.status.as_str() };
        let is_new_status = shown.status != status;
        if let Some(bars) = &self.bars {
            bars.show(place, seen, &text);
        } else {
            let pause = if self.display == WatchDisplay::Events { EVENT_EVERY } else { LINE_EVERY };
            let is_due = shown.text != text && shown.at.is_none_or(|at| at.elapsed() >= pause);
            if !is_new_status && !is_due {
                return Ok(());
            }
            match self.display {
                WatchDisplay::Events => print_events(seen, is_new_status && !is_paused(seen))?,
                WatchDisplay::Progress => say(format!("{} {} {text}", seen.batch.id, seen.batch.status)),
                WatchDisplay::Nothing => {}
            }
        }
        *shown = Shown { status: status.to_owned(), text, at: Some(Instant::now()) };
        if is_new_status && self.display == WatchDisplay::Progress {
            self.explain_refusal(&seen.batch);
        }
        Ok(())
    }

    fn announce(&self, event: &str, text: &str) -> io::Result<()> {
        match self.display {
            WatchDisplay::Events => print_event(&json!({ "event": event, "message": text })),
            WatchDisplay::Progress => {
                self.line(text);
                Ok(())
            }
            WatchDisplay::Nothing => Ok(()),
        }
    }

    /// A line, above the bars if there are any.
    fn line(&self, text: &str) {
        match &self.bars {
            // Fails only if the terminal has gone.
            Some(bars) => drop(bars.all.println(text)),
            None => say(text),
        }
    }

    /// Why the input file was refused.
    fn explain_refusal(&self, batch: &RemoteBatch) {
        for error in batch.errors.iter().take(SHOWN_ERRORS) {
            let line = error.line.map_or_else(String::new, |line| format!("line {line}: "));
            self.line(&format!("{}: {line}{} ({})", batch.id, harmless(&error.message), harmless(&error.code)));
        }
        if let Some(more) = batch.errors.len().checked_sub(SHOWN_ERRORS).filter(|more| *more > 0) {
            self.line(&format!("{}: and {more} more; `batchwright status {} --output json`", batch.id, batch.id));
        }
    }
}

impl Bars {
    fn new(batches: &[RemoteBatch]) -> anyhow::Result<Self> {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix} {bar:20} {wide_msg}")?;
        let bar = |batch: &RemoteBatch| {
            all.add(ProgressBar::new(1).with_style(style.clone()).with_prefix(harmless(&batch.id)))
        };
        let each = batches.iter().map(bar).collect();
        Ok(Self { all, each })
    }

    fn show(&self, place: usize, seen: &Observation, text: &str) {
        let bar = &self.each[place];
        bar.set_length(seen.counts.total.max(1));
        bar.set_position(seen.counts.completed + seen.counts.failed);
        bar.set_message(format!("{} {text}", seen.batch.status));
    }
}

/// How a batch gets on, in one line.
fn describe(seen: &Observation) -> String {
    let Observation { batch, progress, counts, rows_per_second, time_left } = seen;
    let mut text = format!("{}/{} rows", counts.completed + counts.failed, counts.total);
    if counts.failed > 0 {
        write!(text, ", {} failed", counts.failed).expect("a String takes all");
    }
    if batch.status.is_terminal() {
        return text;
    }
    let is_paused = is_paused(seen);
    if *rows_per_second > 0.0 && !is_paused {
        write!(text, ", {rows_per_second:.1} rows/s").expect("a String takes all");
    }
    if let Some(left) = time_left.filter(|_| !is_paused) {
        let whole = Duration::from_secs(left.as_secs());
        write!(text, ", {} left", humantime::format_duration(whole)).expect("a String takes all");
    }
    if let Some(reason) = progress.as_ref().and_then(|progress| progress.reason.as_ref()) {
        write!(text, "; {}: {}", harmless(&reason.code), harmless(&reason.message)).expect("a String takes all");
    }
    if is_paused {
        write!(text, " `batchwright resume {}` resumes it.", harmless(&batch.id)).expect("a String takes all");
    }
    text
}

/// Whether no row of the batch starts until it is resumed.
fn is_paused(seen: &Observation) -> bool {
    let reason = seen.progress.as_ref().and_then(|progress| progress.reason.as_ref());
    !seen.batch.status.is_terminal() && reason.is_some_and(|reason| reason.code == ReasonCode::Paused.as_str())
}

fn print_events(seen: &Observation, is_new_status: bool) -> io::Result<()> {
    let batch = &seen.batch;
    let event = if batch.status.is_terminal() { "end" } else { "batch" };
    match &seen.progress {
        Some(progress) if !is_new_status => print_event(&json!({ "event": "progress", "progress": progress })),
        _ => print_event(&json!({ "event": event, "batch": batch })),
    }
}

fn print_event(event: &Value) -> io::Result<()> {
    print_text(&format!("{event}\n"))
}
