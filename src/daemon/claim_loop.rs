//! Keeping the daemon supplied: leases taken over or claimed, about as many rows as start within a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::duty::{Duty, Turn};
use super::{lease_run, scheduler};
use crate::domain::lease::Lease;
use crate::processor::RequestProcessor;
use crate::storage::{Result, Storage};
use crate::upstream::HttpClient;

/// How often to look for work that nobody announced: lanes of other replicas' batches, and leases of dead daemons.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lanes looked at for one claim. Which of more there are is decided by deadline.
const LANES: u32 = 256;
/// No lease is larger: what a crash makes others wait for is bounded.
const MAX_LEASE: usize = 10_000;

/// Claims until the daemon stops.
pub(super) async fn run<S, H, P>(context: Arc<Context<S, H, P>>, mut duty: Duty)
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H> + 'static,
{
    let mut pace = Pace::new();
    let mut looked_for_lapsed = None;
    loop {
        let rows = pace.rows_a_second(context.held.begun(), context.limit.now());
        let ready = async {
            context.held.until_fewer_wait_than(rows / 2 + 1).await;
            context.limit.until_above(0).await;
            context.lifeline.until_it_holds().await;
        };
        tokio::select! {
            biased;
            () = duty.stop().cancelled() => return,
            () = ready => {}
            // Nothing is wrong with a loop that waits for room.
            () = tokio::time::sleep(LOOK_EVERY) => {
                duty.report(Ok(()));
                continue;
            }
        }
        let look_for_lapsed = looked_for_lapsed.is_none_or(|at: Instant| at.elapsed() >= LOOK_EVERY);
        if look_for_lapsed {
            looked_for_lapsed = Some(Instant::now());
        }
        let claimed = claim_once(&context, rows, look_for_lapsed).await;
        let found = matches!(claimed, Ok(true));
        duty.report(claimed.map(drop).map_err(Into::into) as Turn);
        // Nothing to claim, or an error: wait for a change or the timer. More to claim: look again at once.
        if !found && !duty.wait().await {
            return;
        }
    }
}

/// Takes over or claims one lease and starts it. False if there was none to be had.
async fn claim_once<S, H, P>(context: &Arc<Context<S, H, P>>, rows: usize, look_for_lapsed: bool) -> Result<bool>
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H> + 'static,
{
    if look_for_lapsed {
        for lapsed in context.storage.lapsed_leases(context.id, LANES).await? {
            if let Some(lease) = context.storage.take_over(lapsed, context.id).await? {
                tracing::info!(lease_id = %lease.id, batch_id = %lease.batch_id, token = lease.token, "lease taken over");
                start(context, lease);
            }
        }
    }
    let lanes = context.storage.open_lanes(LANES).await?;
    let Some(lane) = scheduler::pick(&lanes, &context.held.rows_by_batch()) else { return Ok(false) };
    let rows = u32::try_from(rows.min(MAX_LEASE)).expect("bounded").min(lane.waiting());
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
    P: RequestProcessor<S, H> + 'static,
{
    // A child: the daemon's abort halts every lease.
    let halt = context.stops.abort.child_token();
    context.held.take(&lease, halt.clone());
    context.leases.spawn(lease_run::run(context.clone(), lease, halt));
}

/// How many rows start in a second, at least as many as may run at once.
struct Pace {
    rows_a_second: f64,
    measured: (Instant, usize),
}

impl Pace {
    fn new() -> Self {
        Self { rows_a_second: 0.0, measured: (Instant::now(), 0) }
    }

    fn rows_a_second(&mut self, begun: usize, limit: usize) -> usize {
        const WINDOW: Duration = Duration::from_millis(100);
        let (since, before) = self.measured;
        let elapsed = since.elapsed();
        if elapsed >= WINDOW {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let measured = (begun - before) as f64 / elapsed.as_secs_f64();
            self.rows_a_second = self.rows_a_second.midpoint(measured);
            self.measured = (Instant::now(), begun);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, and not negative")]
        let pace = self.rows_a_second as usize;
        pace.max(limit.max(1) * 4)
    }
}
