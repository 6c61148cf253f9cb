//! Keeping the daemon supplied: leases taken over or claimed, about as many rows of each lane as start within a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Supply, lease_run, scheduler};
use crate::daemon::timer::{TickResult, Timer};
use crate::domain::lease::Lease;
use crate::storage::{Result, Storage};
use crate::telemetry::chain;

/// How often to look for work that nobody announced: lanes of other replicas' batches, and leases of dead daemons.
pub(in crate::daemon) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lanes looked at for one claim, by deadline, and how many of them may be of one model.
const LANES: u32 = 1024;
const LANES_OF_A_MODEL: u32 = 16;
/// Lapsed leases looked at together.
const LAPSED: u32 = 256;

/// Claims until the daemon stops.
pub(in crate::daemon) async fn claim<S: Storage>(supply: Arc<Supply<S>>, mut timer: Timer) {
    let stopping = timer.stop().clone();
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
            // Nothing is wrong with a loop that waits for its share of the calls, or for the database.
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

/// Takes over lapsed leases, or claims one, and starts what it has. False if there was none to be had, or none is wanted.
async fn claim_once<S: Storage>(supply: &Arc<Supply<S>>, look_for_lapsed: bool) -> Result<bool> {
    let (storage, me) = (&supply.shared.storage, supply.shared.id);
    if look_for_lapsed {
        for lapsed in storage.lapsed_leases(me, LANES_OF_A_MODEL, LAPSED).await? {
            // What is too much for this daemon is left to others.
            let survey = supply.backlogs.survey(supply.shared.registry.limit());
            if !survey.takes_over(lapsed.batch_id, &lapsed.model) {
                continue;
            }
            match storage.take_over(lapsed.lease, me).await {
                Ok(Some(lease)) => {
                    let (lease_id, batch_id, token) = (lease.id, lease.batch_id, lease.token);
                    tracing::info!(%lease_id, %batch_id, token, "lease taken over");
                    start(supply, lease);
                }
                Ok(None) => {}
                // One that cannot be read keeps no other. As a lease that nobody runs it is given back.
                Err(error) if !error.is_outage() => {
                    tracing::error!(lease_id = %lapsed.lease.id, error = chain(&error), "a lease could not be taken over");
                }
                Err(error) => return Err(error),
            }
        }
    }
    let lanes = storage.open_lanes(LANES_OF_A_MODEL, LANES).await?;
    let survey = supply.backlogs.survey(supply.shared.registry.limit());
    let Some((lane, rows)) = scheduler::pick(&lanes, &survey) else { return Ok(false) };
    // `None`: somebody else moved the cursor. Looking again finds where it is.
    if let Some(lease) = storage.claim(lane, rows, me).await? {
        start(supply, lease);
    }
    Ok(true)
}

fn start<S: Storage>(supply: &Arc<Supply<S>>, lease: Lease) {
    // A child: the daemon's abort halts every lease.
    let halt = supply.shared.shutdown.abort.child_token();
    supply.held.take(lease.hold(), halt.clone());
    let backlog = supply.backlogs.add(lease.batch_id, &lease.model, (lease.last - lease.first) as usize);
    supply.runs.spawn(lease_run::run(supply.clone(), lease, halt, backlog));
}
