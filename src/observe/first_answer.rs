//! When legacy first answered a caller under the newest epoch: how long a change of authority took, as
//! callers see it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::lock;
use crate::clock::boottime;
use crate::contract::Epoch;

/// The first answer under the newest epoch that had one.
#[derive(Debug, Default)]
pub(super) struct FirstAnswer {
    /// So that all answers but the first cost one load.
    epoch: AtomicI64,
    first: Mutex<Option<(Epoch, Duration)>>,
}

impl FirstAnswer {
    /// Legacy answered a caller under this epoch.
    pub(super) fn note(&self, epoch: Epoch) {
        if epoch.0 <= self.epoch.load(Ordering::Relaxed) {
            return;
        }
        let mut first = lock(&self.first);
        if first.is_none_or(|(known, _)| known < epoch) {
            *first = Some((epoch, boottime()));
            self.epoch.store(epoch.0, Ordering::Relaxed);
        }
    }

    /// It, on the boot clock.
    pub(super) fn get(&self) -> Option<(Epoch, Duration)> {
        *lock(&self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_answer_of_the_newest_epoch_counts() {
        let answers = FirstAnswer::default();
        assert_eq!(answers.get(), None);
        answers.note(Epoch(3));
        let first = answers.get();
        answers.note(Epoch(3));
        answers.note(Epoch(2));
        assert_eq!(answers.get(), first);
        answers.note(Epoch(4));
        assert_eq!(answers.get().unwrap().0, Epoch(4));
    }
}
