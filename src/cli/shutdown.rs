//! The signals that stop the program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves on SIGTERM or Ctrl-C.
pub(super) async fn requested() {
    let (Some(mut terminate), Some(mut interrupt)) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

pub(super) fn listen(kind: SignalKind) -> Option<Signal> {
    let listening = signal(kind);
    if let Err(error) = &listening {
        tracing::warn!(%error, "signals cannot be listened for; only SIGKILL stops this process");
    }
    listening.ok()
}
