//! `cutover storage`: the reference storage service as a process of its own.

use tokio_util::sync::CancellationToken;

use super::{AppError, wait_for_signal};
use crate::reference::{self, Options};

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// See [`AppError`].
pub async fn run_storage_service(options: Options) -> Result<(), AppError> {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        stop.cancel();
    });
    Ok(reference::run(options, shutdown).await?)
}
