//! What a verify found.

use serde::Serialize;

use crate::compare::DifferenceKind;
use crate::shadow::Checked;

/// What a verify found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VerifyReport {
    /// No difference was confirmed, every row was read, and nothing is quarantined.
    pub clean: bool,
    /// Every configured table was looked at.
    pub full: bool,
    /// The verdict is on record: the secondary counts as whole.
    pub recorded: bool,
    /// Which checks could not be made, for people.
    pub unchecked: Vec<String>,
    /// Entries that only an operator will move: their rows may differ.
    pub quarantined: i64,
    /// Table by table.
    pub tables: Vec<TableVerdict>,
}

/// What a verify found in one table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TableVerdict {
    /// The table.
    pub table: String,
    /// Rows that legacy has.
    pub legacy_rows: u64,
    /// Rows that storage has; without the capability `ranges`, of legacy's keys only.
    pub storage_rows: u64,
    /// Rows that agree.
    #[serde(rename = "match")]
    pub matched: u64,
    /// Rows that the secondary lacks.
    pub missing: u64,
    /// Rows that only the secondary has.
    pub extra: u64,
    /// Rows of both sides that refer, on one side only, to a row that is not there.
    pub orphan: u64,
    /// Rows whose soft-delete column is set on one side only.
    pub soft_delete: u64,
    /// Rows of which the secondary has an older version.
    pub version: u64,
    /// Rows of which the secondary has a newer version.
    pub version_ahead: u64,
    /// Rows whose fields differ in another way.
    pub field: u64,
    /// Rows that were on their way: they differed at first, and then agreed or kept moving.
    pub transient: u64,
    /// Rows that could not be read again.
    pub unread: u64,
    /// References that lead nowhere, on both sides alike: no difference, but not in order either.
    pub orphans_alike: u64,
    /// Confirmed differences that were owed to the secondary.
    pub repaired: u64,
}

impl VerifyReport {
    /// A report of nothing yet.
    pub(super) fn new(full: bool) -> Self {
        Self {
            clean: false,
            full,
            recorded: false,
            unchecked: Vec::new(),
            quarantined: 0,
            tables: Vec::new(),
        }
    }

    pub(super) fn finds_nothing(&self) -> bool {
        self.quarantined == 0 && self.tables.iter().all(TableVerdict::finds_nothing)
    }
}

impl TableVerdict {
    /// A verdict of nothing yet.
    pub(super) fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            ..Self::default()
        }
    }

    /// Counts a suspect.
    pub(super) fn count(&mut self, checked: Checked) {
        let counter = match checked {
            Checked::Agreed | Checked::Moving => &mut self.transient,
            Checked::Unread => &mut self.unread,
            Checked::Confirmed(DifferenceKind::Missing) => &mut self.missing,
            Checked::Confirmed(DifferenceKind::Extra) => &mut self.extra,
            Checked::Confirmed(DifferenceKind::Orphan) => &mut self.orphan,
            Checked::Confirmed(DifferenceKind::SoftDelete) => &mut self.soft_delete,
            Checked::Confirmed(DifferenceKind::Version) => &mut self.version,
            Checked::Confirmed(DifferenceKind::VersionAhead) => &mut self.version_ahead,
            Checked::Confirmed(
                DifferenceKind::Field
                | DifferenceKind::Shape
                | DifferenceKind::Order
                | DifferenceKind::Count,
            ) => &mut self.field,
        };
        *counter += 1;
    }

    pub(super) fn finds_nothing(&self) -> bool {
        let wrong = [
            self.missing,
            self.extra,
            self.orphan,
            self.soft_delete,
            self.version,
            self.version_ahead,
            self.field,
            self.unread,
        ];
        wrong.iter().all(|rows| *rows == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_was_on_its_way_does_not_spoil_a_verdict_and_one_that_was_not_read_does() {
        let mut report = VerifyReport::new(true);
        let mut verdict = TableVerdict::new("t");
        verdict.count(Checked::Moving);
        verdict.count(Checked::Agreed);
        report.tables.push(verdict.clone());
        assert!(report.finds_nothing());
        verdict.count(Checked::Unread);
        report.tables.push(verdict);
        assert!(!report.finds_nothing());
    }

    #[test]
    fn a_quarantined_entry_spoils_it() {
        let mut report = VerifyReport::new(true);
        report.quarantined = 1;
        assert!(!report.finds_nothing());
    }
}
