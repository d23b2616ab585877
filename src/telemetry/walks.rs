//! The metrics of backfills and verifies, fed by the replica that works on one.

use super::labels::{Backfilled, Comparison};
use super::metrics::Metrics;
use super::register::whole;

impl Metrics {
    /// How far a backfill is with a table.
    pub fn backfilled(&self, table: &str, state: Backfilled, rows: u64) {
        self.walks
            .backfill_rows
            .with_label_values(&[self.table(Some(table)), state.as_str()])
            .set(whole(rows));
    }

    /// Another replica works on the backfill, or none: what was known here grows old.
    pub fn backfill_left(&self) {
        self.walks.backfill_rows.reset();
    }

    /// Rows were held against the other side by a verify.
    pub fn verified(&self, table: &str, result: Comparison, rows: u64) {
        self.walks
            .verify_rows
            .with_label_values(&[self.table(Some(table)), result.as_str()])
            .inc_by(rows);
    }
}
