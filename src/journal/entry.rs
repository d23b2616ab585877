//! The words of a journal row.

use crate::contract::{Key, OpId};

/// Which backend is owed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Storage is the secondary.
    ToStorage,
    /// Legacy is the secondary.
    ToLegacy,
}

/// Why an entry waits for something other than time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parked {
    /// A constraint of the secondary refused it; another entry may have to be paid first (rule P13).
    Constraint,
    /// Nothing will pay it but an operator.
    Quarantined,
    /// An intent whose reply was not the row that was written: storage is not believed about it, so only a
    /// rollback or an operator ends it.
    Mismatched,
}

/// Whether the row of an entry may have left storage and taken others along, even if it is there again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Not that anybody knows.
    No,
    /// Before this moment.
    ByNow,
    /// Before this departure was noted.
    Before(Departure),
}

/// The number of a departure (see `departures`). Numbers grow; 0 is before all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Departure(pub i64);

/// An entry that this replica may pay, until the claim's deadline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// Its place in the journal.
    pub seq: i64,
    /// The table, as configured.
    pub table: String,
    /// The row.
    pub key: Key,
    /// The write that caused it, if a write of ours did.
    pub op_id: Option<OpId>,
    /// When it was appended, unix microseconds of the database's clock.
    pub created_us: i64,
    /// How often it was claimed, this time included.
    pub attempts: i64,
    /// Storage may have been asked to remove the row (`note_removals`).
    pub removing: bool,
    /// How many of the entries it stands for were appended by writers that bypassed the proxy.
    pub bypassed: usize,
    /// The row may have left storage before this departure was noted, even if it is there again.
    pub left: Option<Departure>,
    /// Departures up to this one were noted before the write that caused it.
    pub noted: Departure,
}

impl Direction {
    /// As the journal and the metrics spell it: the backend that is owed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ToStorage => "storage",
            Self::ToLegacy => "legacy",
        }
    }
}

impl Parked {
    /// As the journal spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Constraint => "constraint",
            Self::Quarantined => "quarantined",
            Self::Mismatched => "mismatched",
        }
    }
}
