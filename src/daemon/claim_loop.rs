//! Keeping the daemon supplied: leases taken over or claimed, about as many rows of each lane as start within a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::duty::{Duty, Turn};
use super::{lease_run, scheduler};
use crate::domain::lease::Lease;
use crate::processor::RequestProcessor;
use crate::storage::{Result, Storage};
use crate::telemetry::chain;
use crate::upstream::{HttpClient, Session};

/// How often to look for work that nobody announced: lanes of other replicas' batches, and leases of dead daemons.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lanes looked at for one claim, by deadline, and how many of them may be of one model.
const LANES: u32 = 1024;
const LANES_OF_A_MODEL: u32 = 16;
/// Lapsed leases looked at together.
const LAPSED: u32 = 256;

/// Claims until the daemon stops.
pub(super) async fn run<S, H, P>(context: Arc<Context<S, H, P>>, mut duty: Duty)
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>> + 'static,
{
    let mut looked_for_lapsed = None;
    loop {
        let ready = async {
            if context.limiter.limit() == 0 {
                std::future::pending::<()>().await;
            }
            context.lifeline.until_it_holds().await;
        };
        tokio::select! {
            biased;
            () = duty.stop().cancelled() => return,
            () = ready => {}
            // Nothing is wrong with a loop that waits.
            () = tokio::time::sleep(LOOK_EVERY) => {
                duty.report(Ok(()));
                continue;
            }
        }
        let look_for_lapsed = looked_for_lapsed.is_none_or(|at: Instant| at.elapsed() >= LOOK_EVERY);
        if look_for_lapsed {
            looked_for_lapsed = Some(Instant::now());
        }
        let claimed = claim_once(&context, look_for_lapsed).await;
        let found = matches!(claimed, Ok(true));
        duty.report(claimed.map(drop).map_err(Into::into) as Turn);
        if found {
            // There may be more to claim.
            continue;
        }
        // Nothing to claim, enough of everything, or an error: wait for a change or the timer.
        tokio::select! {
            goes_on = duty.wait() => if !goes_on {
                return;
            },
            () = context.backlogs.until_short() => {}
        }
    }
}

/// Takes over lapsed leases, or claims one, and starts what it has. False if there was none to be had, or none is wanted.
async fn claim_once<S, H, P>(context: &Arc<Context<S, H, P>>, look_for_lapsed: bool) -> Result<bool>
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>> + 'static,
{
    if look_for_lapsed {
        for lapsed in context.storage.lapsed_leases(context.id, LANES_OF_A_MODEL, LAPSED).await? {
            // What is too much for this daemon is left to others.
            let survey = context.backlogs.survey(context.limiter.limit());
            if !survey.takes_over(lapsed.batch_id, &lapsed.model) {
                continue;
            }
            match context.storage.take_over(lapsed.lease, context.id).await {
                Ok(Some(lease)) => {
                    let (lease_id, batch_id, token) = (lease.id, lease.batch_id, lease.token);
                    tracing::info!(%lease_id, %batch_id, token, "lease taken over");
                    start(context, lease);
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
    let lanes = context.storage.open_lanes(LANES_OF_A_MODEL, LANES).await?;
    let survey = context.backlogs.survey(context.limiter.limit());
    let Some((lane, rows)) = scheduler::pick(&lanes, &survey) else { return Ok(false) };
    // `None`: somebody else moved the cursor. Looking again finds where it is.
    if let Some(lease) = context.storage.claim(lane, rows, context.id).await? {
        start(context, lease);
    }
    Ok(true)
}

fn start<S, H, P>(context: &Arc<Context<S, H, P>>, lease: Lease)
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>> + 'static,
{
    // A child: the daemon's abort halts every lease.
    let halt = context.stops.abort.child_token();
    context.held.take(lease.fenced(), halt.clone());
    let backlog = context.backlogs.add(lease.batch_id, &lease.model, (lease.last - lease.first) as usize);
    context.leases.spawn(lease_run::run(context.clone(), lease, halt, backlog));
}
