//! The signals that stop the program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves on SIGTERM or Ctrl-C, and on SIGHUP if that is asked for.
pub(super) async fn requested(on_hangup: bool) {
    let hangup = if on_hangup { listen(SignalKind::hangup()) } else { None };
    let (Some(mut terminate), Some(mut interrupt)) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    let hung_up = async {
        match hangup {
            Some(mut hangup) => drop(hangup.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = hung_up => {}
    }
}

pub(super) fn listen(kind: SignalKind) -> Option<Signal> {
    let listening = signal(kind);
    if let Err(error) = &listening {
        tracing::warn!(%error, "signals cannot be listened for; only SIGKILL stops this process");
    }
    listening.ok()
}
