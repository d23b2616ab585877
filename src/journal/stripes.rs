//! Advisory locks on stripes of keys (rule P4).
//!
//! Two READ COMMITTED transactions can both find "no open entry" and both insert one. Whoever checks a
//! key's entries before acting takes the key's stripe first, in order, and checks in a later statement:
//! the lock orders the checks, the open entry outlives the lock. SQLite has one writer, so its
//! `BEGIN IMMEDIATE` is the lock.

use crate::contract::Key;
use crate::sql::{Arg, Dialect, Fault, Tx};

/// The class of our advisory locks on stripes (the first of the two 32-bit lock keys).
const STRIPE_CLASS: i32 = 0x0063_7574;

/// Takes the stripes of these keys of one table until the transaction ends.
pub(super) async fn lock<'a>(
    tx: &mut Tx,
    keys: impl IntoIterator<Item = (&'a str, &'a Key)>,
) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => {
            let names: Vec<String> = keys
                .into_iter()
                .map(|(table, key)| format!("{table}{key}"))
                .collect();
            let sql = format!(
                "SELECT count(pg_advisory_xact_lock({STRIPE_CLASS}, stripe)) FROM (\
                 SELECT DISTINCT hashtext(e.value) & 255 AS stripe FROM cutover.each($1) AS e \
                 ORDER BY stripe) AS s"
            );
            tx.fetch(&sql, vec![json_list(&names)]).await.map(drop)
        }
    }
}

/// A list as one parameter: a JSON array of texts, unfolded by `cutover.each`.
pub(super) fn json_list<S: AsRef<str>>(items: &[S]) -> Arg {
    let texts: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    Arg::Text(Some(
        serde_json::to_string(&texts).unwrap_or_else(|_| "[]".to_owned()),
    ))
}

/// Whether an entry's number is in the list that a parameter holds. As an array PostgreSQL looks each up by the
/// primary key; from a subquery it would read the whole journal.
pub(super) fn seq_is_in(dialect: Dialect, parameter: &str) -> String {
    let listed = format!("SELECT e.value::bigint FROM cutover.each({parameter}) AS e");
    match dialect {
        Dialect::Postgres => format!("seq = ANY (ARRAY({listed}))"),
        Dialect::Sqlite => format!("seq IN ({listed})"),
    }
}

/// Sequence numbers as one parameter.
pub(super) fn seq_list(seqs: &[i64]) -> Arg {
    let texts: Vec<String> = seqs.iter().map(i64::to_string).collect();
    json_list(&texts)
}
