//! One replica's hold on the control state: what it knows, until when it may rely on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::clock::boottime;
use crate::contract::Epoch;
use crate::sql::{Db, Fault};

use super::audit::{self, ActionRecord, TransitionRecord};
use super::chain::{self, ChainReport};
use super::ddl;
use super::holder::GateHolder;
use super::maintenance::Maintenance;
use super::options::ControlOptions;
use super::recovery::Seen;
use super::replica::{self, Replica, Skew};
use super::safety::Owed;
use super::snapshot::Snapshot;
use super::state::{Phase, State};
use super::task;
use crate::stage::Stage;

/// The control state of one replica. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Control {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) db: Db,
    pub(super) options: ControlOptions,
    /// What requests are admitted under.
    pub(super) held: ArcSwap<Held>,
    pub(super) news: watch::Sender<Arc<Snapshot>>,
    /// One beat at a time, so that an older answer never overtakes a newer one.
    pub(super) pulse: Mutex<Pulse>,
    /// One look at the laggards at a time.
    pub(super) confirming: Mutex<()>,
    /// While the database is out of reach: when a read may ask it again, in microseconds of the boot clock; 0
    /// otherwise.
    pub(super) ask_again_us: AtomicI64,
    /// No replica serves under an epoch older than this.
    pub(super) confirmed: AtomicI64,
    /// Writes to storage whose debt to legacy is not in the journal yet.
    pub(super) debts: AtomicU64,
    /// Such a debt was dropped, and legacy is not marked stale yet.
    pub(super) debt_dropped: AtomicBool,
    /// The triggers of the guard that fired here, as the other replicas are told.
    pub(super) votes: ArcSwap<String>,
    /// What callers waited here lately, likewise.
    pub(super) callers: ArcSwap<String>,
    /// The expected outages, as they were last read.
    pub(super) maintenance: ArcSwap<Vec<Maintenance>>,
    /// Who holds the gate that a change of this replica waits for; nobody while none waits.
    pub(super) gate_held_by: ArcSwap<Vec<GateHolder>>,
    /// The tables that storage is yet to be filled with, as they were last read.
    pub(super) pending_tables: ArcSwap<BTreeSet<String>>,
    /// How long writers were held up by each transition this replica made, until somebody asks.
    pub(super) pauses: std::sync::Mutex<Vec<Duration>>,
}

/// A snapshot, and until when it may be relied on without asking.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) snapshot: Arc<Snapshot>,
    /// On the boot clock, counted from before the beat was sent.
    pub(super) lease_until: Duration,
}

/// What only the beating heart needs.
#[derive(Debug)]
pub(super) struct Pulse {
    /// The stage this replica is told to believe.
    pub(super) pin: Option<Stage>,
    /// The last row that was read.
    pub(super) state: Option<State>,
    /// The highest epoch ever seen (P16).
    pub(super) seen: Epoch,
    /// What was known before history was lost, from when that was noticed until it is recovered from.
    pub(super) before_loss: Option<Seen>,
    /// The epoch this replica's row acknowledges.
    pub(super) acknowledged: Epoch,
    /// When the last successful beat was sent, on the boot clock.
    pub(super) sent_at: Duration,
    /// The database's clock at the last beat.
    pub(super) now_us: i64,
    pub(super) skew: Skew,
}

impl Control {
    /// Takes part in the control state of `db`, which [`install`](super::install) has created. A pinned replica
    /// starts even when the database is out of reach.
    ///
    /// # Errors
    /// The database is out of reach, is not installed, or asks for a newer program.
    pub async fn open(db: Db, options: ControlOptions) -> Result<Self, Fault> {
        let pin = options.pin;
        let first = Arc::new(Snapshot::pinned_blind(pin.unwrap_or(Stage::Off)));
        let control = Self {
            inner: Arc::new(Inner {
                db,
                options,
                held: ArcSwap::from_pointee(Held {
                    snapshot: Arc::clone(&first),
                    lease_until: Duration::ZERO,
                }),
                news: watch::Sender::new(first),
                pulse: Mutex::new(Pulse {
                    pin,
                    state: None,
                    seen: Epoch(0),
                    before_loss: None,
                    acknowledged: Epoch(0),
                    sent_at: Duration::ZERO,
                    now_us: 0,
                    skew: Skew::default(),
                }),
                confirming: Mutex::new(()),
                ask_again_us: AtomicI64::new(0),
                confirmed: AtomicI64::new(0),
                debts: AtomicU64::new(0),
                debt_dropped: AtomicBool::new(false),
                votes: ArcSwap::default(),
                callers: ArcSwap::default(),
                maintenance: ArcSwap::default(),
                gate_held_by: ArcSwap::default(),
                pending_tables: ArcSwap::default(),
                pauses: std::sync::Mutex::default(),
            }),
        };
        match control.refresh().await {
            Ok(()) => control.settle_in().await?,
            Err(fault) if pin.is_some() => {
                tracing::error!(%fault, "pinned, and the control state is out of reach");
            }
            Err(fault) => return Err(fault),
        }
        Ok(control)
    }

    /// What a new replica leaves on record: its pin, and what its configuration says about bypassing writers.
    async fn settle_in(&self) -> Result<(), Fault> {
        if let Some(pin) = self.inner.options.pin {
            self.record_pin(Some(pin), &self.inner.options.replica_id)
                .await?;
        }
        self.agree_on_bypass().await
    }

    /// The snapshot in memory, with or without a lease: for status, metrics and background work.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner.held.load().snapshot)
    }

    /// Every new snapshot as it is installed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.news.subscribe()
    }

    /// Who holds the gate that a change of this replica waits for right now.
    #[must_use]
    pub fn gate_held_by(&self) -> Arc<Vec<GateHolder>> {
        self.inner.gate_held_by.load_full()
    }

    /// The pauses of the transitions that this replica made since the last time it was asked.
    #[must_use]
    pub fn take_pauses(&self) -> Vec<Duration> {
        let mut pauses = self
            .inner
            .pauses
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *pauses)
    }

    /// How this replica takes part.
    #[must_use]
    pub fn options(&self) -> &ControlOptions {
        &self.inner.options
    }

    /// The legacy database, where the state lives.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.inner.db
    }

    /// How far the database's clock is from ours, as of the last beat.
    pub async fn skew(&self) -> Skew {
        self.inner.pulse.lock().await.skew
    }

    /// Every replica heard of lately.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn replicas(&self) -> Result<Vec<Replica>, Fault> {
        replica::list(&self.inner.db).await
    }

    /// Tells the other replicas which triggers of the guard fired here: at once, and with every heartbeat.
    ///
    /// # Errors
    /// See [`Fault`]; the next heartbeat tells them.
    pub async fn vote(&self, votes: String) -> Result<(), Fault> {
        if *self.inner.votes.load_full() == votes {
            return Ok(());
        }
        self.inner.votes.store(Arc::new(votes));
        self.refresh().await
    }

    /// What the other replicas are told of this one's callers, with the next heartbeat.
    pub fn tell_of_callers(&self, callers: String) {
        self.inner.callers.store(Arc::new(callers));
    }

    /// What is owed, by direction, in the current generation.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn owed(&self) -> Result<Owed, Fault> {
        Owed::count(&self.inner.db, self.snapshot().generation).await
    }

    /// The newest transitions first, at most `limit`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn history(&self, limit: u32) -> Result<Vec<TransitionRecord>, Fault> {
        audit::history(&self.inner.db, limit).await
    }

    /// The newest actions first, at most `limit`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn actions(&self, limit: u32) -> Result<Vec<ActionRecord>, Fault> {
        audit::actions(&self.inner.db, limit).await
    }

    /// Whether the audit is whole.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn verify_chain(&self) -> Result<ChainReport, Fault> {
        chain::verify_chain(&self.inner.db).await
    }

    /// Records an act that weakens a guard, in a transaction of its own.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn record_action(
        &self,
        actor: &str,
        kind: &str,
        reason: &str,
        details: serde_json::Value,
    ) -> Result<ActionRecord, Fault> {
        let db = self.inner.db.clone();
        let (actor, kind, reason) = (actor.to_owned(), kind.to_owned(), reason.to_owned());
        task::run_to_end(async move {
            let mut tx = db.begin().await?;
            let record = audit::record_action(&mut tx, &actor, &kind, &reason, &details).await?;
            tx.commit().await?;
            Ok(record)
        })
        .await
    }

    /// Pins this replica to a stage, or lets go, whether or not the database can be reached.
    ///
    /// # Errors
    /// The pin holds, but it could not be recorded.
    pub async fn set_pin(&self, pin: Option<Stage>, actor: &str) -> Result<(), Fault> {
        {
            let mut pulse = self.inner.pulse.lock().await;
            if pulse.pin == pin {
                return Ok(());
            }
            pulse.pin = pin;
            let snapshot = match (&pulse.state, pin) {
                (Some(state), pin) => Snapshot::of(state, pin),
                (None, Some(pin)) => Snapshot::pinned_blind(pin),
                // Never reached the database, and no longer told what to believe.
                (None, None) => Snapshot {
                    phase: Phase::Recovering,
                    ..Snapshot::pinned_blind(Stage::Off)
                },
            };
            let lease_until = self.inner.held.load().lease_until;
            self.inner.install(snapshot, lease_until);
        }
        self.record_pin(pin, actor).await
    }

    async fn record_pin(&self, pin: Option<Stage>, actor: &str) -> Result<(), Fault> {
        let kind = if pin.is_some() { "pin" } else { "unpin" };
        let details = serde_json::json!({
            "stage": pin.map(Stage::as_str),
            "replica": self.inner.options.replica_id,
        });
        self.record_action(actor, kind, "flag.pin was configured", details)
            .await
            .map(drop)
    }
}

impl Inner {
    /// Makes a snapshot the one that requests are admitted under.
    pub(super) fn install(&self, snapshot: Snapshot, lease_until: Duration) {
        let before = Arc::clone(&self.held.load().snapshot);
        if *before == snapshot {
            self.held.store(Arc::new(Held {
                snapshot: before,
                lease_until,
            }));
            return;
        }
        let snapshot = Arc::new(snapshot);
        self.held.store(Arc::new(Held {
            snapshot: Arc::clone(&snapshot),
            lease_until,
        }));
        self.news.send_replace(snapshot);
    }
}

impl Held {
    /// Whether it may be relied on without asking.
    pub(super) fn leased(&self) -> bool {
        boottime() < self.lease_until
    }
}

/// A program below `state.version_min` must not take part.
pub(super) fn outdated(state: &State) -> Option<Fault> {
    (state.version_min > ddl::VERSION).then(|| {
        Fault::Unexpected(format!(
            "this program speaks version {} of the control state, which asks for {}",
            ddl::VERSION,
            state.version_min
        ))
    })
}
