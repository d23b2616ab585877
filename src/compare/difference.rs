//! What two replies differ in. The kinds are labels of metrics and members of reports: a closed set.

use serde_json::Value;

/// How two replies differ, with a few of the rows concerned.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// The gravest kind among the rows.
    pub kind: DifferenceKind,
    /// How many rows differ (1 for a count or a shape).
    pub rows: usize,
    /// The first few of them.
    pub samples: Vec<Sample>,
}

/// One row that differs.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// How it differs.
    pub kind: DifferenceKind,
    /// Its key's column values in key order, where the reply holds them. Whoever stores or shows it
    /// hashes it where the table's policy says `hash_keys`.
    pub key: Option<Vec<Value>>,
    /// The fields that differ.
    pub fields: Vec<FieldDiff>,
}

/// The kinds of difference, gravest first. A row gets one: the first of these that holds of it.
///
/// A row that one side lacks says more than any of its values; a reference to nothing more than the value that
/// it is; and a deletion or a version that was missed tell why the other fields differ as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DifferenceKind {
    /// The secondary's reply is not of the contract's shape.
    Shape,
    /// The secondary lacks a row.
    Missing,
    /// The secondary has a row too many.
    Extra,
    /// Both have the row, and on one side only it refers to a row that is not there.
    Orphan,
    /// The soft-delete column is set on one side only.
    SoftDelete,
    /// The secondary's version of the row is older.
    Version,
    /// The secondary's version of the row is newer.
    VersionAhead,
    /// A row's fields differ.
    Field,
    /// The same rows in another order.
    Order,
    /// Counts differ.
    Count,
}

/// One field that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldDiff {
    /// The column, as the replies name it.
    pub column: String,
    /// How it differs.
    pub kind: FieldKind,
}

/// How a field differs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FieldKind {
    /// Both have it, with different values.
    Value,
    /// The secondary's row lacks it (which is not NULL).
    Missing,
    /// Only the secondary's row has it.
    Extra,
}

impl DifferenceKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Shape,
        Self::Missing,
        Self::Extra,
        Self::Orphan,
        Self::SoftDelete,
        Self::Version,
        Self::VersionAhead,
        Self::Field,
        Self::Order,
        Self::Count,
    ];

    /// As it is spelled in labels and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Orphan => "orphan",
            Self::SoftDelete => "soft_delete",
            Self::Version => "version",
            Self::VersionAhead => "version_ahead",
            Self::Field => "field",
            Self::Order => "order",
            Self::Count => "count",
        }
    }
}

impl FieldKind {
    /// As it is spelled in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Missing => "missing_field",
            Self::Extra => "extra_field",
        }
    }
}
