//! The claim loop: takes over lapsed leases and claims ranges of lanes, about as many rows of each lane as begin within
//! a second.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{Supply, lease_run, scheduler};
use crate::daemon::core::{DaemonCore, Shutdown};
use crate::daemon::leases::RunTokens;
use crate::daemon::timer::{TickResult, Timer};
use crate::domain::lease::{Lease, OpenLane};
use crate::storage::{Result, Storage};
use crate::telemetry::{Liveness, chain};
use crate::upstream::Registry;

/// How often the loop looks for work of which no wakeup tells: lanes of other replicas' batches, and leases of dead
/// daemons.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lanes read for one claim.
const LANES: u32 = 1024;
/// How many of the lanes may be of one model and owner: so many whose windows close first, and so many of the smallest.
/// And how many of the lapsed leases may be of one model.
const LANES_OF_A_MODEL: u32 = 16;
/// Lapsed leases read together.
const LAPSED: u32 = 256;

/// Claims until the daemon stops.
pub(in crate::daemon) async fn claim<S: Storage>(supply: Arc<Supply<S>>, liveness: Liveness) {
    let DaemonCore { wakeup, shutdown: Shutdown { stopping, .. }, .. } = &*supply.shared;
    let mut timer = Timer::new("claim", LOOK_EVERY, wakeup, stopping, &liveness);
    let mut looked_for_lapsed = None;
    loop {
        let ready = async {
            if supply.shared.registry.limit() == 0 {
                std::future::pending::<()>().await;
            }
            supply.validity.wait_until_valid().await;
        };
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = ready => {}
            // A loop that waits for its share of the calls, or for the database, is well.
            _ = timer.wait() => {
                timer.report(Ok(()));
                continue;
            }
        }
        let look_for_lapsed = looked_for_lapsed.is_none_or(|at: Instant| at.elapsed() >= LOOK_EVERY);
        if look_for_lapsed {
            looked_for_lapsed = Some(Instant::now());
        }
        let claimed = claim_once(&supply, look_for_lapsed).await;
        let found = matches!(claimed, Ok(true));
        timer.report(claimed.map(drop).map_err(Into::into) as TickResult);
        if found {
            // There may be more to claim.
            continue;
        }
        // Nothing to claim, enough of everything, or an error: wait for a change or the timer.
        tokio::select! {
            goes_on = timer.wait() => if !goes_on {
                return;
            },
            () = supply.backlogs.until_short() => {}
        }
    }
}

/// Claims a range of a lane and starts its lease, after it has taken over lapsed leases if it is to look for them.
/// False if no lane has rows, or if this daemon wants none.
async fn claim_once<S: Storage>(supply: &Arc<Supply<S>>, look_for_lapsed: bool) -> Result<bool> {
    if look_for_lapsed {
        take_over_lapsed(supply).await?;
    }
    let (storage, me) = (&supply.shared.storage, supply.shared.id);
    let mut lanes = storage.open_lanes(LANES_OF_A_MODEL, LANES).await?;
    leave_unserved(&supply.shared.registry, &mut lanes);
    let survey = supply.backlogs.survey(supply.shared.registry.limit());
    look_at_windows(supply, &lanes);
    let Some((lane, rows)) = scheduler::pick(&lanes, &survey) else { return Ok(false) };
    // `None`: another daemon has claimed of the lane meanwhile. The next look finds how far.
    if let Some(lease) = storage.claim(lane, rows, me).await? {
        start(supply, lease);
    }
    Ok(true)
}

/// Has the queue know which windows are at risk. Other daemons take part in the work, at about this one's rate.
fn look_at_windows<S>(supply: &Supply<S>, lanes: &[OpenLane]) {
    let mut unclaimed = HashMap::<_, Vec<_>>::new();
    for lane in lanes {
        unclaimed.entry(lane.model.clone()).or_default().push((lane.expires_at, u64::from(lane.waiting())));
    }
    supply.queue.look_at_windows(&unclaimed, supply.shared.living_daemons.load(Relaxed));
}

/// Leaves the lanes of models that no server has, for another daemon or until one has them.
fn leave_unserved(registry: &Registry, lanes: &mut Vec<OpenLane>) {
    let mut unserved = BTreeSet::new();
    lanes.retain(|lane| {
        let is_served = registry.serves(&lane.model);
        if !is_served {
            unserved.insert(Arc::from(&*lane.model));
        }
        is_served
    });
    registry.note_unserved(unserved);
}

async fn take_over_lapsed<S: Storage>(supply: &Arc<Supply<S>>) -> Result<()> {
    let (storage, me) = (&supply.shared.storage, supply.shared.id);
    for lapsed in storage.lapsed_leases(me, LANES_OF_A_MODEL, LAPSED).await? {
        let survey = supply.backlogs.survey(supply.shared.registry.limit());
        let is_wanted = survey.takes_over(lapsed.batch_id, &lapsed.model);
        if !is_wanted || !supply.shared.registry.serves(&lapsed.model) {
            continue;
        }
        match storage.take_over(lapsed.lease, me).await {
            Ok(Some(lease)) => {
                let (lease_id, batch_id, token) = (lease.id, lease.batch_id, lease.token);
                tracing::info!(%lease_id, %batch_id, token, "lease taken over");
                start(supply, lease);
            }
            Ok(None) => {}
            // The others are still taken over. If the database has this one as taken, the heartbeat gives it back.
            Err(error) if !error.is_outage() => {
                let lease_id = lapsed.lease.id;
                tracing::error!(%lease_id, error = chain(&error), "a lease could not be taken over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn start<S: Storage>(supply: &Arc<Supply<S>>, lease: Lease) {
    // Child tokens: when the daemon stops, every lease is drained, and when it aborts, every lease is halted.
    let Shutdown { stopping, abort, .. } = &supply.shared.shutdown;
    let tokens = RunTokens { halt: abort.child_token(), drain: stopping.child_token() };
    supply.held.take(lease.hold(), tokens.clone());
    let backlog = supply.backlogs.add(lease.batch_id, &lease.model, (lease.last - lease.first) as usize);
    supply.runs.spawn(lease_run::run(supply.clone(), lease, tokens, backlog));
}
