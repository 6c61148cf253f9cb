//! A hint that there is something to do: a new batch, a cancelled one, rows recorded.
//!
//! Only a hint: every loop looks by itself now and then, so a lost one costs time and nothing else.

use tokio::sync::watch;

/// Wakes every loop of the daemons in this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Wakeup(watch::Sender<()>);

impl Wakeup {
    /// A wake-up that nobody listens to yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two wake-ups are two different things")]
    pub fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    /// Says that there is something to do.
    pub fn wake(&self) {
        self.0.send_replace(());
    }

    /// Listens from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}
