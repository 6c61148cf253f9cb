//! How far a run is, on standard error: a bar on a terminal, otherwise a line now and then. Log lines leave it whole.

use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::results::RunOutputs;
use crate::cli::output::harmless;
use crate::domain::batch::{Batch, Counts};
use crate::domain::progress::{ProgressReason, ReasonCode};
use crate::sync::lock;

/// How often there is a line if standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// The prefix says how many rows failed, and the message why the others are no faster.
const TEMPLATE: &str = "{bar:30} {pos}/{len} rows  {rate}  {eta} left{prefix}\n{wide_msg}";

/// The progress of one batch.
pub(super) struct RunProgress {
    bar: ProgressBar,
    seen: Mutex<Option<ShownCounts>>,
}

/// What was shown.
struct ShownCounts {
    /// When the batch was seen for the first time, and how many rows had ended before.
    began: Instant,
    ended_before: u64,
    counts: Counts,
    /// Why it goes no faster.
    reason: Option<ProgressReason>,
    line: Option<Instant>,
    /// The last standstill that had a line at once, and when.
    standstill: Option<(ReasonCode, Instant)>,
}

impl RunProgress {
    pub(super) fn new() -> Self {
        // It is hidden if standard error is no terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is right");
        let rate = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            let _ = write!(to, "{:.1} rows/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
        Self { bar, seen: Mutex::default() }
    }

    /// Where log lines go: above the bar.
    pub(super) fn log_writer(&self) -> impl Fn() -> LogLines + Send + Sync + 'static {
        let bar = self.bar.clone();
        move || LogLines(bar.clone())
    }

    /// Says something on standard error.
    pub(super) fn say(&self, text: &str) {
        // A reader of standard error that has gone does not end the run.
        above(&self.bar, || drop(writeln!(io::stderr(), "{text}")));
    }

    /// Shows how far the batch is, and why it is no further.
    pub(super) fn show(&self, batch: &Batch, reason: Option<&ProgressReason>) {
        let counts = batch.counts;
        if counts.total == 0 || batch.status.is_terminal() {
            return;
        }
        let (now, ended) = (Instant::now(), counts.completed + counts.failed);
        let mut seen = lock(&self.seen);
        let seen = seen.get_or_insert_with(|| {
            self.bar.set_length(counts.total);
            self.bar.set_position(ended);
            self.bar.reset_eta();
            ShownCounts { began: now, ended_before: ended, counts, reason: None, line: None, standstill: None }
        });
        if seen.counts != counts || seen.reason.as_ref() != reason {
            (seen.counts, seen.reason) = (counts, reason.cloned());
            self.bar.set_position(ended);
            if counts.failed > 0 {
                self.bar.set_prefix(format!("  {} failed", counts.failed));
            }
            self.bar.set_message(seen.why());
        }
        if self.bar.is_hidden() && seen.is_due(now) {
            seen.line = Some(now);
            self.say(&seen.text(now));
        }
    }

    /// Says how the batch has ended.
    pub(super) fn ended(&self, batch: &Batch, results: &RunOutputs) {
        let Counts { total, completed, .. } = batch.counts;
        self.bar.finish_and_clear();
        let failed = total - completed;
        let places = results.places();
        self.say(&format!("{total} rows: {completed} succeeded, {failed} failed; the lines are in {places}"));
    }

    /// Says how far a run is that was interrupted.
    pub(super) fn interrupted(&self) {
        self.bar.abandon();
        let far = lock(&self.seen).as_ref().map_or_else(String::new, |seen| {
            format!(" with {} of {} rows done", seen.counts.completed + seen.counts.failed, seen.counts.total)
        });
        self.say(&format!("interrupted{far}; the same command line goes on from here"));
    }
}

impl ShownCounts {
    /// Whether another line is due: now and then, and at once when rows come to a standstill.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_recent = |at: Instant| now.duration_since(at) < LINE_EVERY;
        let reason = self.reason.as_ref().map(|reason| reason.code).filter(|reason| is_standstill(*reason));
        let new = reason.filter(|reason| !self.standstill.is_some_and(|(told, at)| told == *reason && is_recent(at)));
        if let Some(reason) = new {
            self.standstill = Some((reason, now));
        }
        new.is_some() || !self.line.is_some_and(is_recent)
    }

    /// Why it goes no faster; empty if nothing holds it up.
    fn why(&self) -> String {
        self.reason.as_ref().map_or_else(String::new, |reason| harmless(&reason.message))
    }

    fn text(&self, now: Instant) -> String {
        let Counts { total, completed, failed } = self.counts;
        let ended = completed + failed;
        let (here, took) = (ended - self.ended_before, now.duration_since(self.began));
        let pace = u32::try_from(here).ok().filter(|here| *here > 0).map_or_else(String::new, |here| {
            let left = took * u32::try_from(total - ended).unwrap_or(u32::MAX) / here;
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            format!(", {:.1} rows/s, {left} left", f64::from(here) / took.as_secs_f64().max(0.001))
        });
        let why = self.why();
        let why = if why.is_empty() { why } else { format!("; {why}") };
        format!("{ended} of {total} rows{pace}, {failed} failed{why}")
    }
}

/// Whether rows may stand still for this reason, so that their owner is to know it at once.
fn is_standstill(reason: ReasonCode) -> bool {
    matches!(reason, ReasonCode::NoUpstream | ReasonCode::UpstreamDown | ReasonCode::RateLimited)
}

/// Writes above the bar, if there is one yet.
fn above<T>(bar: &ProgressBar, write: impl FnOnce() -> T) -> T {
    if bar.length().is_some() { bar.suspend(write) } else { write() }
}

/// A writer of log lines.
pub(super) struct LogLines(ProgressBar);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above(&self.0, || io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
