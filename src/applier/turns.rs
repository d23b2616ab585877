//! Whose turn it is to look for what is owed.
//!
//! One worker at a time waits for debts, claims and pays them. What is owed while it pays is paid together by the next:
//! a trickle needs few requests, one after another, and leaves the machine to the callers. The next worker's
//! turn comes before the first has finished where that would hold debts up: the claim was full, so that there may be more
//! than one request carries, or the work takes longer than [`PATIENCE`].

use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;

use super::Round;

/// How long the next worker waits for the one at work.
const PATIENCE: Duration = Duration::from_millis(20);
/// From being woken to looking: the caller's answer goes out first, and writes that come together are paid
/// together.
const LINGER: Duration = Duration::from_millis(1);

/// The turns of an applier's workers.
#[derive(Debug)]
pub(super) struct Turns {
    turn: Mutex<()>,
    /// When somebody tended last; held by who does.
    tended: Mutex<Option<Instant>>,
    /// Until the next look that nobody asks for.
    rest: std::sync::Mutex<Duration>,
    /// How often to look without being woken.
    poll: Duration,
    /// The longest rest while the secondary is unavailable.
    rest_max: Duration,
}

/// One worker's turn, until it is dropped or passed on.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    held: Option<MutexGuard<'a, ()>>,
    /// How long it was waited for at most.
    rested: Duration,
}

/// As long as it lives, nobody else tends.
#[derive(Debug)]
pub(super) struct Tending<'a> {
    _held: MutexGuard<'a, Option<Instant>>,
}

impl Turns {
    /// For this many workers, each of which would rest for `backoff_max` at most.
    pub(super) fn new(workers: usize, poll: Duration, backoff_max: Duration) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        Self {
            turn: Mutex::default(),
            tended: Mutex::default(),
            rest: std::sync::Mutex::new(poll),
            poll,
            rest_max: (backoff_max / workers).max(poll),
        }
    }

    /// Waits for a turn, and then until something is owed or it is time to look.
    pub(super) async fn next(&self, owed: &Notify) -> Turn<'_> {
        let held = Some(self.turn.lock().await);
        let rested = *self.rest();
        tokio::select! {
            // While the secondary is away nobody is hurried.
            () = owed.notified(), if rested <= self.poll => tokio::time::sleep(LINGER).await,
            () = tokio::time::sleep(jittered(rested)) => {}
        }
        Turn {
            turns: self,
            held,
            rested,
        }
    }

    /// A plain number, good to use after a panic elsewhere.
    fn rest(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Turn<'a> {
    /// Lets the next worker look while this one is at work.
    pub(super) fn pass_on(&mut self) {
        self.held = None;
    }

    /// Works, and passes the turn on when that takes long.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(PATIENCE, work.as_mut()).await {
            return done;
        }
        self.pass_on();
        work.await
    }

    /// For what nobody wakes the applier for: one worker at a time looks after it, and as often as is polled.
    pub(super) fn tend(&self) -> Option<Tending<'a>> {
        let mut last = self.turns.tended.try_lock().ok()?;
        let now = Instant::now();
        if last.is_some_and(|last| now - last < self.turns.poll) {
            return None;
        }
        *last = Some(now);
        Some(Tending { _held: last })
    }

    /// Ends the turn; what it found says how long to rest. Workers that were at work at once and found the secondary
    /// away prolong the rest once.
    pub(super) fn end(self, found: Round, owed: &Notify) {
        let mut rest = self.turns.rest();
        *rest = match found {
            Round::Paid | Round::Idle => self.turns.poll,
            Round::Unavailable => (self.rested * 2).min(self.turns.rest_max).max(*rest),
        };
        drop(rest);
        if found == Round::Paid {
            // Others of the same keys may have waited for these.
            owed.notify_one();
        }
    }
}

/// Replicas that wait for the same thing should not all come back at once.
fn jittered(wait: Duration) -> Duration {
    let noise = uuid::Uuid::new_v4().as_u128() % 1000;
    wait.mul_f64(0.5 + (noise as f64) / 1000.0)
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    /// So rare that whoever looks was woken.
    const RARELY: Duration = Duration::from_secs(3600);
    const MOMENT: Duration = Duration::from_millis(20);

    fn turns(poll: Duration) -> (Turns, Notify) {
        (Turns::new(2, poll, poll * 16), Notify::new())
    }

    /// A turn that somebody was at work in before.
    fn at_work(turns: &Turns) -> Turn<'_> {
        let rested = *turns.rest();
        Turn {
            turns,
            held: None,
            rested,
        }
    }

    #[tokio::test]
    async fn what_is_owed_while_one_is_at_work_is_for_the_turn_after_it() {
        let (turns, owed) = turns(RARELY);
        owed.notify_one();
        let first = turns.next(&owed).await;
        owed.notify_one();
        let mut second = pin!(turns.next(&owed));
        for _ in 0..3 {
            assert!(poll!(second.as_mut()).is_pending(), "the first is at work");
            tokio::time::sleep(MOMENT).await;
        }
        first.end(Round::Idle, &owed);
        second.await.end(Round::Paid, &owed);
        // What was paid may have held others up.
        turns.next(&owed).await;
    }

    #[tokio::test]
    async fn work_that_takes_long_keeps_nobody_waiting() {
        let (turns, owed) = turns(RARELY);
        let others = Notify::new();
        owed.notify_one();
        let mut first = turns.next(&owed).await;
        owed.notify_one();
        let second = async {
            turns.next(&owed).await;
            others.notify_one();
        };
        tokio::join!(first.during(others.notified()), second);
    }

    #[tokio::test]
    async fn a_turn_that_is_passed_on_is_the_next_ones_at_once() {
        let (turns, owed) = turns(RARELY);
        owed.notify_one();
        let mut first = turns.next(&owed).await;
        first.pass_on();
        owed.notify_one();
        turns.next(&owed).await;
        first.end(Round::Idle, &owed);
    }

    #[tokio::test]
    async fn nobody_is_hurried_while_the_secondary_is_away() {
        let (turns, owed) = turns(RARELY);
        at_work(&turns).end(Round::Unavailable, &owed);
        owed.notify_one();
        let mut next = pin!(turns.next(&owed));
        assert!(poll!(next.as_mut()).is_pending());
        tokio::time::sleep(MOMENT).await;
        assert!(poll!(next.as_mut()).is_pending());
        assert!(poll!(pin!(owed.notified())).is_ready(), "nobody was woken");
    }

    #[test]
    fn rests_grow_once_for_those_who_found_the_secondary_away_together() {
        let (turns, owed) = turns(MOMENT);
        let mut rests = Vec::new();
        for _ in 0..6 {
            let together = [at_work(&turns), at_work(&turns), at_work(&turns)];
            for turn in together {
                turn.end(Round::Unavailable, &owed);
            }
            rests.push(*turns.rest());
        }
        // Two workers would each rest for sixteen moments at most.
        assert_eq!(rests, [2, 4, 8, 8, 8, 8].map(|moments| MOMENT * moments));
        at_work(&turns).end(Round::Idle, &owed);
        assert_eq!(*turns.rest(), MOMENT);
    }

    #[tokio::test]
    async fn one_at_a_time_tends_and_not_more_often_than_is_polled() {
        let (often, _) = turns(Duration::ZERO);
        let tending = at_work(&often).tend();
        assert!(tending.is_some());
        assert!(at_work(&often).tend().is_none(), "another one does");
        drop(tending);
        assert!(at_work(&often).tend().is_some());
        let (rarely, _) = turns(RARELY);
        assert!(at_work(&rarely).tend().is_some());
        assert!(at_work(&rarely).tend().is_none(), "it was done just now");
    }
}
