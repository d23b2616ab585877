//! What happened, told once: the repository, the comparer and the applier report here; metrics and status
//! read here, and the guard hears of it.
//!
//! Counters go to Prometheus; what `status` shows of the last minute (latencies per backend, their delta,
//! error rates) is kept in bounded windows.

mod callers;
mod first_answer;
mod tallies;
mod window;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::contract::Epoch;
use crate::evidence::Tally;
use crate::guard::{GuardHandle, Sample};
use crate::journal::{Claimed, Owed};
use crate::sql::Fault;
use crate::stage::{Backend, Stage};
use crate::storage::StorageError;
use crate::telemetry::{
    Comparison, DivergenceKind, ErrorKind, JournalGauges, Metrics, Op, Payment, Shed,
};

use callers::Callers;
pub use callers::{CallKind, CallerLatency};
use first_answer::FirstAnswer;
use tallies::Tallies;
pub use window::{Summary, Window};

/// Where everybody reports.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    windows: Mutex<Windows>,
    callers: Mutex<Callers>,
    tallies: Mutex<Tallies>,
    comparisons: [AtomicI64; 7],
    /// Calls of storage that failed since the last that did not.
    storage_failures: AtomicI64,
    owed: Mutex<Measured>,
    guard: Arc<GuardHandle>,
    first_answer: FirstAnswer,
}

#[derive(Debug, Default)]
struct Windows {
    legacy: Window,
    storage: Window,
    delta: Window,
}

/// The journal as last measured, and how fast it grows.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    owed: Owed,
    at: Option<Instant>,
    full_in: Option<Duration>,
}

/// What the last minute looked like, for `status`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    /// Calls of legacy.
    pub legacy: Summary,
    /// Calls of storage.
    pub storage: Summary,
    /// Storage minus legacy on paired calls.
    pub delta: Summary,
}

impl Observer {
    /// Reports to these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            windows: Mutex::default(),
            callers: Mutex::default(),
            tallies: Mutex::default(),
            comparisons: Default::default(),
            storage_failures: AtomicI64::new(0),
            owed: Mutex::default(),
            guard: Arc::default(),
            first_answer: FirstAnswer::default(),
        }
    }

    /// The guard, which hears of everything that happens to storage.
    #[must_use]
    pub fn guard(&self) -> &Arc<GuardHandle> {
        &self.guard
    }

    /// The metrics, for those who report to them directly.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A call of legacy ended.
    pub fn legacy(&self, op: Op, took: Duration, fault: Option<&Fault>) {
        self.metrics.backend_took(Backend::Legacy, op, took);
        // A refusal is an answer: the backend works.
        let kind = fault.and_then(fault_kind);
        if let Some(kind) = kind {
            self.metrics.backend_failed(Backend::Legacy, op, kind);
        }
        let failed = kind.is_some_and(|kind| kind != ErrorKind::Rejected);
        self.windows().legacy.record(took, failed, Instant::now());
    }

    /// A call of storage ended.
    pub fn storage(&self, op: Op, took: Duration, error: Option<&StorageError>) {
        self.metrics.backend_took(Backend::Storage, op, took);
        let kind = error.map(|error| match error {
            StorageError::Rejected(_) => ErrorKind::Rejected,
            StorageError::Unavailable(_) => ErrorKind::Unavailable,
            StorageError::InDoubt(_) => ErrorKind::InDoubt,
        });
        if let Some(kind) = kind {
            self.metrics.backend_failed(Backend::Storage, op, kind);
        }
        let failed = kind.is_some_and(|kind| kind != ErrorKind::Rejected);
        self.windows().storage.record(took, failed, Instant::now());
        self.guard
            .record(Sample::Call { took, failed }, op == Op::Probe);
        if failed {
            self.storage_failures.fetch_add(1, Ordering::Relaxed);
        } else {
            self.storage_failures.store(0, Ordering::Relaxed);
        }
    }

    /// Both backends ran the same call.
    pub fn paired(&self, op: Op, legacy: Duration, storage: Duration) {
        self.metrics.paired(op, legacy, storage);
        self.guard
            .record(Sample::Pair { legacy, storage }, op == Op::Probe);
        let delta = storage.as_secs_f64() - legacy.as_secs_f64();
        self.windows()
            .delta
            .record_seconds(delta, false, Instant::now());
    }

    /// A comparison ended.
    pub fn compared(&self, table: &str, op: Op, result: Comparison) {
        if result == Comparison::Shed {
            self.metrics.shed(Shed::ShadowRead);
        }
        self.metrics.compared(table, op, result);
        match result {
            Comparison::Match
            | Comparison::Transient
            | Comparison::Confirmed
            | Comparison::Ignored => self.guard.record(Sample::Compared, false),
            Comparison::OneSidedError | Comparison::Unsampled | Comparison::Shed => {}
        }
        if let Some(index) = Comparison::ALL.iter().position(|known| *known == result) {
            self.comparisons[index].fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.tallies).count(table, op, result);
    }

    /// Comparisons that are not on record yet; whoever takes them writes them down or gives them back.
    #[must_use]
    pub fn take_tallies(&self) -> Vec<Tally> {
        lock(&self.tallies).take()
    }

    /// Takes back comparisons that could not be written down.
    pub fn give_tally_back(&self, tally: &Tally) {
        lock(&self.tallies).give_back(tally);
    }

    /// A caller was answered, well, after so long.
    pub fn answered(&self, kind: CallKind, stage: Stage, took: Duration) {
        lock(&self.callers).answered(kind, stage, took, Instant::now());
    }

    /// Legacy gave a caller its answer under this epoch.
    pub fn legacy_answered(&self, epoch: Epoch) {
        self.first_answer.note(epoch);
    }

    /// When legacy first answered a caller under the newest epoch under which it answered any, on the boot clock.
    #[must_use]
    pub fn first_answer_of_legacy(&self) -> Option<(Epoch, Duration)> {
        self.first_answer.get()
    }

    /// What callers of one kind waited lately.
    #[must_use]
    pub fn caller_latency(&self, kind: CallKind) -> CallerLatency {
        lock(&self.callers).latency(kind, Instant::now())
    }

    /// A difference was confirmed; one that an operator has explained is no news to the guard.
    pub fn diverged(&self, table: &str, kind: DivergenceKind, explained: bool) {
        self.metrics.diverged(table, kind);
        if !explained {
            self.guard.record(Sample::Diverged, false);
        }
    }

    /// Entries were found that writers past the proxy appended.
    pub fn bypassed(&self, table: &str, count: usize) {
        if count > 0 {
            self.metrics.bypassed(table, count as u64);
        }
    }

    /// An entry's payment ended; a paid one also tells how long its write waited.
    pub fn paid(&self, to: Backend, entry: &Claimed, result: Payment) {
        self.metrics.paid(to, result);
        if result == Payment::Applied {
            let lag_us = crate::clock::unix_us().saturating_sub(entry.created_us);
            self.metrics
                .payment_lag(Duration::from_micros(u64::try_from(lag_us).unwrap_or(0)));
        }
    }

    /// The journal was measured; it is full at `entries_max`.
    pub fn owed(&self, owed: &Owed, entries_max: i64) {
        let mut measured = lock(&self.owed);
        let now = Instant::now();
        let full_in = measured.at.and_then(|at| {
            let grown = owed.to_storage - measured.owed.to_storage;
            let rate = grown as f64 / now.duration_since(at).as_secs_f64().max(0.001);
            let room = (entries_max - owed.to_storage).max(0) as f64;
            (grown > 0).then(|| Duration::from_secs_f64((room / rate).min(1e9)))
        });
        *measured = Measured {
            owed: *owed,
            at: Some(now),
            full_in,
        };
        drop(measured);
        let whole = |number: i64| u64::try_from(number).unwrap_or(0);
        self.metrics.journal(&JournalGauges {
            owed_to_storage: whole(owed.to_storage),
            owed_to_legacy: whole(owed.to_legacy),
            oldest: Duration::from_micros(whole(owed.oldest_us)),
            in_doubt: whole(owed.in_doubt),
            quarantined: whole(owed.quarantined),
            full_in,
        });
    }

    /// What was owed when the journal was last measured, and when it will be full at this rate.
    #[must_use]
    pub fn last_owed(&self) -> (Owed, Option<Duration>) {
        let measured = lock(&self.owed);
        (measured.owed, measured.full_in)
    }

    /// The last minute.
    #[must_use]
    pub fn recent(&self) -> Recent {
        let now = Instant::now();
        let mut windows = self.windows();
        Recent {
            legacy: windows.legacy.summary(now),
            storage: windows.storage.summary(now),
            delta: windows.delta.summary(now),
        }
    }

    /// Comparisons by result since start, in the order of `Comparison::ALL`.
    #[must_use]
    pub fn comparisons(&self) -> [i64; 7] {
        std::array::from_fn(|index| self.comparisons[index].load(Ordering::Relaxed))
    }

    /// Whether storage answered lately: fewer than five calls in a row have failed.
    #[must_use]
    pub fn storage_answers(&self) -> bool {
        self.storage_failures.load(Ordering::Relaxed) < 5
    }

    fn windows(&self) -> std::sync::MutexGuard<'_, Windows> {
        lock(&self.windows)
    }
}

/// A panic while holding these locks leaves plain numbers behind, which are still good to read.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn fault_kind(fault: &Fault) -> Option<ErrorKind> {
    match fault {
        // The gate's refusal is the protocol at work.
        Fault::Refused(crate::sql::Refusal::StaleEpoch) => None,
        // So is the word that a statement was written for other tables.
        Fault::Refused(_) | Fault::OtherSchema(_) => Some(ErrorKind::Rejected),
        Fault::Unavailable(_) => Some(ErrorKind::Unavailable),
        Fault::TimedOut => Some(ErrorKind::TimedOut),
        Fault::InDoubt(_) => Some(ErrorKind::InDoubt),
        Fault::Unexpected(_) => Some(ErrorKind::Unexpected),
    }
}
