//! Leases: when a read may be answered, and when a write may begin.
//!
//! A read has no commit at which the gate could stop it, so what a replica knows is good for one lease,
//! counted on the boot clock from before the beat was sent, and as long in the database from after it came:
//! the others never believe it over too early. New writes of an epoch begin when every replica has
//! acknowledged it or its lease has run out (I13); what is still serving under the old epoch serves what
//! was true until then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::clock::{boottime, micros};
use crate::contract::{Code, Epoch, Error};
use crate::sql::Fault;

use super::change::{Ask, Cause};
use super::control::{Control, Inner, Pulse, outdated};
use super::error::TransitionError;
use super::plan::Refused;
use super::recovery::Seen;
use super::replica::{self, Beat, Said};
use super::snapshot::Snapshot;
use super::state::{LINEAGE_WITHHELD, Phase};
use crate::stage::Stage;

/// How often the laggards are looked at while a write waits for them.
const LAGGARD_POLL: Duration = Duration::from_millis(20);
/// Beats that one refresh may take: read, acknowledge, and once more if the epoch moved in between.
const BEATS_MAX: usize = 4;

/// The lease has run out and could not be renewed; this is what was last known.
#[derive(Clone, Debug)]
pub struct LeaseLost(pub Arc<Snapshot>);

/// Why a write may not begin. Nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Held {
    /// A transition was under way until the deadline.
    #[error("writes are held while the stage changes")]
    Draining,
    /// Another replica may still serve under the epoch before.
    #[error("a replica has not confirmed the epoch yet")]
    Unconfirmed,
    /// History was lost.
    #[error(
        "recovering after lost history: writes are refused until an operator runs `cutover recover`"
    )]
    Recovering,
    /// The control state is out of reach.
    #[error("the control state is out of reach: {0}")]
    Unreachable(Fault),
}

impl From<Held> for Error {
    fn from(held: Held) -> Self {
        Self::new(Code::BackendUnavailable, held.to_string())
    }
}

impl Control {
    /// The snapshot to answer a read under. Asks the database only when the lease has run out.
    ///
    /// # Errors
    /// What was last known, when it cannot be known whether that still holds.
    pub async fn snapshot_for_read(&self) -> Result<Arc<Snapshot>, LeaseLost> {
        if let Some(snapshot) = self.leased_snapshot() {
            return Ok(snapshot);
        }
        if self.inner.may_ask() {
            let answer = timeout(self.inner.options.lease, self.refresh()).await;
            if answer.is_err() {
                self.inner.out_of_reach();
            }
        }
        self.leased_snapshot()
            .ok_or_else(|| LeaseLost(self.snapshot()))
    }

    fn leased_snapshot(&self) -> Option<Arc<Snapshot>> {
        let held = self.inner.held.load();
        held.leased().then(|| Arc::clone(&held.snapshot))
    }

    /// Waits, in memory, until a write may begin, and returns what it is admitted under.
    ///
    /// # Errors
    /// It may not begin before `deadline`.
    pub async fn admit_write(&self, deadline: Instant) -> Result<Arc<Snapshot>, Held> {
        let known = self.snapshot();
        if known.pinned || known.phase == Phase::Steady && self.confirmed(known.epoch) {
            return Ok(known);
        }
        let mut news = self.watch();
        loop {
            let snapshot = Arc::clone(&news.borrow_and_update());
            if snapshot.pinned {
                return Ok(snapshot);
            }
            match snapshot.phase {
                Phase::Recovering => return Err(Held::Recovering),
                Phase::Draining => {
                    let changed = timeout_at(deadline, news.changed()).await;
                    if !matches!(changed, Ok(Ok(()))) {
                        return Err(Held::Draining);
                    }
                }
                Phase::Steady => {
                    if self.confirmed(snapshot.epoch) {
                        return Ok(snapshot);
                    }
                    match timeout_at(deadline, self.confirm(snapshot.epoch)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(fault)) => return Err(Held::Unreachable(fault)),
                        Err(_elapsed) => return Err(Held::Unconfirmed),
                    }
                }
            }
        }
    }

    /// Reads the state anew, acknowledges it and renews the lease: after the gate refused a stale epoch.
    ///
    /// # Errors
    /// See [`Fault`]; what was known stays.
    pub async fn refresh(&self) -> Result<(), Fault> {
        let asked_at = boottime();
        let inner = Arc::clone(&self.inner);
        // Single-flight, and never cancelled in the middle: whoever waited reads the answer that came meanwhile.
        super::task::run_to_end(async move { inner.beat_since(asked_at).await }).await
    }

    fn confirmed(&self, epoch: Epoch) -> bool {
        self.inner.confirmed.load(Ordering::Acquire) >= epoch.0
    }

    /// Waits until no replica serves under an epoch older than `epoch`, or until the epoch has moved on.
    pub(super) async fn confirm(&self, epoch: Epoch) -> Result<(), Fault> {
        let _one_at_a_time = self.inner.confirming.lock().await;
        loop {
            if self.confirmed(epoch) || self.snapshot().epoch != epoch {
                return Ok(());
            }
            if self.inner.pulse.lock().await.acknowledged < epoch {
                self.refresh().await?;
            }
            let own_id = &self.inner.options.replica_id;
            match replica::laggards(&self.inner.db, epoch, own_id).await? {
                None => {
                    self.inner.confirmed.fetch_max(epoch.0, Ordering::AcqRel);
                }
                Some(left) => sleep(left.min(LAGGARD_POLL)).await,
            }
        }
    }
}

impl Inner {
    /// Whether a read may ask the database: always while it answers, else one read per heartbeat. The others are
    /// not held up by a database that swallows every question until a timeout.
    fn may_ask(&self) -> bool {
        let due_us = self.ask_again_us.load(Ordering::Acquire);
        let now_us = micros(boottime());
        let next_us = now_us + micros(self.options.lease + self.options.heartbeat);
        due_us == 0
            || due_us <= now_us
                && self
                    .ask_again_us
                    .compare_exchange(due_us, next_us, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
    }

    fn out_of_reach(&self) {
        let due_us = micros(boottime() + self.options.heartbeat);
        self.ask_again_us.store(due_us, Ordering::Release);
    }

    /// Beats, unless one that was sent after `asked_at` has come back already.
    async fn beat_since(&self, asked_at: Duration) -> Result<(), Fault> {
        let mut pulse = self.pulse.lock().await;
        if pulse.sent_at >= asked_at {
            return Ok(());
        }
        for _ in 0..BEATS_MAX {
            match self.beat_once(&mut pulse).await {
                // The new epoch is installed; a second beat says so to the others.
                Ok(()) if pulse.acknowledged < self.held.load().snapshot.epoch => {}
                Ok(()) => return Ok(()),
                Err(fault) => {
                    self.out_of_reach();
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    async fn beat_once(&self, pulse: &mut Pulse) -> Result<(), Fault> {
        let known = Arc::clone(&self.held.load().snapshot);
        let dirty = self.dirty(&known);
        let (votes, callers) = (self.votes.load_full(), self.callers.load_full());
        let said = Said {
            dirty,
            votes: &votes,
            callers: &callers,
        };
        let sent_at = boottime();
        let beat = replica::beat(&self.db, &self.options, known.epoch, said).await?;
        if let Some(fault) = outdated(&beat.state) {
            return Err(fault);
        }
        let lost =
            beat.state.epoch < pulse.seen || !same_lineage(&beat.lineage, &beat.state.lineage);
        let mut snapshot = Snapshot::of(&beat.state, pulse.pin);
        if lost && pulse.pin.is_none() {
            snapshot.phase = Phase::Recovering;
        }
        let report_loss =
            lost && !(beat.state.phase == Phase::Recovering && beat.state.epoch >= pulse.seen);
        self.install(snapshot, sent_at + self.options.lease);
        match (report_loss, pulse.before_loss) {
            (true, None) => pulse.before_loss = pulse.state.as_ref().map(Seen::of),
            (true, Some(_)) => {}
            (false, _) if beat.state.phase == Phase::Recovering => {}
            (false, _) => pulse.before_loss = None,
        }
        self.remember(pulse, beat, known.epoch, sent_at);
        if report_loss {
            self.report_lost_history(pulse.seen, pulse.before_loss)
                .await?;
        }
        Ok(())
    }

    fn remember(&self, pulse: &mut Pulse, beat: Beat, acknowledged: Epoch, sent_at: Duration) {
        pulse.seen = pulse.seen.max(beat.state.epoch);
        pulse.acknowledged = acknowledged;
        pulse.sent_at = sent_at;
        self.ask_again_us.store(0, Ordering::Release);
        pulse.now_us = beat.now_us;
        pulse.skew = beat.skew;
        pulse.state = Some(beat.state);
    }

    /// P15: from the moment a replica acknowledges `ramp_down` it may hold debts that only it knows, until it
    /// acknowledges a drain with all of them in the journal.
    fn dirty(&self, known: &Snapshot) -> bool {
        let owing =
            self.debt_dropped.load(Ordering::SeqCst) || self.debts.load(Ordering::SeqCst) > 0;
        match known.stage {
            Stage::RampDown => owing || known.phase != Phase::Draining,
            Stage::Off | Stage::DualWrite | Stage::Shadow | Stage::Live | Stage::Complete => owing,
        }
    }

    /// P16: says so in the database, where it stops every other replica as well.
    async fn report_lost_history(&self, seen: Epoch, before: Option<Seen>) -> Result<(), Fault> {
        let ask = Ask::Lost {
            seen,
            before,
            cause: Cause::new(&self.options.replica_id, "history was lost"),
        };
        match self.make_now(&ask).await {
            Ok(changed) => {
                tracing::error!(
                    epoch_seen = seen.0,
                    epoch = changed.after.epoch.0,
                    "history was lost: writes are refused until an operator recovers"
                );
                Ok(())
            }
            // Another replica has said so.
            Err(TransitionError::Refused(Refused::Recovering)) => Ok(()),
            Err(TransitionError::Fault(fault)) => Err(fault),
            Err(error) => Err(Fault::Unavailable(error.to_string())),
        }
    }
}

/// Where the database withholds its lineage, only the epoch can tell.
fn same_lineage(found: &str, known: &str) -> bool {
    found == known || found == LINEAGE_WITHHELD || known == LINEAGE_WITHHELD
}
