//! Advisory locks on stripes of keys (rule P4).
//!
//! Two READ COMMITTED transactions can both find "no open entry" and both insert one. Whoever checks a
//! key's entries before acting takes the key's stripe first, in order, and checks in a later statement:
//! the lock orders the checks, the open entry outlives the lock. SQLite has one writer, so its
//! `BEGIN IMMEDIATE` is the lock.

use std::collections::BTreeMap;

use crate::contract::Key;
use crate::sql::{Arg, Dialect, Fault, Tx};

/// The class of our advisory locks on stripes (the first of the two 32-bit lock keys).
const STRIPE_CLASS: i32 = 0x0063_7574;

/// What is to be locked. Two that only share a stripe do not keep each other out.
#[derive(Default, Debug)]
pub(super) struct Stripes {
    alone: Vec<String>,
    shared: Vec<String>,
}

impl Stripes {
    /// A key whose entries are about to be checked.
    pub(super) fn key(&mut self, table: &str, key: &Key) {
        self.alone.push(name_of(table, key));
    }

    /// A key that others may check as well: a row that is pointed at.
    pub(super) fn shared_key(&mut self, table: &str, key: &Key) {
        self.shared.push(name_of(table, key));
    }

    /// A table as a whole, which has a stripe of its own.
    pub(super) fn table(&mut self, table: &str) {
        self.alone.push(table.to_owned());
    }

    /// The same, beside others.
    pub(super) fn shared_table(&mut self, table: &str) {
        self.shared.push(table.to_owned());
    }

    /// Takes them, in one order everywhere, until the transaction ends.
    pub(super) async fn lock(&self, tx: &mut Tx) -> Result<(), Fault> {
        match tx.dialect() {
            Dialect::Sqlite => Ok(()),
            Dialect::Postgres => {
                let sql = format!(
                    "SELECT count(CASE WHEN s.alone THEN pg_advisory_xact_lock({STRIPE_CLASS}, s.stripe)::text \
                     ELSE pg_advisory_xact_lock_shared({STRIPE_CLASS}, s.stripe)::text END) FROM (\
                     SELECT hashtext(n.name) & 255 AS stripe, bool_or(n.alone) AS alone FROM (\
                     SELECT e.value AS name, true AS alone FROM cutover.each($1) AS e UNION ALL \
                     SELECT e.value, false FROM cutover.each($2) AS e) AS n GROUP BY 1 ORDER BY 1) AS s"
                );
                let names = vec![json_list(&self.alone), json_list(&self.shared)];
                tx.fetch(&sql, names).await.map(drop)
            }
        }
    }
}

/// Takes the stripes of these keys until the transaction ends.
pub(super) async fn lock<'a>(
    tx: &mut Tx,
    keys: impl IntoIterator<Item = (&'a str, &'a Key)>,
) -> Result<(), Fault> {
    let mut stripes = Stripes::default();
    for (table, key) in keys {
        stripes.key(table, key);
    }
    stripes.lock(tx).await
}

/// A row as one text, as the journal's statements compare it.
pub(super) fn name_of(table: &str, key: &Key) -> String {
    format!("{table}{key}")
}

/// A list as one parameter: a JSON array of texts, unfolded by `cutover.each`.
pub(super) fn json_list<S: AsRef<str>>(items: &[S]) -> Arg {
    let texts: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    Arg::Text(Some(
        serde_json::to_string(&texts).unwrap_or_else(|_| "[]".to_owned()),
    ))
}

/// Each table of these keys, and its keys as one parameter.
pub(super) fn by_table(keys: &[(String, Key)]) -> impl Iterator<Item = (&str, Arg)> {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (table, key) in keys {
        tables.entry(table).or_default().push(&key.0);
    }
    tables
        .into_iter()
        .map(|(table, keys)| (table, json_list(&keys)))
}

/// Whether an entry's number is in the list that a parameter holds. As an array PostgreSQL looks each up by the
/// primary key; from a subquery it would read the whole journal.
pub(super) fn seq_is_in(dialect: Dialect, parameter: &str) -> String {
    let listed = format!("SELECT e.value::bigint FROM cutover.each({parameter}) AS e");
    seq_is_among(dialect, &listed)
}

/// The same for what a subquery finds.
pub(super) fn seq_is_among(dialect: Dialect, found: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("seq = ANY (ARRAY({found}))"),
        Dialect::Sqlite => format!("seq IN ({found})"),
    }
}

/// Sequence numbers as one parameter.
pub(super) fn seq_list(seqs: &[i64]) -> Arg {
    let texts: Vec<String> = seqs.iter().map(i64::to_string).collect();
    json_list(&texts)
}
