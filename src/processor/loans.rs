//! Calls that rows lend to others while they make none.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// Calls that rows lend to others while they make none: whoever waits for tools keeps no upstream idle.
///
/// A row that is run has one of the calls that may be under way at once. It lends that call while it waits for tools,
/// and takes one back before it goes on.
#[derive(Debug)]
pub struct Loans {
    /// Calls that nobody makes.
    free: Semaphore,
    /// Calls that were taken back from those who still make them, and are not lent again.
    owed: AtomicUsize,
}

impl Default for Loans {
    fn default() -> Self {
        Self { free: Semaphore::new(0), owed: AtomicUsize::new(0) }
    }
}

impl Loans {
    /// Lends a call to whoever takes it.
    pub fn lend(&self) {
        let pay = |owed: usize| owed.checked_sub(1);
        if self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_err() {
            self.free.add_permits(1);
        }
    }

    /// Takes a call, once there is one. First come, first served.
    pub async fn take(&self) {
        self.free.acquire().await.expect("the semaphore is never closed").forget();
    }

    /// Lends a call while something else is waited for.
    pub async fn while_lent<T>(&self, work: impl Future<Output = T>) -> T {
        /// Whoever gives up the wait does not wait for the call as well.
        struct Back<'a>(Option<&'a Loans>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                if let Some(loans) = self.0 {
                    loans.take_back();
                }
            }
        }
        self.lend();
        let mut back = Back(Some(self));
        let result = work.await;
        self.take().await;
        back.0 = None;
        result
    }

    /// Takes a call at once. If there is none, one that is made now is not lent again when it ends.
    pub fn take_back(&self) {
        if self.free.forget_permits(1) == 0 {
            self.owed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn is_free(loans: &Loans) -> bool {
        loans.take().now_or_never().is_some()
    }

    #[test]
    fn what_is_lent_is_taken_once_and_first_by_who_waits_longest() {
        let loans = Loans::default();
        let mut waiting = Box::pin(loans.take());
        assert!(waiting.as_mut().now_or_never().is_none());

        loans.lend();
        assert!(!is_free(&loans), "it is for who waits");
        assert!(waiting.now_or_never().is_some());
        assert!(!is_free(&loans));
    }

    #[test]
    fn a_call_is_lent_for_as_long_as_something_else_is_waited_for() {
        let loans = Loans::default();
        let (done, until_done) = tokio::sync::oneshot::channel::<()>();
        let mut waiting = Box::pin(loans.while_lent(until_done));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(is_free(&loans), "another takes it");

        done.send(()).expect("it is waited for");
        assert!(waiting.as_mut().now_or_never().is_none(), "it waits for its call");
        loans.lend();
        assert!(waiting.now_or_never().is_some());

        {
            let mut given_up = Box::pin(loans.while_lent(std::future::pending::<()>()));
            assert!(given_up.as_mut().now_or_never().is_none());
        }
        assert!(!is_free(&loans), "whoever gives up the wait has its call back");
    }

    #[test]
    fn what_is_taken_back_from_who_still_has_it_is_not_lent_again() {
        let loans = Loans::default();
        loans.lend();
        assert!(is_free(&loans));

        loans.take_back();
        loans.lend();
        assert!(!is_free(&loans), "that was the one taken back");

        loans.lend();
        loans.take_back();
        assert!(!is_free(&loans));
    }
}
