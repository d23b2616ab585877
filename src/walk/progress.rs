//! How far a walk is, readable at any time by whoever shows it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use crate::schema::Table;

/// How far a walk is, table by table.
#[derive(Debug, Default)]
pub struct Progress {
    lines: RwLock<Vec<Arc<Line>>>,
}

/// One table's progress, for `status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableProgress {
    /// The table.
    pub table: String,
    /// Whether its turn has come.
    pub state: WalkState,
    /// Rows of legacy done.
    pub rows: u64,
    /// Rows of storage done.
    pub storage_rows: u64,
    /// How many there are, as far as that is known cheaply.
    pub total: Option<u64>,
}

/// Where a table stands in a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WalkState {
    /// Its turn has not come.
    Waiting,
    /// Under way.
    Running,
    /// Walked to its end.
    Done,
}

/// What the walk writes to, while others read.
#[derive(Debug)]
pub(crate) struct Line {
    table: String,
    state: AtomicU8,
    rows: AtomicU64,
    /// Rows of storage that were walked as well.
    storage_rows: AtomicU64,
    /// One more than the number; 0 while it is not known.
    total_plus_one: AtomicU64,
}

impl Progress {
    /// Lays out the tables of a walk that begins.
    pub(crate) fn begin(&self, tables: &[Arc<Table>]) -> Vec<Arc<Line>> {
        let lines: Vec<_> = tables
            .iter()
            .map(|table| Arc::new(Line::new(&table.name)))
            .collect();
        let mut held = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        held.clone_from(&lines);
        lines
    }

    /// How far it is now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<TableProgress> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| line.snapshot()).collect()
    }
}

impl TableProgress {
    /// How many rows there are; none when there are more than was expected.
    #[must_use]
    pub fn known_total(&self) -> Option<u64> {
        self.total.filter(|total| *total >= self.rows)
    }
}

impl Line {
    fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            state: AtomicU8::new(0),
            rows: AtomicU64::new(0),
            storage_rows: AtomicU64::new(0),
            total_plus_one: AtomicU64::new(0),
        }
    }

    /// How many rows there are, as far as that is known.
    pub(crate) fn expect(&self, total: Option<u64>) {
        let total = total.map_or(0, |total| total.saturating_add(1));
        self.total_plus_one.store(total, Ordering::Relaxed);
    }

    /// Its turn has come.
    pub(crate) fn running(&self) {
        self.state.store(1, Ordering::Relaxed);
    }

    /// So many rows more of each side.
    pub(crate) fn add(&self, legacy: usize, storage: usize) {
        self.rows.fetch_add(legacy as u64, Ordering::Relaxed);
        self.storage_rows
            .fetch_add(storage as u64, Ordering::Relaxed);
    }

    /// Walked to its end.
    pub(crate) fn done(&self) {
        self.state.store(2, Ordering::Relaxed);
        self.expect(Some(self.rows.load(Ordering::Relaxed)));
    }

    fn snapshot(&self) -> TableProgress {
        TableProgress {
            table: self.table.clone(),
            state: match self.state.load(Ordering::Relaxed) {
                0 => WalkState::Waiting,
                1 => WalkState::Running,
                _ => WalkState::Done,
            },
            rows: self.rows.load(Ordering::Relaxed),
            storage_rows: self.storage_rows.load(Ordering::Relaxed),
            total: self.total_plus_one.load(Ordering::Relaxed).checked_sub(1),
        }
    }
}
