//! A spawned task and its owner.
//!
//! A task ends when its owner says so or is dropped; only the first can wait for it.

use std::sync::Mutex;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The owner of one spawned task.
#[derive(Debug)]
pub(super) struct Task {
    stop: CancellationToken,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Task {
    /// Spawns what `run` makes of the token that will tell it to stop.
    pub(super) fn spawn<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let handle = tokio::spawn(run(stop.clone()));
        Self {
            stop,
            handle: Mutex::new(Some(handle)),
        }
    }

    /// Tells the task to stop and waits until it has.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let handle = match self.handle.lock() {
            Ok(mut handle) => handle.take(),
            Err(_) => None,
        };
        if let Some(handle) = handle
            && let Err(error) = handle.await
            && error.is_panic()
        {
            tracing::error!("a task of the message hub panicked");
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
