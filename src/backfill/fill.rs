//! One replica's work on a run, from its last checkpoint to the end or until the run is not its own any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checkpoint::{Checkpoint, Hold, TableState};
use super::run::{self, LEASE, Run, RunState};
use crate::contract::Key;
use crate::repository::Parts;
use crate::schema::Table;
use crate::sql::Db;
use crate::stage::Backend;
use crate::telemetry::{Backfilled, Metrics};
use crate::walk::{Pace, Walk, WalkError};

/// How fast a backfill may go; read anew for every chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Throttle {
    /// At most this many rows a second, unless the run says otherwise; 0 is no limit.
    pub rate: u32,
    /// At most this many owed entries outstanding.
    pub window: i64,
    /// It waits while the oldest payable entry is older than this.
    pub lag_max: Duration,
    /// Keys appended in one transaction.
    pub chunk: u64,
}

/// What the run says of its rate, as last read: less than 0 is nothing.
type RunRate = Arc<AtomicI64>;

/// A run that this replica works on.
struct Fill<'a> {
    walk: Walk,
    metrics: &'a Metrics,
    hold: Hold,
    pace: Pace,
    rate: RunRate,
    throttle: &'a (dyn Fn() -> Throttle + Send + Sync),
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            rate: 0,
            window: 10_000,
            lag_max: Duration::from_secs(30),
            chunk: 500,
        }
    }
}

/// Works on a claimed run; returns once all of it is paid, or the run was paused, cancelled or taken over.
///
/// Allowed in `dual_write` and `shadow`, pauses while a transition is under way, begins when no older
/// request can take effect any more (P11). How it ended is in the run's record. When `cancel` is why it
/// ended, another replica may go on at once.
pub async fn work(
    parts: &Parts,
    run: &Run,
    owner: &str,
    throttle: &(dyn Fn() -> Throttle + Send + Sync),
    cancel: CancellationToken,
) {
    let hold = Hold {
        run_id: run.id.clone(),
        owner: owner.to_owned(),
    };
    let rate = RunRate::new(AtomicI64::new(run.rate.unwrap_or(-1)));
    let ours = cancel.child_token();
    let db = parts.legacy.db();
    let filled = tokio::select! {
        filled = fill(parts, run, &hold, &rate, throttle, ours.clone()) => filled,
        () = keep(db, &hold, &rate) => Err(WalkError::Cancelled),
    };
    if filled.is_err() {
        parts.observer.metrics().backfill_left();
    }
    let ended = match filled {
        Ok(report) => run::end(db, &hold, RunState::Done, report, None).await,
        Err(WalkError::Cancelled) => run::let_go(db, &hold).await,
        Err(error) => {
            let why = Some(error.to_string());
            run::end(db, &hold, RunState::Failed, (0, false), why).await
        }
    };
    if let Err(fault) = ended {
        tracing::warn!(%fault, "how a backfill ended was not written down; its lease will run out");
    }
}

/// Renews the lease; returns when the run is not ours any more.
async fn keep(db: &Db, hold: &Hold, rate: &RunRate) {
    loop {
        tokio::time::sleep(LEASE / 10).await;
        match run::renew(db, hold).await {
            Ok(Some(asked)) => rate.store(asked.unwrap_or(-1), Ordering::Relaxed),
            Ok(None) => return,
            // Working on with a lease that ran out is harmless: a backfill only owes.
            Err(fault) => tracing::warn!(%fault, "a backfill's lease was not renewed"),
        }
    }
}

/// Fills table after table; what is quarantined in the end, and whether storage was walked.
async fn fill(
    parts: &Parts,
    run: &Run,
    hold: &Hold,
    rate: &RunRate,
    throttle: &(dyn Fn() -> Throttle + Send + Sync),
    cancel: CancellationToken,
) -> Result<(i64, bool), WalkError> {
    let walk = Walk::begin(parts, cancel).await?;
    if walk.secondary() != Backend::Storage {
        return Err(WalkError::Stage(walk.begun().stage));
    }
    if walk.begun().generation != run.generation {
        return Err(WalkError::Voided);
    }
    walk.outlive_deadlines().await?;
    let mut fill = Fill {
        walk,
        metrics: parts.observer.metrics(),
        hold: hold.clone(),
        pace: Pace::new(None, Instant::now()),
        rate: Arc::clone(rate),
        throttle,
    };
    let schema = parts.legacy.schema();
    // A table that is not configured any more is not filled any more.
    let mut tables: Vec<_> = run
        .checkpoints
        .iter()
        .filter_map(|at| Some((Arc::clone(schema.table(&at.table)?), at.clone())))
        .collect();
    for (table, at) in &mut tables {
        fill.expect(table, at).await?;
    }
    for (table, at) in tables {
        fill.table(&table, at).await?;
    }
    let quarantined = fill.walk.wait_until_paid().await?;
    Ok((quarantined, fill.walk.walks_storage()))
}

impl Fill<'_> {
    /// How many rows a table has, before the first one's turn: whoever watches sees how far it is with all.
    async fn expect(&self, table: &Arc<Table>, at: &mut Checkpoint) -> Result<(), WalkError> {
        if at.state == TableState::Waiting && at.total.is_none() {
            let estimate = self.walk.estimate(table).await;
            at.total = estimate.and_then(|rows| i64::try_from(rows).ok());
        }
        self.owe(table, &[], at).await
    }

    /// Owes keys, with the line as it is then.
    async fn owe(&self, table: &Table, keys: &[Key], at: &Checkpoint) -> Result<(), WalkError> {
        let note = at.note(&self.hold);
        self.walk.owe_noted(table, keys, &note).await?;
        let rows = |rows: i64| u64::try_from(rows).unwrap_or(0);
        let left = at.total.map_or(0, |total| rows(total - at.rows));
        for (state, rows) in [
            (Backfilled::Done, rows(at.rows)),
            (Backfilled::Left, left),
            (Backfilled::Extra, rows(at.extra)),
        ] {
            self.metrics.backfilled(&table.name, state, rows);
        }
        Ok(())
    }

    /// Goes on with one table from where it stands.
    async fn table(&mut self, table: &Arc<Table>, mut at: Checkpoint) -> Result<(), WalkError> {
        loop {
            match at.state {
                TableState::Waiting => {
                    at.upper = self.walk.legacy_last_key(table).await?;
                    at.state = TableState::Legacy;
                    self.owe(table, &[], &at).await?;
                }
                TableState::Legacy => self.chunk_of_legacy(table, &mut at).await?,
                TableState::Storage => self.chunk_of_storage(table, &mut at).await?,
                TableState::Done => return Ok(()),
            }
        }
    }

    /// Owes the next keys that legacy has.
    async fn chunk_of_legacy(
        &mut self,
        table: &Arc<Table>,
        at: &mut Checkpoint,
    ) -> Result<(), WalkError> {
        let chunk = self.room().await?;
        let keys = match &at.upper {
            Some(upper) => {
                let after = at.last.as_ref();
                self.walk.legacy_keys(table, after, upper, chunk).await?
            }
            None => Vec::new(),
        };
        at.rows += keys.len() as i64;
        if (keys.len() as u64) < chunk {
            at.total = Some(at.rows);
            at.last = None;
            at.state = match self.walk.walks_storage() {
                true => TableState::Storage,
                false => TableState::Done,
            };
        } else {
            at.last = keys.last().cloned();
        }
        self.owe(table, &keys, at).await?;
        self.rest_after(keys.len()).await
    }

    /// Owes those of storage's next keys that legacy has no row of: paid, they are gone.
    async fn chunk_of_storage(
        &mut self,
        table: &Arc<Table>,
        at: &mut Checkpoint,
    ) -> Result<(), WalkError> {
        let chunk = self.room().await?;
        let (keys, next) = self
            .walk
            .storage_keys(table, at.last.as_ref(), chunk)
            .await?;
        let keys = self.walk.not_in_legacy(table, keys).await?;
        at.extra += keys.len() as i64;
        at.last = next;
        if at.last.is_none() {
            at.state = TableState::Done;
        }
        self.owe(table, &keys, at).await?;
        self.rest_after(keys.len()).await
    }

    /// Waits until more may be owed; how much.
    async fn room(&self) -> Result<u64, WalkError> {
        let throttle = (self.throttle)();
        self.walk
            .wait_for_room(throttle.window, throttle.lag_max)
            .await?;
        let window = u64::try_from(throttle.window).unwrap_or(1).max(1);
        // No more than a tenth of a second's worth at once: callers meet no bursts, and another rate soon takes
        // effect.
        let paced = match self.rate() {
            0 => u64::MAX,
            rate => u64::from(rate) / 10,
        };
        Ok(throttle.chunk.min(window).min(paced).max(1))
    }

    /// Rows a second: what the run says, else the configuration; 0 is no limit.
    fn rate(&self) -> u32 {
        let asked = u32::try_from(self.rate.load(Ordering::Relaxed));
        asked.unwrap_or_else(|_| (self.throttle)().rate)
    }

    async fn rest_after(&mut self, rows: usize) -> Result<(), WalkError> {
        self.pace.set(self.rate());
        let then = self.pace.after(rows, Instant::now());
        self.walk.rest_until(then).await
    }
}
