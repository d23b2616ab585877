//! A future that its caller polls, and that goes on by itself when its caller goes away.
//!
//! A write must come to its end whatever becomes of the client: a transaction dropped half-way would stay
//! open on its pooled connection. A task of its own for each write would do, but waking another thread for
//! it, and being woken back, costs a write more than all of this module.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Runs in its caller's task; when dropped unfinished, in a task of its own among `tasks`.
pub(super) struct Detach<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    tasks: TaskTracker,
}

/// The work panicked.
#[derive(Debug)]
pub(super) struct Panicked;

impl<T: Send + 'static> Detach<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static, tasks: &TaskTracker) -> Self {
        Self {
            work: Some(work.boxed()),
            tasks: tasks.clone(),
        }
    }
}

impl<T: Send + 'static> Future for Detach<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Gone while it is polled, so that work that panicked is not polled again.
        let Some(mut work) = self.work.take() else {
            return Poll::Ready(Err(Panicked));
        };
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.poll_unpin(cx))) {
            Ok(Poll::Pending) => {
                self.work = Some(work);
                Poll::Pending
            }
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

impl<T: Send + 'static> Drop for Detach<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and what it leaves half-done the database rolls back.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            self.tasks.spawn_on(work.map(drop), &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_whose_caller_went_away_is_finished() {
        let tasks = TaskTracker::new();
        let (go, gone) = oneshot::channel::<()>();
        let (finished, finish) = oneshot::channel();
        let work = async move {
            gone.await.ok();
            finished.send(()).ok();
        };
        let detached = Detach::new(work, &tasks);
        assert!(
            tokio::time::timeout(Duration::from_millis(1), detached)
                .await
                .is_err(),
            "it waits"
        );
        tasks.close();
        go.send(()).unwrap();
        tasks.wait().await;
        finish.await.unwrap();
    }

    #[tokio::test]
    async fn finished_work_leaves_no_task_and_a_panic_is_an_answer() {
        let tasks = TaskTracker::new();
        assert_eq!(Detach::new(async { 7 }, &tasks).await.unwrap(), 7);
        let panics = Detach::new(async { panic!("a bug") }, &tasks);
        assert!(panics.await.is_err());
        assert!(tasks.is_empty());
    }
}
