//! What a write does to relations that act: foreign keys that take rows along when the row they point to goes
//! or changes.
//!
//! Legacy checks no foreign key for what is applied to it, so the rows that hang on a removed one must all be
//! in the removal's intent, and none may come beside it. Two marks see to that. `leaves`: the row goes, or what
//! others point at in it changes; nobody may begin to point at it. `points`: the write makes rows point
//! somewhere; a removal waits for those that were open before it marked its rows.
//!
//! Both sides check under the stripes of the rows pointed at (P4), so either the pointing write sees the mark
//! and does nothing, or the removal sees the pointing write, waits until it is in legacy, and finds its row.
//!
//! A removal waits while it holds rows, as no other write does. So of two that want each other's rows the
//! younger gives up what it holds: waits lead from older to younger only, and never in a circle.

use std::collections::BTreeSet;

use super::floor::FLOOR;
use super::stripes::{Stripes, json_list, name_of};
use crate::contract::{Key, Token};
use crate::sql::{Db, Fault, Tx};

/// A row, by table and key.
pub type Named = (String, Key);

/// What an intent's write does to relations that act.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Bonds {
    /// Rows of the intent that go, or whose columns that others point at change.
    pub leaving: BTreeSet<Named>,
    /// What the write makes rows point at.
    pub targets: Vec<Target>,
}

/// Rows that a write points at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Their table.
    pub table: String,
    /// The row; none where only the database knows which: then it may be any of the table.
    pub key: Option<Key>,
}

/// Who stands in the way of an intent that waits while it holds rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahead {
    /// Nobody.
    Nobody,
    /// Somebody who will be gone without waiting for this intent.
    Passing,
    /// An older one that may wait for this intent: give up what is held.
    Elder,
}

/// Whether the entry `o` is of an intent that may wait while it holds rows, and older than the intent `$1`.
fn is_elder() -> String {
    let open = format!("cutover.journal l WHERE l.seq >= {FLOOR}");
    format!(
        "EXISTS (SELECT 1 FROM {open} AND l.token = o.token AND l.leaves) \
         AND (SELECT min(l.seq) FROM {open} AND l.token = o.token) \
         < (SELECT min(l.seq) FROM {open} AND l.token = $1::uuid)"
    )
}

impl Bonds {
    /// What to lock for opening `keys` of the intent. The rows pointed at are shared with others that point at
    /// them, and not with who removes them. Who cannot tell which row it points at takes the whole table from
    /// those who remove rows of it.
    pub(super) fn stripes(&self, keys: &[Named]) -> Stripes {
        let mut stripes = Stripes::default();
        for (table, key) in keys {
            stripes.key(table, key);
        }
        for target in &self.targets {
            match &target.key {
                Some(key) => stripes.shared_key(&target.table, key),
                None => stripes.table(&target.table),
            }
        }
        let tables: BTreeSet<&str> = self
            .leaving
            .iter()
            .map(|(table, _)| table.as_str())
            .collect();
        for table in tables {
            stripes.shared_table(table);
        }
        stripes
    }
}

/// Whether a row that is pointed at is about to go. A removal that legacy refused keeps its mark until storage
/// has the rows again.
pub(super) async fn is_leaving(tx: &mut Tx, targets: &[Target]) -> Result<bool, Fault> {
    if targets.is_empty() {
        return Ok(false);
    }
    let (mut rows, mut tables) = (Vec::new(), Vec::new());
    for target in targets {
        match &target.key {
            Some(key) => rows.push(name_of(&target.table, key)),
            None => tables.push(target.table.as_str()),
        }
    }
    let sql = format!(
        "SELECT 1 FROM cutover.journal WHERE leaves AND seq >= {FLOOR} \
         AND generation = (SELECT generation FROM cutover.state) \
         AND ((tbl || key) IN (SELECT e.value FROM cutover.each($1) AS e) \
         OR tbl IN (SELECT e.value FROM cutover.each($2) AS e)) LIMIT 1"
    );
    let args = vec![json_list(&rows), json_list(&tables)];
    Ok(!tx.control(&sql, args).await?.is_empty())
}

/// Who may still make a row of these tables point at one that this intent has marked: writes that were open
/// before its last mark, and rows on their way to legacy.
///
/// # Errors
/// See [`Fault`].
pub async fn pointing_before(db: &Db, token: Token, tables: &[&str]) -> Result<Ahead, Fault> {
    let sql = ahead(&format!(
        "o.tbl IN (SELECT e.value FROM cutover.each($2) AS e) \
         AND (o.points OR o.kind = 'copy' AND o.direction = 'legacy') AND o.seq < \
         (SELECT max(l.seq) FROM cutover.journal l WHERE l.seq >= {FLOOR} AND l.token = $1::uuid)"
    ));
    let rows = db
        .control(&sql, vec![token.into(), json_list(tables)])
        .await?;
    Ahead::read(&rows)
}

/// Who holds one of these rows, this intent aside.
pub(super) async fn holding(tx: &mut Tx, token: Token, keys: &[Named]) -> Result<Ahead, Fault> {
    let sql = ahead(
        "o.key IN (SELECT e.value FROM cutover.each($2) AS e) \
         AND (o.tbl || o.key) IN (SELECT e.value FROM cutover.each($3) AS e)",
    );
    let texts: Vec<&str> = keys.iter().map(|(_, key)| key.0.as_str()).collect();
    let names: Vec<String> = keys
        .iter()
        .map(|(table, key)| name_of(table, key))
        .collect();
    let args = vec![token.into(), json_list(&texts), json_list(&names)];
    Ahead::read(&tx.control(&sql, args).await?)
}

fn ahead(which: &str) -> String {
    let is_elder = is_elder();
    format!(
        "SELECT coalesce(max(CASE WHEN {is_elder} THEN 2 ELSE 1 END), 0)::bigint FROM cutover.journal o \
         WHERE o.seq >= {FLOOR} AND {which} AND (o.token IS NULL OR o.token <> $1::uuid) \
         AND o.generation = (SELECT generation FROM cutover.state)"
    )
}

impl Ahead {
    fn read(rows: &[crate::sql::Record]) -> Result<Self, Fault> {
        let worst = rows.first().map_or(Ok(0), |row| row.some_int(0))?;
        Ok(match worst {
            0 => Self::Nobody,
            1 => Self::Passing,
            _ => Self::Elder,
        })
    }
}
