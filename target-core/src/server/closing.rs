//! Closing a unit that is not served any more: its last commands are waited for, then it is flushed and let go.

use std::time::Duration;

use crate::lun::MediumError;
use crate::scsi::Removal;

/// How often to look whether the last command is out, in milliseconds.
const POLL_MS: u64 = 5;

/// Why a unit is not closed.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Commands are still at the medium. It will be flushed and closed when they are done, if they ever are.
    #[error("the medium is still busy: it is closed when its last command is done")]
    Busy,
    /// It is closed, but its last writes may not be on stable storage.
    #[error("writes may be lost: {0}")]
    Flush(#[from] MediumError),
}

/// Waits, but not for longer than `within`, until the unit is flushed and its medium closed; then its file can be used
/// by others. What is not done in that time goes on by itself.
///
/// # Errors
/// The medium is busy for too long, or the flush has failed.
pub async fn close(removal: Removal, within: Duration) -> Result<(), CloseError> {
    let finished = tokio::spawn(finish(removal));
    match tokio::time::timeout(within, finished).await {
        Ok(Ok(result)) => result,
        // The runtime is going down.
        Ok(Err(_)) | Err(_) => Err(CloseError::Busy),
    }
}

async fn finish(mut removal: Removal) -> Result<(), CloseError> {
    while !removal.is_drained() {
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
    let flushing = tokio::task::spawn_blocking(move || {
        let flushed = removal.flush();
        (removal, flushed)
    });
    let Ok((removal, flushed)) = flushing.await else {
        return Err(CloseError::Busy);
    };
    if let Err(error) = &flushed {
        tracing::error!(%error, "a LUN that was taken out of service is not flushed: writes may be lost");
    }
    while !removal.is_closed() {
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
    Ok(flushed?)
}
