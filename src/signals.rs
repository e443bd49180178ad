//! Signals that ask a command to end, so that whatever it holds is given back in order, or to look again.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and mostly SIGHUP, caught from the moment this is made.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

/// Starts to catch them.
pub(crate) fn stop() -> std::io::Result<Stop> {
    Ok(Stop {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hangup: Some(signal(SignalKind::hangup())?),
    })
}

/// Starts to catch SIGHUP by itself, which asks a daemon with a configuration file to read it anew.
pub(crate) fn reload() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// The same without SIGHUP.
pub(crate) fn stop_but_hangup() -> std::io::Result<Stop> {
    Ok(Stop {
        hangup: None,
        ..stop()?
    })
}

impl Stop {
    /// Waits for the next one; its name.
    pub(crate) async fn signal(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = hangup => "SIGHUP",
        }
    }
}
