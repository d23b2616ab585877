//! Confirmed divergences: a bounded list in the legacy database, one line per row that differs.
//!
//! A line holds the table, the key (hashed where the config asks) and the names of fields, never a value.
//! Seeing the same difference again refreshes its line, so a busy row cannot push the others out.

mod ddl;

use serde::Serialize;

use crate::contract::Key;
use crate::schema::Table;
use crate::sql::{Db, Fault, Record, Tx};
use crate::telemetry::DivergenceKind;

pub use ddl::COMPONENT;

/// At most this many lines are kept; the oldest go first.
pub const KEPT_MAX: i64 = 10_000;

/// A difference to be written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// What kind of difference.
    pub kind: DivergenceKind,
    /// The row; none when the difference is not one row's (a count, an order).
    pub key: Option<Key>,
    /// The names of the fields that differ.
    pub fields: Vec<String>,
}

/// A line of the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Divergence {
    /// Names the line.
    pub id: i64,
    /// The table.
    pub table: String,
    /// What kind of difference.
    pub kind: String,
    /// The row's key, its hash, or nothing.
    pub key: Option<String>,
    /// Names of the fields that differ, separated by commas.
    pub fields: String,
    /// First seen, unix microseconds.
    pub first_us: i64,
    /// Last seen, unix microseconds.
    pub last_us: i64,
    /// How often it was seen.
    pub seen: i64,
    /// Why an operator says that it is expected.
    pub explained: Option<String>,
    /// Until when it is, unix microseconds.
    pub explained_until_us: Option<i64>,
}

/// Writes a finding down, or refreshes its line. `true`: an operator has said that it is expected for now.
///
/// # Errors
/// See [`Fault`].
pub async fn record(db: &Db, table: &Table, finding: &Finding) -> Result<bool, Fault> {
    let key = finding
        .key
        .as_ref()
        .map(|key| shown_key(table, key))
        .unwrap_or_default();
    let rows = db.control(
        "INSERT INTO cutover.divergences AS d (tbl, kind, key, fields, first_us, last_us, seen) \
         VALUES ($1, $2, $3, $4, cutover.now_us(), cutover.now_us(), 1) \
         ON CONFLICT (tbl, kind, key) DO UPDATE SET fields = excluded.fields, \
         last_us = excluded.last_us, seen = d.seen + 1 \
         RETURNING explained_until_us >= cutover.now_us()",
        vec![
            finding.table.as_str().into(),
            finding.kind.as_str().into(),
            key.into(),
            finding.fields.join(",").into(),
        ],
    )
    .await?;
    db.control(
        "DELETE FROM cutover.divergences WHERE id IN \
         (SELECT id FROM cutover.divergences ORDER BY last_us DESC LIMIT 1000 OFFSET $1)",
        vec![KEPT_MAX.into()],
    )
    .await?;
    let explained = rows.first().map(|row| row.bool(0)).transpose()?;
    Ok(explained.flatten().unwrap_or(false))
}

/// The kinds that a look at both sides' rows finds, and disproves.
pub const OF_ROWS: [DivergenceKind; 7] = [
    DivergenceKind::Missing,
    DivergenceKind::Extra,
    DivergenceKind::Orphan,
    DivergenceKind::SoftDelete,
    DivergenceKind::Version,
    DivergenceKind::VersionAhead,
    DivergenceKind::Field,
];

/// Takes lines of these kinds off the list that were last seen before `before_us`: the table was found in order since.
/// What an operator explained stays for as long as that holds. Returns how many went.
///
/// # Errors
/// See [`Fault`].
pub async fn disprove(
    db: &Db,
    table: &str,
    kinds: &[DivergenceKind],
    before_us: i64,
) -> Result<usize, Fault> {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let rows = db
        .control(
            "DELETE FROM cutover.divergences WHERE tbl = $1 AND last_us < $2 \
             AND kind IN (SELECT e.value FROM cutover.each($3) AS e) \
             AND (explained_until_us IS NULL OR explained_until_us < cutover.now_us()) RETURNING id",
            vec![
                table.into(),
                before_us.into(),
                serde_json::json!(kinds).to_string().into(),
            ],
        )
        .await?;
    Ok(rows.len())
}

/// The key as it may be shown: hashed where the table's config asks.
fn shown_key(table: &Table, key: &Key) -> String {
    use sha2::{Digest, Sha256};
    if !table.policy.hash_keys {
        return key.0.clone();
    }
    let digest = Sha256::digest(key.0.as_bytes());
    let hex: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// The list, latest first.
///
/// # Errors
/// See [`Fault`].
pub async fn list(db: &Db, limit: i64) -> Result<Vec<Divergence>, Fault> {
    let rows = db
        .control(
            "SELECT id, tbl, kind, key, fields, first_us, last_us, seen, explained, explained_until_us \
             FROM cutover.divergences ORDER BY last_us DESC, id DESC LIMIT $1",
            vec![limit.into()],
        )
        .await?;
    rows.iter().map(Divergence::read).collect()
}

/// How many lines are not explained.
///
/// # Errors
/// See [`Fault`].
pub async fn count_open(db: &Db) -> Result<i64, Fault> {
    let rows = db
        .control(
            "SELECT count(*)::bigint FROM cutover.divergences \
             WHERE explained_until_us IS NULL OR explained_until_us < cutover.now_us()",
            vec![],
        )
        .await?;
    rows.first()
        .ok_or_else(|| Fault::Unexpected("a count without a row".to_owned()))?
        .some_int(0)
}

/// Marks a line as expected until a time, in the transaction of the action's audit record. `false`: there
/// is no such line.
///
/// # Errors
/// See [`Fault`].
pub async fn explain(tx: &mut Tx, id: i64, reason: &str, until_us: i64) -> Result<bool, Fault> {
    let rows = tx
        .control(
            "UPDATE cutover.divergences SET explained = $2, explained_until_us = $3 WHERE id = $1 RETURNING id",
            vec![id.into(), reason.into(), until_us.into()],
        )
        .await?;
    Ok(!rows.is_empty())
}

impl Divergence {
    fn read(row: &Record) -> Result<Self, Fault> {
        Ok(Self {
            id: row.some_int(0)?,
            table: row.some_text(1)?,
            kind: row.some_text(2)?,
            key: row.text(3)?.filter(|key| !key.is_empty()),
            fields: row.some_text(4)?,
            first_us: row.some_int(5)?,
            last_us: row.some_int(6)?,
            seen: row.some_int(7)?,
            explained: row.text(8)?,
            explained_until_us: row.int(9)?,
        })
    }
}
