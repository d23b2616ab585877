//! Backfill: owes storage every row that legacy has, and every key that only storage has.
//!
//! It writes nothing but `copy` entries into the journal. The applier pays them in order with the row as
//! it is then, so a backfill cannot overwrite a newer write or bring a deleted row back (I4); rows that
//! appear meanwhile are captured anyway. How much it may owe at a time is bounded.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::repository::Parts;
use crate::schema::Table;
use crate::stage::Backend;
use crate::walk::{Line, Pace, Progress, Walk, WalkError};

/// What to fill and how fast.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackfillOptions {
    /// These tables; all when empty.
    pub tables: Vec<String>,
    /// At most this many rows a second.
    pub rate: Option<u32>,
    /// At most this many owed entries outstanding.
    pub window: i64,
    /// Keys appended in one transaction.
    pub chunk: u64,
}

impl Default for BackfillOptions {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            rate: None,
            window: 10_000,
            chunk: 500,
        }
    }
}

/// What a backfill did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Table by table, in the order they were filled.
    pub tables: Vec<TableReport>,
    /// Entries that were owed at its end and that only an operator will move.
    pub quarantined: i64,
    /// Whether keys that only storage has were looked for: not without the capability `ranges`.
    pub storage_walked: bool,
}

/// What a backfill did with one table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// Keys of legacy that were owed.
    pub rows: u64,
    /// Keys that only storage had, owed for removal.
    pub extra: u64,
}

/// Fills storage from legacy; returns once all of it is paid. Allowed in `dual_write` and `shadow`, pauses
/// while a transition is under way, begins when no older request can take effect any more (P11).
///
/// # Errors
/// See [`WalkError`]. What was owed until then is paid all the same.
pub async fn run(
    parts: &Parts,
    options: BackfillOptions,
    progress: &Progress,
    cancel: CancellationToken,
) -> Result<Report, WalkError> {
    let walk = Walk::begin(parts, cancel).await?;
    if walk.secondary() != Backend::Storage {
        return Err(WalkError::Stage(walk.begun().stage));
    }
    let tables = walk.tables(&options.tables)?;
    let lines = progress.begin(&tables);
    walk.outlive_deadlines().await?;
    let mut fill = Fill {
        pace: Pace::new(options.rate, Instant::now()),
        window: options.window,
        chunk: options
            .chunk
            .clamp(1, u64::try_from(options.window).unwrap_or(1).max(1)),
        walk,
    };
    let mut reports = Vec::with_capacity(tables.len());
    for (table, line) in tables.iter().zip(&lines) {
        line.running(fill.walk.estimate(table).await);
        reports.push(TableReport {
            table: table.name.clone(),
            rows: fill.every_legacy_key(table, line).await?,
            extra: fill.only_in_storage(table).await?,
        });
        line.done();
    }
    Ok(Report {
        tables: reports,
        quarantined: fill.walk.wait_until_paid().await?,
        storage_walked: fill.walk.walks_storage(),
    })
}

/// A backfill under way.
struct Fill {
    walk: Walk,
    pace: Pace,
    window: i64,
    chunk: u64,
}

impl Fill {
    /// Owes every key that legacy has; returns how many.
    async fn every_legacy_key(&mut self, table: &Table, line: &Line) -> Result<u64, WalkError> {
        let (mut after, mut rows) = (None, 0);
        loop {
            self.walk.wait_for_room(self.window).await?;
            let keys = self
                .walk
                .legacy_keys(table, after.as_ref(), self.chunk)
                .await?;
            self.walk.owe(table, &keys).await?;
            line.add(keys.len());
            rows += keys.len() as u64;
            self.walk
                .rest_until(self.pace.after(keys.len(), Instant::now()))
                .await?;
            if (keys.len() as u64) < self.chunk {
                return Ok(rows);
            }
            after = keys.last().cloned();
        }
    }

    /// Owes the keys that only storage has: paid, they are gone. Returns how many.
    async fn only_in_storage(&mut self, table: &Arc<Table>) -> Result<u64, WalkError> {
        if !self.walk.walks_storage() {
            return Ok(0);
        }
        let (mut after, mut extra) = (None, 0);
        loop {
            let page = self
                .walk
                .storage_page(table, after.as_ref(), self.chunk)
                .await?;
            let keys = page.rows.into_iter().map(|(key, _)| key).collect();
            let keys = self.walk.not_in_legacy(table, keys).await?;
            self.walk.wait_for_room(self.window).await?;
            self.walk.owe(table, &keys).await?;
            extra += keys.len() as u64;
            self.walk
                .rest_until(self.pace.after(keys.len(), Instant::now()))
                .await?;
            let Some(next) = page.next else {
                return Ok(extra);
            };
            after = Some(next);
        }
    }
}
