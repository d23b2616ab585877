//! The guard as the rest of the program holds it: whoever measures reports here, whoever shows reads here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Decision, Electorate, Guard, Remedy, Sample, Settings, Situation, Verdict};
use crate::clock::boottime;
use crate::contract::Epoch;

/// One guard, shared.
#[derive(Debug)]
pub struct GuardHandle {
    guard: Mutex<Guard>,
    /// The epoch and the time of the last decision, on the boot clock.
    decided: Mutex<Option<(Epoch, Duration)>>,
    /// As last evaluated, for those who only look.
    verdicts: ArcSwap<Vec<Verdict>>,
    calls: AtomicU64,
    pairs: AtomicU64,
}

/// How much was measured since the start: whoever sends probes reads from it whether they are needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Calls of storage.
    pub calls: u64,
    /// Calls that went to both.
    pub pairs: u64,
}

impl Default for GuardHandle {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl GuardHandle {
    /// With empty windows.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            guard: Mutex::new(Guard::new(settings)),
            decided: Mutex::default(),
            verdicts: ArcSwap::default(),
            calls: AtomicU64::new(0),
            pairs: AtomicU64::new(0),
        }
    }

    /// Counts what has just ended. A probe is a sample like any other, but no reason to send fewer of them.
    pub fn record(&self, sample: Sample, probe: bool) {
        match sample {
            _ if probe => 0,
            Sample::Call { .. } => self.calls.fetch_add(1, Ordering::Relaxed),
            Sample::Pair { .. } => self.pairs.fetch_add(1, Ordering::Relaxed),
            Sample::Compared | Sample::Diverged => 0,
        };
        // The time is read under the lock, so that it never goes back.
        let mut guard = self.lock();
        guard.record(sample, boottime());
    }

    /// Every trigger's verdict as of now; also kept for those who only look.
    pub fn evaluate(&self, situation: &Situation) -> Arc<Vec<Verdict>> {
        let verdicts = {
            let mut guard = self.lock();
            Arc::new(guard.evaluate(situation, boottime()))
        };
        self.verdicts.store(Arc::clone(&verdicts));
        verdicts
    }

    /// The verdicts as last evaluated; none before the first time.
    #[must_use]
    pub fn verdicts(&self) -> Arc<Vec<Verdict>> {
        self.verdicts.load_full()
    }

    /// See [`Guard::decide`].
    pub fn decide(
        &self,
        verdicts: &[Verdict],
        situation: &Situation,
        electorate: &Electorate,
    ) -> Option<Decision> {
        let (stood, decision) = {
            let mut guard = self.lock();
            let stood = guard.decision().is_some();
            (stood, guard.decide(verdicts, situation, electorate))
        };
        if let Some(decision) = decision.as_ref().filter(|_| !stood) {
            *self.decided() = Some((decision.epoch, boottime()));
        }
        decision
    }

    /// When the last decision was made, on the boot clock, and under which epoch; it may be void since.
    #[must_use]
    pub fn last_decided(&self) -> Option<(Epoch, Duration)> {
        *self.decided()
    }

    /// The decision that stands, if any.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        self.lock().decision().cloned()
    }

    /// Drops a decision that was refused.
    pub fn withdraw(&self) {
        self.lock().withdraw();
    }

    /// See [`Guard::called_for`].
    #[must_use]
    pub fn called_for(&self, verdict: &Verdict, situation: &Situation) -> Option<Remedy> {
        self.lock().called_for(verdict, situation)
    }

    /// What the triggers are told.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.lock().settings().clone()
    }

    /// Tells them something else.
    pub fn set_settings(&self, settings: Settings) {
        self.lock().set_settings(settings);
    }

    /// Whether calls of storage are failing at this moment.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.lock().is_failing(boottime())
    }

    /// How much was measured since the start.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            calls: self.calls.load(Ordering::Relaxed),
            pairs: self.pairs.load(Ordering::Relaxed),
        }
    }

    fn decided(&self) -> MutexGuard<'_, Option<(Epoch, Duration)>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic while holding the lock leaves counts behind that are still good to read.
    fn lock(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
