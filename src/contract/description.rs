//! What a service says of a table: the reply to `describe`.
//!
//! The words of SQL are for people. Two databases spell one type in many ways, so what is compared is what a column
//! holds, in the contract's own kinds of values, and the limits that its database enforces.

use serde::{Deserialize, Serialize};

/// A table, as its service describes it. What a service leaves out is not known of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Description {
    /// In the table's order.
    pub columns: Vec<DescribedColumn>,
    /// The columns of the primary key, in key order.
    pub primary_key: Vec<String>,
    /// The columns of each other unique key.
    #[serde(default)]
    pub unique: Vec<Vec<String>>,
    /// What rows refer to.
    #[serde(default)]
    pub foreign_keys: Vec<ForeignKey>,
}

/// A column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DescribedColumn {
    /// Its name.
    pub name: String,
    /// Its type, as its database spells it.
    #[serde(rename = "type")]
    pub sql_type: String,
    /// What it holds.
    #[serde(default)]
    pub holds: Option<Holds>,
    /// The numbers of the type that the database enforces: `[60]` of `varchar(60)`, `[12, 4]` of `numeric(12,4)`.
    #[serde(default)]
    pub limits: Vec<i64>,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// What gives its value, if not the writer alone.
    #[serde(default)]
    pub generated: Option<GeneratedBy>,
}

/// What gives a column its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneratedBy {
    /// A sequence, where the writer gives none.
    Identity,
    /// An expression, always.
    Expression,
}

/// A foreign key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The columns here.
    pub columns: Vec<String>,
    /// The table it points to.
    pub table: String,
    /// The columns there.
    pub target: Vec<String>,
    /// What happens to the row when the one that it points to goes.
    #[serde(default)]
    pub on_delete: OnDelete,
}

/// What a foreign key does to its row when the one that it points to goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// The removal is refused.
    #[default]
    Refuse,
    /// The row goes as well.
    Cascade,
    /// It refers to nothing then.
    SetNull,
    /// It gets its default.
    SetDefault,
}

/// The values that a column holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the type that it is named for")]
pub enum Holds {
    Boolean,
    Int16,
    Int32,
    Int64,
    /// With every digit.
    Numeric,
    Float32,
    Float64,
    Text,
    Uuid,
    Timestamptz,
    Timestamp,
    Date,
    Time,
    Interval,
    Bytes,
    Json,
    /// One of these labels.
    Enum(Vec<String>),
    /// Lists of these.
    Array(Box<Holds>),
    /// Anything else, as text.
    Other,
}
