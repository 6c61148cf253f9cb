//! One batch, three daemons, and all that a seed makes happen to them.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use batchwright::domain::batch::{Batch, BatchStatus};
use batchwright::domain::file::FilePart;
use batchwright::domain::ids::{BatchId, BlobId, DaemonId, LeaseId};
use batchwright::domain::lease::{LeaseHold, LeaseOrder};
use batchwright::domain::time::Timestamp;
use batchwright::storage::{BatchStore as _, Beat, Flush, LeaseStore as _, Ledger as _, Recorded, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::daemon::{Daemon, Ended, Event, Known, Recorder};
use crate::given::{OWNER, TestStorage, WINDOW, after};

pub struct Case<'a> {
    storage: &'a TestStorage,
    random: StdRng,
    recorder: Recorder,
    /// The wall clock, which steps.
    now: Timestamp,
    id: BatchId,
    rows: u32,
    daemons: Vec<Daemon>,
    /// The ids of those that live.
    living: BTreeSet<DaemonId>,
    leases: BTreeMap<LeaseId, Known>,
    /// What each merged blob was made of.
    sources: BTreeMap<BlobId, Vec<FilePart>>,
    /// The parts of the output and the error file as they were recorded, in the order in which they were first seen.
    seen: [Vec<FilePart>; 2],
    /// The rows whose outcomes the storage said it has, and whether each completed: the ledger as it must be.
    recorded: BTreeMap<u32, bool>,
    /// The rows that got their line because they never ran.
    never_ran: BTreeSet<u32>,
    /// The batch as it was when it ended.
    end: Option<Batch>,
    /// Flushes that the ledger refused because they contradict it.
    violations: u32,
}

impl<'a> Case<'a> {
    pub async fn new(storage: &'a TestStorage, seed: u64, recorder: Recorder) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut lanes = vec![random.random_range(1..=7)];
        if random.random_bool(0.5) {
            lanes.push(random.random_range(1..=7));
        }
        let id = storage.running(&lanes).await?.id;
        Ok(Self {
            storage,
            random,
            recorder,
            now: after(2),
            id,
            rows: lanes.iter().sum(),
            daemons: (0..3).map(|_| Daemon::new()).collect(),
            living: BTreeSet::new(),
            leases: BTreeMap::new(),
            sources: BTreeMap::new(),
            seen: [Vec::new(), Vec::new()],
            recorded: BTreeMap::new(),
            never_ran: BTreeSet::new(),
            end: None,
            violations: 0,
        })
    }

    /// Runs the batch to its end, and returns how often the ledger refused a contradiction.
    pub async fn run(mut self) -> Result<u32> {
        let mut steps = 0;
        while self.end.is_none() {
            self.step().await?;
            self.check().await?;
            steps += 1;
            assert!(steps < 10_000, "the batch does not come to its end");
        }
        // Those who have not heard that it has ended change nothing any more.
        for _ in 0..10 {
            self.step().await?;
            self.check().await?;
        }
        self.check_files().await?;
        // Their leases are gone with the batch; they must not live on into the next case.
        for daemon in &self.daemons {
            assert_eq!(self.storage.beat(daemon.id, Duration::ZERO).await?.leases, []);
            self.storage.leave(daemon.id).await?;
        }
        Ok(self.violations)
    }

    async fn step(&mut self) -> Result<()> {
        let who = self.random.random_range(0..self.daemons.len());
        let event = Event::any(&mut self.random);
        if self.daemons[who].crashed {
            return self.restart(who).await;
        }
        match event {
            Event::Look => self.look(who).await,
            Event::Claim => self.claim(who).await,
            Event::TakeOver => self.take_over(who).await,
            Event::Beat => self.beat(who).await,
            Event::Stall => self.let_die(who).await,
            Event::CallEnds => {
                self.call_ends(who);
                Ok(())
            }
            Event::Record => self.record(who).await,
            Event::RecordAgain => self.record_again(who).await,
            Event::GiveBack => self.give_back(who).await,
            Event::GiveBackAgain => self.give_back_again(who).await,
            Event::Reclaim => self.reclaim(who).await,
            Event::TakeOverOwn => self.take_over_own(who).await,
            Event::Crash => {
                self.daemons[who].crashed = true;
                Ok(())
            }
            Event::Leave => self.leave(who).await,
            Event::TryInQuarantine => self.try_in_quarantine(who).await,
            Event::Merge => self.merge(who).await,
            Event::Cancel => self.storage.cancel_batch(&OWNER, self.id, self.now).await.map(drop),
            Event::WindowCloses => self.storage.expire_batches(after(0).plus(WINDOW), 10).await.map(drop),
            Event::ClockSteps => {
                let by = Duration::from_secs(self.random.random_range(1..=7200));
                self.now = if self.random.random_bool(0.5) { self.now.plus(by) } else { self.now.minus(by) };
                Ok(())
            }
            Event::Finish => self.finish().await,
        }
    }

    /// Nothing of a crashed daemon is left but its leases, until its time has run out.
    async fn restart(&mut self, who: usize) -> Result<()> {
        self.let_die(who).await?;
        self.daemons[who] = Daemon::new();
        self.beat(who).await
    }

    async fn let_die(&mut self, who: usize) -> Result<()> {
        self.living.remove(&self.daemons[who].id);
        self.storage.let_die(self.daemons[who].id).await
    }

    /// A daemon says that it works no more; another starts in its place, or its last calls and flushes come late.
    async fn leave(&mut self, who: usize) -> Result<()> {
        self.storage.leave(self.daemons[who].id).await?;
        self.living.remove(&self.daemons[who].id);
        if self.random.random_bool(0.5) {
            self.daemons[who] = Daemon::new();
            self.beat(who).await?;
        }
        Ok(())
    }

    async fn look(&mut self, who: usize) -> Result<()> {
        let lanes = self.storage.open_lanes(10, 10).await?;
        if !lanes.is_empty() {
            let no = self.random.random_range(0..lanes.len());
            self.daemons[who].lane = Some(lanes[no].clone());
        }
        Ok(())
    }

    async fn claim(&mut self, who: usize) -> Result<()> {
        let daemon = &mut self.daemons[who];
        let Some(lane) = daemon.lane.take() else { return Ok(()) };
        let rows = self.random.random_range(1..=5).min(lane.waiting());
        if let Some(lease) = self.storage.claim(&lane, rows, daemon.id).await? {
            let known = Known { token: lease.token, owed: rows, given_back: false, deaths: 0, tries: 0 };
            self.leases.insert(lease.id, known);
            daemon.held.insert(lease.hold(), (lease.clone(), (lease.first..lease.last).collect()));
        }
        Ok(())
    }

    async fn take_over(&mut self, who: usize) -> Result<()> {
        let lapsed = self.storage.lapsed_for(self.daemons[who].id, 10).await?;
        if lapsed.is_empty() {
            return Ok(());
        }
        let lapsed = lapsed[self.random.random_range(0..lapsed.len())];
        self.take(who, lapsed).await
    }

    async fn take(&mut self, who: usize, lapsed: LeaseHold) -> Result<()> {
        let daemon = &mut self.daemons[who];
        let lease = self.storage.take_over(lapsed, daemon.id).await?.expect("nobody else does anything meanwhile");
        let recorded = self.storage.recorded_rows(self.id).await?;
        let owed: BTreeSet<u32> = (lease.first..lease.last).filter(|row| !recorded.contains(*row)).collect();
        assert!(!owed.is_empty(), "a lease goes with its last row");
        assert_eq!(lease.owed as usize, owed.len());
        let known = self.leases.get_mut(&lease.id).expect("only what was claimed is a lease");
        known.token += 1;
        known.deaths += u32::from(!known.given_back);
        known.given_back = false;
        assert_eq!((lease.token, lease.deaths), (known.token, known.deaths));
        daemon.held.insert(lease.hold(), (lease, owed));
        Ok(())
    }

    /// A daemon asks for a lease that is its own, whether it is held dead or not: it runs it already.
    async fn take_over_own(&mut self, who: usize) -> Result<()> {
        let daemon = &self.daemons[who];
        let lapsed = self.storage.lapsed_for(daemon.id, 10).await?;
        for lease in self.current(who) {
            assert!(!lapsed.contains(&lease), "a daemon's own lease has not lapsed for itself");
            assert_eq!(self.storage.take_over(lease, daemon.id).await?, None);
        }
        Ok(())
    }

    /// A lease is given back, its holder does not learn of it and goes on running it, and the same daemon takes the
    /// lease again: two runs of one lease, in one process.
    async fn reclaim(&mut self, who: usize) -> Result<()> {
        let Some(lease) = self.current(who).pop() else { return Ok(()) };
        self.hand_back(lease).await?;
        if self.storage.now(self.id).await?.status == BatchStatus::InProgress {
            self.take(who, lease).await?;
        }
        Ok(())
    }

    /// The leases that are a daemon's in the database, of those that it runs.
    fn current(&self, who: usize) -> Vec<LeaseHold> {
        let is_current = |lease: &&LeaseHold| {
            self.leases.get(&lease.id).is_some_and(|known| known.token == lease.token && !known.given_back)
        };
        self.daemons[who].held.keys().filter(is_current).copied().collect()
    }

    /// Learns which leases are its own, drops the others, and gives back those of a batch that does not run.
    async fn beat(&mut self, who: usize) -> Result<()> {
        let daemon = &mut self.daemons[who];
        let Beat { leases: mine, daemons } = self.storage.beat(daemon.id, Duration::from_hours(1)).await?;
        self.living.insert(daemon.id);
        assert!(daemons.iter().map(|pulse| pulse.id).eq(self.living.iter().copied()));
        daemon.held.retain(|lease, _| mine.iter().any(|held| held.lease == *lease));
        for held in mine.into_iter().filter(|held| held.order != LeaseOrder::Run) {
            // One it knows nothing of was claimed or taken over by nobody else.
            let (lease, _) =
                self.daemons[who].held.remove(&held.lease).expect("it holds what the database says it holds");
            self.hand_back(lease.hold()).await?;
        }
        Ok(())
    }

    async fn hand_back(&mut self, lease: LeaseHold) -> Result<()> {
        if let Some(known) = self.leases.get_mut(&lease.id).filter(|known| known.token == lease.token) {
            known.given_back = true;
            known.tries = 0;
        }
        self.storage.give_back(lease).await
    }

    /// A row of a lease is about to run in quarantine, if the lease is still its holder's.
    async fn try_in_quarantine(&mut self, who: usize) -> Result<()> {
        let held = &self.daemons[who].held;
        if held.is_empty() {
            return Ok(());
        }
        let no = self.random.random_range(0..held.len());
        let (lease, _) = held.values().nth(no).expect("it was counted");
        let known = self.leases.get_mut(&lease.id).filter(|known| known.token == lease.token);
        let expected = known.map(|known| {
            known.tries += 1;
            known.tries
        });
        assert_eq!(self.storage.try_in_quarantine(lease.hold()).await?, expected);
        Ok(())
    }

    fn call_ends(&mut self, who: usize) {
        let daemon = &mut self.daemons[who];
        if daemon.held.is_empty() {
            return;
        }
        let no = self.random.random_range(0..daemon.held.len());
        let (lease, owed) = daemon.held.values_mut().nth(no).expect("it was counted");
        if !owed.is_empty() {
            let no = self.random.random_range(0..owed.len());
            let row = *owed.iter().nth(no).expect("it was counted");
            owed.remove(&row);
            let completed = self.random.random_bool(0.7);
            daemon.ended.push(Ended { lease: lease.hold(), row, completed });
        }
    }

    /// Records all that has ended, without the rows of leases that turn out to be lost, or that contradict the ledger.
    async fn record(&mut self, who: usize) -> Result<()> {
        let mut ended = std::mem::take(&mut self.daemons[who].ended);
        while !ended.is_empty() {
            let flush = self.recorder.flush(self.id, &ended);
            match self.storage.record(&flush, self.now).await? {
                Recorded::Applied => {
                    self.note_recorded(who, flush, &ended);
                    return Ok(());
                }
                Recorded::LostLeases(lost) => self.leave_out(who, &mut ended, &lost).await?,
                Recorded::Violations(violations) => {
                    self.violations += 1;
                    let leases: Vec<_> = violations.into_iter().flat_map(|violation| violation.leases).collect();
                    self.leave_out(who, &mut ended, &leases).await?;
                }
            }
        }
        Ok(())
    }

    /// Notes outcomes that are recorded. Now and then the daemon does not learn of it, or crashes.
    fn note_recorded(&mut self, who: usize, flush: Flush, ended: &[Ended]) {
        for row in ended {
            let known = self.recorded.insert(row.row, row.completed);
            assert_eq!(known, None, "row {} was recorded twice", row.row);
        }
        self.pay_off(&flush);
        let daemon = &mut self.daemons[who];
        match self.random.random_range(0..10) {
            0..3 => daemon.unanswered = Some(flush),
            3 => daemon.crashed = true,
            _ => {}
        }
    }

    /// Drops outcomes that are not recorded. Their runs are over, and what is still the daemon's is given back.
    async fn leave_out(&mut self, who: usize, ended: &mut Vec<Ended>, leases: &[LeaseHold]) -> Result<()> {
        assert!(!leases.is_empty());
        let before = ended.len();
        match self.recorder {
            Recorder::KeysByToken => ended.retain(|row| !leases.contains(&row.lease)),
            Recorder::ConfusesTokens => ended.retain(|row| leases.iter().all(|lease| lease.id != row.lease.id)),
        }
        assert!(ended.len() < before, "only leases that were named can be at fault");
        for lease in leases {
            self.daemons[who].held.remove(lease);
            self.hand_back(*lease).await?;
        }
        Ok(())
    }

    fn pay_off(&mut self, flush: &Flush) {
        for (lease, rows) in &flush.batches[&self.id].leases {
            let known = self.leases.get_mut(&lease.id).expect("rows of a lease that is gone are not recorded");
            assert_eq!(known.token, lease.token, "rows of an old holder are not recorded");
            known.owed -= u32::try_from(rows.len()).expect("few rows");
            known.deaths = if known.tries > 0 { known.deaths } else { 0 };
            known.tries = 0;
        }
        self.leases.retain(|_, known| known.owed > 0);
    }

    /// A commit whose answer was lost is repeated, whatever has become of the leases and the batch meanwhile.
    async fn record_again(&mut self, who: usize) -> Result<()> {
        if let Some(flush) = self.daemons[who].unanswered.take() {
            assert_eq!(self.storage.record(&flush, self.now).await?, Recorded::Applied);
        }
        Ok(())
    }

    /// Gives a lease back, maybe with outcomes under it that are not recorded.
    async fn give_back(&mut self, who: usize) -> Result<()> {
        if let Some((lease, _)) = self.daemons[who].held.pop_first() {
            self.hand_back(lease).await?;
            self.daemons[who].given_back = Some(lease);
        }
        Ok(())
    }

    /// Gives a lease back again because the first answer was lost, whoever has the lease meanwhile.
    async fn give_back_again(&mut self, who: usize) -> Result<()> {
        match self.daemons[who].given_back.take() {
            Some(lease) => self.hand_back(lease).await,
            None => Ok(()),
        }
    }
}
