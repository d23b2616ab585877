//! How many keys are claimed together: fewer after a doubt, more again while all goes well.
//!
//! A batch that takes longer than its deadline is in doubt as a whole, and is sent again once the deadline has
//! passed. Where the service or the machine is too slow for full batches, that would go on for ever and hardly
//! anything would be paid. So the size is halved after a doubt and grows by a tenth of the most after every full
//! batch that was paid (additive increase, multiplicative decrease, as TCP does it: RFC 5681).

use std::sync::{Mutex, PoisonError};

/// The share of the most that a paid batch adds.
const STEPS_TO_FULL: usize = 10;

/// The present size, shared by the workers of an applier.
#[derive(Debug)]
pub(super) struct BatchSize {
    now: Mutex<Size>,
}

/// How a batch ended; the worse is the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Batch {
    /// Every entry was answered.
    Answered {
        /// How many keys it had.
        keys: usize,
    },
    /// Some entry was not answered in time, or came too late.
    Late {
        /// How many keys it had.
        keys: usize,
    },
}

/// The size as plain data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Size {
    keys: usize,
    most: usize,
}

impl BatchSize {
    /// Begins with the most.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            now: Mutex::new(Size { keys: most, most }),
        }
    }

    /// Keys to claim together.
    pub(super) fn get(&self) -> usize {
        self.lock().keys
    }

    /// Learns from a batch.
    pub(super) fn learn(&self, batch: Batch) {
        let mut now = self.lock();
        let next = now.after(batch);
        if next.keys < now.keys {
            tracing::warn!(keys = next.keys, "payments were late: smaller batches");
        }
        *now = next;
    }

    /// Plain numbers, good to use after a panic elsewhere.
    fn lock(&self) -> std::sync::MutexGuard<'_, Size> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Size {
    fn after(self, batch: Batch) -> Self {
        let keys = match batch {
            // Batches that were larger than the present size were claimed before it shrank: several workers may
            // be late for one and the same reason.
            Batch::Late { keys } if keys > self.keys => self.keys,
            Batch::Late { keys } => keys.div_ceil(2),
            // A smaller batch says nothing about a larger one.
            Batch::Answered { keys } if keys < self.keys => self.keys,
            Batch::Answered { .. } => self.keys + self.most.div_ceil(STEPS_TO_FULL),
        };
        Self {
            keys: keys.clamp(1, self.most),
            most: self.most,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Size = Size {
        keys: 100,
        most: 100,
    };

    #[test]
    fn a_late_batch_halves_the_size_and_one_that_was_claimed_before_that_does_not_again() {
        let late = Batch::Late { keys: 100 };
        let halved = FULL.after(late);
        assert_eq!(halved.keys, 50);
        assert_eq!(halved.after(late).keys, 50);
        assert_eq!(halved.after(Batch::Late { keys: 50 }).keys, 25);
    }

    #[test]
    fn full_batches_that_are_answered_make_it_grow_to_the_most_again() {
        let mut size = Size { keys: 1, most: 100 };
        for _ in 0..STEPS_TO_FULL {
            size = size.after(Batch::Answered { keys: size.keys });
        }
        assert_eq!(size.keys, 100);
        assert_eq!(size.after(Batch::Answered { keys: 100 }).keys, 100);
    }

    #[test]
    fn a_batch_that_was_not_full_says_nothing() {
        let size = Size {
            keys: 20,
            most: 100,
        };
        assert_eq!(size.after(Batch::Answered { keys: 3 }), size);
    }

    proptest! {
        #[test]
        fn it_is_never_none_and_never_more_than_the_most(
            most in 1_usize..500, batches in prop::collection::vec((any::<bool>(), 0_usize..600), 0..50)
        ) {
            let mut size = Size { keys: most, most };
            for (late, keys) in batches {
                size = size.after(if late { Batch::Late { keys } } else { Batch::Answered { keys } });
                prop_assert!((1..=most).contains(&size.keys));
            }
        }
    }
}
