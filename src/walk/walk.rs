//! One walk: under what it began, whether it may go on, and how it appends to the journal.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::WalkError;
use crate::clock::micros;
use crate::contract::{Epoch, Key};
use crate::control::{Phase, Snapshot};
use crate::journal::{self, Copies, Direction, OwedUntil, Payable};
use crate::repository::Parts;
use crate::schema::Table;
use crate::sql::{Arg, Db, Fault};
use crate::stage::Backend;

/// How often a pausing walk looks whether it may go on.
const POLL: Duration = Duration::from_millis(50);
/// How long a step is tried before its failure is the walk's: a service that restarts, or a database that fails over,
/// does not undo hours of walking.
const PATIENCE: Duration = Duration::from_secs(600);
/// The wait after the first failure; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// What is written down together with what is owed: a control statement that returns a row if it held.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) sql: &'static str,
    pub(crate) args: Vec<Arg>,
}

/// A walk over the tables of both sides.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(super) parts: Parts,
    begun: Arc<Snapshot>,
    secondary: Backend,
    cancel: CancellationToken,
}

impl Walk {
    /// Begins one, once no transition is under way, in a stage in which one side owes the other.
    pub(crate) async fn begin(parts: &Parts, cancel: CancellationToken) -> Result<Self, WalkError> {
        let begun = parts.control.snapshot();
        let Some(secondary) = begun.stage.owes() else {
            return Err(WalkError::Stage(begun.stage));
        };
        let mut walk = Self {
            parts: parts.clone(),
            begun,
            secondary,
            cancel,
        };
        walk.begun = walk.steady().await?;
        Ok(walk)
    }

    /// What it began under.
    pub(crate) fn begun(&self) -> &Snapshot {
        &self.begun
    }

    /// The side that has to become the other's copy.
    pub(crate) fn secondary(&self) -> Backend {
        self.secondary
    }

    /// These tables, or all, parents first.
    pub(crate) fn tables(&self, names: &[String]) -> Result<Vec<Arc<Table>>, WalkError> {
        let schema = self.parts.legacy.schema();
        if let Some(unknown) = names.iter().find(|name| schema.table(name).is_none()) {
            return Err(WalkError::UnknownTable(unknown.clone()));
        }
        let wanted = |table: &&Arc<Table>| names.is_empty() || names.contains(&table.name);
        Ok(schema.tables.values().filter(wanted).cloned().collect())
    }

    /// The control state, once no transition is under way.
    pub(crate) async fn steady(&self) -> Result<Arc<Snapshot>, WalkError> {
        loop {
            let snapshot = self.parts.control.snapshot();
            if self.cancel.is_cancelled() {
                return Err(WalkError::Cancelled);
            }
            if snapshot.pinned {
                return Err(WalkError::Pinned);
            }
            if snapshot.stage.owes() != Some(self.secondary) {
                return Err(WalkError::Stage(snapshot.stage));
            }
            if snapshot.generation != self.begun.generation {
                return Err(WalkError::Voided);
            }
            if snapshot.phase == Phase::Steady {
                return Ok(snapshot);
            }
            self.rest(POLL).await?;
        }
    }

    /// Waits, unless cancelled.
    pub(crate) async fn rest(&self, time: Duration) -> Result<(), WalkError> {
        let slept = self.cancel.run_until_cancelled(sleep(time)).await;
        slept.ok_or(WalkError::Cancelled)
    }

    /// Waits until then, unless cancelled.
    pub(crate) async fn rest_until(&self, then: Instant) -> Result<(), WalkError> {
        self.rest(then.saturating_duration_since(Instant::now()))
            .await
    }

    /// Waits until no request sent for a void entry can take effect any more (P11).
    pub(crate) async fn outlive_deadlines(&self) -> Result<(), WalkError> {
        let skew = micros(self.parts.control.options().clock_skew_max);
        let over_us = self.begun.deadline_last_us.saturating_add(skew);
        loop {
            let now_us = self.now_us().await?;
            let Some(left) = u64::try_from(over_us.saturating_sub(now_us)).ok() else {
                return Ok(());
            };
            if left == 0 {
                return Ok(());
            }
            self.steady().await?;
            self.rest(Duration::from_micros(left).min(Duration::from_secs(1)))
                .await?;
        }
    }

    /// What legacy's clock says, in Unix microseconds.
    pub(crate) async fn now_us(&self) -> Result<i64, WalkError> {
        self.patiently(|| async {
            let rows = self.db().control("SELECT cutover.now_us()", vec![]).await?;
            let row = rows.first();
            let row = row.ok_or_else(|| Fault::Unexpected("a clock without a time".to_owned()))?;
            Ok(row.some_int(0)?)
        })
        .await
    }

    /// Appends `copy` entries under the current epoch and wakes the applier.
    pub(crate) async fn owe(&self, table: &Table, keys: &[Key]) -> Result<(), WalkError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.patiently(|| self.owe_once(table, keys, None)).await?;
        self.parts.owed.notify_one();
        Ok(())
    }

    /// The same, and in the same transaction a note of how far the walk is. A note that finds nothing to
    /// change belongs to a walk that is somebody else's by now: nothing is appended.
    pub(crate) async fn owe_noted(
        &self,
        table: &Table,
        keys: &[Key],
        note: &Note,
    ) -> Result<(), WalkError> {
        self.patiently(|| self.owe_once(table, keys, Some(note)))
            .await?;
        self.parts.owed.notify_one();
        Ok(())
    }

    async fn owe_once(
        &self,
        table: &Table,
        keys: &[Key],
        note: Option<&Note>,
    ) -> Result<(), WalkError> {
        let direction = self.direction();
        loop {
            let epoch = self.steady().await?.epoch;
            let (db, table, keys) = (self.db().clone(), table.name.clone(), keys.to_vec());
            let note = note.cloned();
            // In a task: dropping a transaction that is being begun would leave it open on its connection.
            let task =
                tokio::spawn(
                    async move { append(&db, direction, &table, &keys, note, epoch).await },
                );
            match task.await {
                Ok(Err(fault)) if fault.is_stale_epoch() => self.parts.control.refresh().await?,
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => return Err(WalkError::Cancelled),
                Ok(Err(fault)) => return Err(fault.into()),
                Err(_) => {
                    let why = "appending to the journal died";
                    return Err(Fault::Unexpected(why.to_owned()).into());
                }
            }
        }
    }

    /// Waits until fewer than `window` entries are payable and the oldest of them is younger than `lag_max`.
    ///
    /// What waits for another row (parked) does not count until there is ten times as much of it: the row that
    /// it waits for may be one that this walk has yet to owe.
    pub(crate) async fn wait_for_room(
        &self,
        window: i64,
        lag_max: Duration,
    ) -> Result<(), WalkError> {
        let window = window.max(1);
        loop {
            self.steady().await?;
            let direction = self.direction();
            let Payable {
                open,
                parked,
                oldest,
            } = self
                .patiently(|| async { Ok(journal::payable(self.db(), direction).await?) })
                .await?;
            if open < window && parked < window.saturating_mul(10) && oldest <= lag_max {
                return Ok(());
            }
            self.parts.owed.notify_one();
            self.rest(POLL).await?;
        }
    }

    /// Waits until everything that is owed now is paid; returns what nobody but an operator will pay. What was refused
    /// before and is owed anew is tried again first.
    pub(crate) async fn wait_until_paid(&self) -> Result<i64, WalkError> {
        let (db, direction) = (self.db(), self.direction());
        self.patiently(|| async { Ok(journal::retry_written_again(db).await?) })
            .await?;
        let seq = self
            .patiently(|| async { Ok(journal::last_seq(db).await?) })
            .await?;
        loop {
            self.steady().await?;
            let OwedUntil { open, quarantined } = self
                .patiently(|| async { Ok(journal::owed_until(db, direction, seq).await?) })
                .await?;
            if open == quarantined {
                return Ok(quarantined);
            }
            self.parts.owed.notify_one();
            self.rest(POLL).await?;
        }
    }

    /// How many entries only an operator will move.
    pub(crate) async fn quarantined(&self) -> Result<i64, WalkError> {
        let owed = self.patiently(|| async { Ok(journal::owed(self.db()).await?) });
        Ok(owed.await?.quarantined)
    }

    /// Tries a step that may be repeated, for as long as its failures pass, the walk may go on, and there is patience.
    pub(crate) async fn patiently<T, Fut>(
        &self,
        mut step: impl FnMut() -> Fut,
    ) -> Result<T, WalkError>
    where
        Fut: Future<Output = Result<T, WalkError>>,
    {
        let over = Instant::now() + PATIENCE;
        let mut wait = RETRY_FIRST;
        loop {
            match step().await {
                Err(error) if error.passes() && Instant::now() < over => {
                    tracing::warn!(%error, "a step of a walk is tried again");
                    self.rest(wait).await?;
                    self.steady().await?;
                    wait = (wait * 2).min(RETRY_LONGEST);
                }
                result => return result,
            }
        }
    }

    fn db(&self) -> &Db {
        self.parts.legacy.db()
    }

    fn direction(&self) -> Direction {
        match self.secondary {
            Backend::Storage => Direction::ToStorage,
            Backend::Legacy => Direction::ToLegacy,
        }
    }
}

/// `false`: the note found nothing to change, and nothing was done.
async fn append(
    db: &Db,
    direction: Direction,
    table: &str,
    keys: &[Key],
    note: Option<Note>,
    epoch: Epoch,
) -> Result<bool, Fault> {
    let mut tx = db.begin().await?;
    if !keys.is_empty() {
        journal::append_copies(&mut tx, Copies::of_rows(direction, table, keys)).await?;
    }
    if let Some(note) = note
        && tx.control(note.sql, note.args).await?.is_empty()
    {
        return Ok(false);
    }
    journal::commit_under(tx, epoch).await?;
    Ok(true)
}
