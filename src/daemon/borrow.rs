//! Running further rows while others wait for their tools.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::attempt;
use super::context::Context;
use crate::processor::RequestProcessor;
use crate::storage::Storage;
use crate::upstream::HttpClient;

/// Rows on borrowed calls, for each call that may run: what bounds their memory.
const ROWS_PER_CALL: usize = 4;

/// Takes rows and runs each on a call that another row has lent, until the queue is closed.
pub(super) async fn rows_on_borrowed_calls<S, H, P>(context: Arc<Context<S, H, P>>, rows: TaskTracker)
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H> + 'static,
{
    let places = Arc::new(Semaphore::new(context.settings.max_concurrency * ROWS_PER_CALL));
    loop {
        let a_place_and_a_call = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            context.loans.take().await;
            place
        };
        let place = tokio::select! {
            () = context.stops.ended.cancelled() => return,
            place = a_place_and_a_call => place,
        };
        let Some(open) = context.queue.next_for_nobody_else() else {
            // Others may wait for the call, so it is not kept until there is a row.
            context.loans.lend();
            tokio::select! {
                () = context.stops.ended.cancelled() => return,
                () = context.queue.until_more() => continue,
            }
        };
        let context = context.clone();
        rows.spawn(async move {
            let _place = place;
            attempt::run_to_its_end(&context, open).await;
            context.loans.lend();
        });
    }
}
