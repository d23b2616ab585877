//! Polls a future that wakes itself again in the same place.
//!
//! hyper hands a request's body over in a channel whose two ends are the same task: taking the body wakes the connection that is being polled. The
//! runtime takes that for a task that yields: it puts the task at the end of its queue and wakes another thread to help, which takes the
//! connection over to another core while the request waits for its database. A wake during a poll is answered here by another poll, so the task stays where it
//! is, and no thread is woken for nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// How often a future is polled in a row before the runtime has its turn.
const POLLS_MAX: usize = 4;

/// Nobody has woken the future since it was pending.
const ASLEEP: u8 = 0;
/// The future is being polled.
const POLLED: u8 = 1;
/// Woken, and not polled since.
const AWAKE: u8 = 2;

/// A future whose wakes during its own poll do not reach the runtime.
pub(super) struct InPlace<F> {
    future: F,
    alarm: Arc<Alarm>,
    waker: Waker,
}

struct Alarm {
    state: AtomicU8,
    task: AtomicWaker,
}

impl<F: Future + Unpin> InPlace<F> {
    pub(super) fn new(future: F) -> Self {
        let alarm = Arc::new(Alarm {
            state: AtomicU8::new(ASLEEP),
            task: AtomicWaker::new(),
        });
        Self {
            future,
            waker: Waker::from(Arc::clone(&alarm)),
            alarm,
        }
    }

    /// The future itself.
    pub(super) fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for InPlace<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Before the first poll: whoever finds the future asleep from here on wakes this task.
        this.alarm.task.register(task.waker());
        for _ in 0..POLLS_MAX {
            this.alarm.state.swap(POLLED, Ordering::AcqRel);
            let polled = Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker));
            if polled.is_ready() || this.alarm.fell_asleep() {
                return polled;
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Alarm {
    /// Ends a poll; false when it was woken meanwhile.
    fn fell_asleep(&self) -> bool {
        self.state
            .compare_exchange(POLLED, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often the runtime is asked to poll.
    #[derive(Default)]
    struct Runtime {
        wakes: AtomicUsize,
    }

    impl Wake for Runtime {
        fn wake(self: Arc<Self>) {
            self.wakes.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Runtime {
        fn wakes(&self) -> usize {
            self.wakes.load(Ordering::SeqCst)
        }
    }

    /// Polls once; the runtime's count and how the poll ended.
    fn poll<F: Future + Unpin>(future: &mut F) -> (usize, Poll<F::Output>) {
        let runtime = Arc::new(Runtime::default());
        let waker = Waker::from(Arc::clone(&runtime));
        let polled = Pin::new(future).poll(&mut Context::from_waker(&waker));
        (runtime.wakes(), polled)
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again_without_the_runtime() {
        let mut polls = 0;
        let mut future = InPlace::new(poll_fn(|task| {
            polls += 1;
            if polls == 1 {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(polls)
        }));
        assert_eq!(poll(&mut future), (0, Poll::Ready(2)));
    }

    #[test]
    fn a_future_that_never_rests_lets_the_runtime_have_its_turn() {
        let mut polls = 0;
        let mut future = InPlace::new(poll_fn(|task| {
            polls += 1;
            task.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert_eq!(poll(&mut future), (1, Poll::Pending));
        drop(future);
        assert_eq!(polls, POLLS_MAX);
    }

    #[test]
    fn a_wake_between_two_polls_reaches_the_runtime_once() {
        let mut known: Option<Waker> = None;
        let runtime = Arc::new(Runtime::default());
        let waker = Waker::from(Arc::clone(&runtime));
        let mut future = InPlace::new(poll_fn(|task| {
            known = Some(task.waker().clone());
            Poll::<()>::Pending
        }));
        let polled = Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop(future);
        let known = known.expect("it was polled");
        known.wake_by_ref();
        known.wake();
        assert_eq!(runtime.wakes(), 1);
    }
}
