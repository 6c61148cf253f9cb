//! What daemons have in memory, what can happen to them, and how their outcomes become a flush.

use std::collections::{BTreeMap, BTreeSet};

use batchwright::domain::ids::{BatchId, DaemonId, FileId, LeaseId};
use batchwright::domain::lease::{Lease, LeaseHold, OpenLane};
use batchwright::storage::{BatchFlush, Flush, TieredPart};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::given::{ERROR_LINE, OUTPUT_LINE, USAGE_OF_A_ROW, add_row};

/// A call that has ended and whose outcome is not recorded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub lease: LeaseHold,
    pub row: u32,
    pub completed: bool,
}

/// What a daemon has in memory, which is not what the database has: it may have lost leases without knowing.
pub struct Daemon {
    pub id: DaemonId,
    /// Its runs of leases, and the rows of each whose call has not ended.
    pub held: BTreeMap<LeaseHold, (Lease, BTreeSet<u32>)>,
    pub ended: Vec<Ended>,
    /// The lane it saw last, which others may have moved since.
    pub lane: Option<OpenLane>,
    /// The parts of a file it saw last, which others may have merged since.
    pub parts: Option<(FileId, Vec<TieredPart>)>,
    /// A flush whose answer it has not seen.
    pub unanswered: Option<Flush>,
    /// A lease whose giving back it has not seen answered.
    pub given_back: Option<LeaseHold>,
    pub crashed: bool,
}

impl Daemon {
    pub fn new() -> Self {
        Self {
            id: DaemonId::new(),
            held: BTreeMap::new(),
            ended: Vec::new(),
            lane: None,
            parts: None,
            unanswered: None,
            given_back: None,
            crashed: false,
        }
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    Look,
    Claim,
    TakeOver,
    Beat,
    Stall,
    CallEnds,
    Record,
    RecordAgain,
    GiveBack,
    GiveBackAgain,
    Reclaim,
    TakeOverOwn,
    Crash,
    Leave,
    TryInQuarantine,
    Merge,
    Cancel,
    WindowCloses,
    ClockSteps,
    Finish,
}

impl Event {
    /// Each event and how often it comes, compared with the others.
    const WEIGHTS: [(Self, u32); 20] = [
        (Self::Look, 10),
        (Self::Claim, 12),
        (Self::TakeOver, 12),
        (Self::Beat, 10),
        (Self::Stall, 6),
        (Self::CallEnds, 30),
        (Self::Record, 14),
        (Self::RecordAgain, 4),
        (Self::GiveBack, 3),
        (Self::GiveBackAgain, 3),
        (Self::Reclaim, 4),
        (Self::TakeOverOwn, 4),
        (Self::Crash, 3),
        (Self::Leave, 2),
        (Self::TryInQuarantine, 6),
        (Self::Merge, 10),
        (Self::Cancel, 1),
        (Self::WindowCloses, 1),
        (Self::ClockSteps, 4),
        (Self::Finish, 8),
    ];

    pub fn any(random: &mut StdRng) -> Self {
        let mut left = random.random_range(0..Self::WEIGHTS.iter().map(|(_, weight)| weight).sum());
        for (event, weight) in Self::WEIGHTS {
            if left < weight {
                return event;
            }
            left -= weight;
        }
        unreachable!("the weights add up to their sum")
    }
}

/// A lease as it must be in the database.
pub struct Known {
    pub token: i64,
    pub owed: u32,
    pub given_back: bool,
    pub deaths: u32,
    pub tries: u32,
}

/// How a recorder tells the runs of a lease apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorder {
    /// By lease and token.
    KeysByToken,
    /// By the lease alone: whatever is recorded together is recorded under the token of the first outcome, whichever
    /// run it is of. It is a fault that the ledger must withstand.
    ConfusesTokens,
}

impl Recorder {
    /// What is recorded of these outcomes.
    pub fn flush(self, batch_id: BatchId, ended: &[Ended]) -> Flush {
        let mut batch = BatchFlush::default();
        let mut tokens: BTreeMap<LeaseId, LeaseHold> = BTreeMap::new();
        for row in ended {
            if row.completed {
                add_row(&mut batch.output, row.row, OUTPUT_LINE);
                batch.usage.add(USAGE_OF_A_ROW);
            } else {
                add_row(&mut batch.error, row.row, ERROR_LINE);
            }
            let lease = match self {
                Self::KeysByToken => row.lease,
                Self::ConfusesTokens => *tokens.entry(row.lease.id).or_insert(row.lease),
            };
            batch.leases.entry(lease).or_default().insert(row.row);
        }
        Flush { batches: BTreeMap::from([(batch_id, batch)]), ..Flush::default() }
    }
}
