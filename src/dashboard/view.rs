//! What templates show: numbers, times and parts of pages that several have.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use askama::filters::HtmlSafe;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets;
use crate::actions::ObservedBatch;
use crate::api::Caller;
use crate::domain::api_key::KeyScope;
use crate::domain::batch::BatchStatus;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::progress::RowCounts;
use crate::domain::time::Timestamp;

/// What every page has around it.
pub(super) struct Layout {
    /// The entry of the navigation that the page belongs to.
    pub(super) entry: &'static str,
    pub(super) title: String,
    /// The project of the visitor's key; none of a visitor without one.
    pub(super) project: Option<Owner>,
    /// Whether there are pages and buttons that change something.
    pub(super) may_write: bool,
    /// Whether there is what concerns every project.
    pub(super) may_administer: bool,
}

impl Layout {
    /// A page that is the same for every visitor.
    pub(super) fn of(entry: &'static str, title: impl Into<String>) -> Self {
        Self { entry, title: title.into(), project: None, may_write: true, may_administer: true }
    }

    /// A page for this visitor.
    pub(super) fn for_caller(self, caller: &Caller) -> Self {
        let project = caller.key.is_some().then(|| caller.owner.clone());
        let (may_write, may_administer) = (caller.may(KeyScope::Write), caller.may(KeyScope::Admin));
        Self { project, may_write, may_administer, ..self }
    }

    /// Whether the navigation is there.
    pub(super) fn is_signed_in(&self) -> bool {
        self.entry != "sign-in"
    }

    /// The URL of an asset.
    #[expect(clippy::unused_self, reason = "templates call what they are given")]
    pub(super) fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    /// What marks an entry of the navigation as the one that is shown.
    pub(super) fn current(&self, entry: &str) -> &'static str {
        if self.entry == entry { "page" } else { "false" }
    }
}

/// A text as a value of a URL's query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// `1,234,567`
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate with as many digits as mean something: `1,234`, `12.3`, `0.04`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are small and not negative")]
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        many if many >= 100.0 => grouped(many.round() as u64),
        some if some >= 1.0 => format!("{some:.1}"),
        few if few > 0.0 => format!("{few:.2}"),
        _ => "0".to_owned(),
    }
}

/// `1.5 MB`
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A length of time in its two largest units: `3 min 20 s`.
pub(super) fn spell(length: Duration) -> String {
    let seconds = length.as_secs();
    let two = |large: u64, unit: &str, small: u64, of: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {of}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// How long a call took: `120 ms`, and from ten seconds on as [`spell`] has it.
pub(super) fn took(length: Duration) -> String {
    if length.as_secs() < 10 { format!("{} ms", length.as_millis()) } else { spell(length) }
}

/// A time: in UTC, until the script shows it in the visitor's zone.
pub(super) struct Moment {
    at: Timestamp,
    has_distance: bool,
}

impl Moment {
    pub(super) fn at(at: Timestamp) -> Self {
        Self { at, has_distance: false }
    }

    /// Beside it stands how long ago it was, or how long it is until then.
    pub(super) fn with_distance(at: Timestamp) -> Self {
        Self { at, has_distance: true }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Times before 1970 or beyond the year 9999 come from rows that no version of this program wrote.
        let seconds = u64::try_from(self.at.seconds()).unwrap_or(0).min(253_402_300_799);
        let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        let plain = text.replace('T', " ").replace('Z', " UTC");
        let distance = if self.has_distance { " data-distance" } else { "" };
        write!(f, "<time datetime=\"{text}\" title=\"{plain}\"{distance}>{plain}</time>")
    }
}

/// It has no text that anybody else wrote.
impl HtmlSafe for Moment {}

/// The rows of a batch as parts of a bar, each with its own colour, and its name beside it.
pub(super) struct Bar {
    pub(super) parts: Vec<BarPart>,
    pub(super) label: String,
}

/// Rows in one state.
pub(super) struct BarPart {
    pub(super) name: &'static str,
    pub(super) rows: String,
    /// Of the whole bar, in thousandths.
    pub(super) from: String,
    pub(super) width: String,
    /// No rows are in this state.
    pub(super) is_empty: bool,
}

impl Bar {
    #[expect(clippy::cast_precision_loss, reason = "a place on the screen")]
    pub(super) fn of(rows: RowCounts) -> Self {
        let RowCounts { total, waiting, running, retrying, completed, failed } = rows;
        let states = [
            ("completed", completed),
            ("failed", failed),
            ("retrying", retrying),
            ("running", running),
            ("waiting", waiting),
        ];
        let thousandths = |count: u64| if total == 0 { 0.0 } else { count as f64 * 1000.0 / total as f64 };
        let mut before = 0;
        let parts = states.map(|(name, count)| {
            let from = format!("{:.2}", thousandths(before));
            before += count;
            let width = format!("{:.2}", thousandths(count));
            BarPart { name, rows: grouped(count), from, width, is_empty: count == 0 }
        });
        let shown = parts.iter().filter(|part| !part.is_empty).map(|part| format!("{} {}", part.rows, part.name));
        let label = format!("Rows: {}", shown.collect::<Vec<_>>().join(", "));
        Self { label, parts: parts.into() }
    }
}

/// How much of the rows has ended: `42 %`, rounded down, so that 100 % means all.
pub(super) fn percent(rows: RowCounts) -> String {
    let done = rows.completed + rows.failed;
    match done.checked_mul(100).and_then(|done| done.checked_div(rows.total)) {
        Some(percent) => format!("{percent} %"),
        None => "–".to_owned(),
    }
}

/// The statuses in which a batch has not ended, as the filter and the overview have them.
pub(super) const ACTIVE: [BatchStatus; 4] =
    [BatchStatus::Validating, BatchStatus::InProgress, BatchStatus::Finalizing, BatchStatus::Cancelling];

/// A batch in a list.
pub(super) struct BatchLine {
    pub(super) id: BatchId,
    pub(super) status: &'static str,
    pub(super) model: String,
    pub(super) created: Moment,
    pub(super) bar: Bar,
    pub(super) rows: String,
    pub(super) failed: Option<String>,
    pub(super) percent: String,
    /// When it ended.
    pub(super) ended: Option<Moment>,
    /// When it will.
    pub(super) ends: Option<Moment>,
    pub(super) closes: Moment,
    /// Its window will not be met, as far as is known.
    pub(super) is_at_risk: bool,
}

impl BatchLine {
    pub(super) fn of(observed: &ObservedBatch) -> Self {
        let ObservedBatch { batch, progress, .. } = observed;
        let failed = batch.counts.failed;
        Self {
            id: batch.id,
            status: batch.status.as_str(),
            model: batch.model.clone().unwrap_or_else(|| "–".to_owned()),
            created: Moment::at(batch.created_at),
            bar: Bar::of(progress.rows),
            rows: grouped(batch.counts.total),
            failed: (failed > 0).then(|| grouped(failed)),
            percent: percent(progress.rows),
            ended: batch.milestones.ended_at().map(Moment::at),
            ends: progress.estimate.map(|estimate| Moment::with_distance(estimate.ends_at)),
            closes: Moment::with_distance(batch.expires_at),
            is_at_risk: is_at_risk(observed),
        }
    }
}

/// Whether a batch that has not ended will miss its window, as far as is known.
pub(super) fn is_at_risk(observed: &ObservedBatch) -> bool {
    !observed.batch.status.is_terminal() && observed.progress.will_meet_window == Some(false)
}

/// The page of a row. The name is in the query: a path would lose the names `.` and `..`.
pub(super) fn row_url(batch: BatchId, custom_id: &str) -> String {
    format!("/dashboard/batches/{batch}/rows?custom_id={}", encoded(custom_id))
}

/// `s`, unless there is one.
pub(super) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        let numbers = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (12_345, "12,345")];
        for (number, text) in numbers {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [(0.0, "0"), (0.042, "0.04"), (12.34, "12.3"), (1234.5, "1,235")] {
            assert_eq!(rate(number), text);
        }
        for (seconds, text) in [(0, "0 s"), (200, "3 min 20 s"), (7200, "2 h"), (90_000, "1 d 1 h")] {
            assert_eq!(spell(Duration::from_secs(seconds)), text);
        }
        for (bytes, text) in [(999, "999 B"), (1500, "1.5 kB"), (200_000_000, "200.0 MB")] {
            assert_eq!(size(bytes), text);
        }
        let moment = Moment::at(Timestamp(1_700_000_000_999)).to_string();
        assert!(moment.contains("datetime=\"2023-11-14T22:13:20Z\" title=\"2023-11-14 22:13:20 UTC\""), "{moment}");
        assert!(Moment::at(Timestamp(i64::MAX)).to_string().contains("9999"));
    }

    #[test]
    fn a_bar_is_full_and_its_parts_follow_each_other() {
        let rows = RowCounts { total: 8, waiting: 1, running: 2, retrying: 0, completed: 4, failed: 1 };
        let bar = Bar::of(rows);

        let places: Vec<_> = bar.parts.iter().map(|part| (part.name, &*part.from, &*part.width)).collect();
        let expected = [
            ("completed", "0.00", "500.00"),
            ("failed", "500.00", "125.00"),
            ("retrying", "625.00", "0.00"),
            ("running", "625.00", "250.00"),
            ("waiting", "875.00", "125.00"),
        ];
        assert_eq!(places, expected);
        assert_eq!(bar.label, "Rows: 4 completed, 1 failed, 2 running, 1 waiting");
        assert_eq!((percent(rows), percent(RowCounts::default())), ("62 %".to_owned(), "–".to_owned()));
    }
}
