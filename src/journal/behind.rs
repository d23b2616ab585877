//! What a removal in storage has to wait for.
//!
//! A removal there may take along what refers to the row, at any depth. In legacy it took along what referred to it
//! *then*: rows that were made to refer to another row before are still there. Storage must have that first, or rows
//! go that nobody ever owes again. So a removal is paid when nothing older is open in the tables that it can reach.
//! Older means: appended before, or standing for an entry that was.

use std::collections::{BTreeMap, BTreeSet};

use super::Direction;
use super::floor::FLOOR;
use super::stripes::{seq_is_in, seq_list};
use crate::contract::Token;
use crate::sql::{Db, Fault};

/// A removal that is to be paid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    /// Its entry.
    pub seq: i64,
    /// Its table.
    pub table: String,
}

/// What is open beside some removals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Older {
    /// By table, the oldest number that an open entry stands for which is none of the removals'.
    others: BTreeMap<String, i64>,
    /// The oldest number that a removal's entry stands for, where that is not its own.
    since: BTreeMap<i64, i64>,
}

/// Reads what is open beside these removals, of all tables.
///
/// # Errors
/// See [`Fault`].
pub async fn older_than(
    db: &Db,
    direction: Direction,
    removals: &[Removal],
) -> Result<Older, Fault> {
    let seqs: Vec<i64> = removals.iter().map(|removal| removal.seq).collect();
    let Some(last) = seqs.iter().max() else {
        return Ok(Older::default());
    };
    let open = format!(
        "cutover.journal WHERE seq >= {FLOOR} AND direction = $1 \
         AND generation = (SELECT generation FROM cutover.state) AND coalesce(parked, '') <> 'quarantined'"
    );
    let sql = format!(
        "SELECT o.tbl, min(o.since), CASE WHEN e.value IS NULL THEN NULL ELSE max(o.seq) END FROM ( \
         SELECT seq, tbl, CASE WHEN since > 0 THEN since ELSE seq END AS since FROM {open} AND seq < $2 \
         UNION ALL SELECT seq, tbl, since FROM {open} AND since > 0 AND since < $2 AND seq >= $2) AS o \
         LEFT JOIN cutover.each($3) AS e ON e.value = CAST(o.seq AS text) \
         GROUP BY o.tbl, e.value"
    );
    let last = last.saturating_add(1);
    let args = vec![direction.as_str().into(), last.into(), seq_list(&seqs)];
    let mut older = Older::default();
    for row in db.control(&sql, args).await? {
        let (table, since) = (row.some_text(0)?, row.some_int(1)?);
        match row.int(2)? {
            Some(seq) => drop(older.since.insert(seq, since)),
            None => drop(older.others.insert(table, since)),
        }
    }
    Ok(older)
}

/// Notes that storage is about to be asked to remove the rows of these entries, on those that are this token's. The note
/// stays until they are settled: whoever puts such a row then cannot know whether a removal was carried out before.
///
/// # Errors
/// See [`Fault`].
pub async fn note_removals(db: &Db, token: Token, seqs: &[i64]) -> Result<(), Fault> {
    if seqs.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE cutover.journal SET removing = true WHERE token = $2::uuid AND NOT removing AND {} \
         RETURNING seq",
        seq_is_in(db.dialect(), "$1")
    );
    let args = vec![seq_list(seqs), token.into()];
    db.control(&sql, args).await.map(drop)
}

impl Older {
    /// Those of the removals that must wait. `reached` tells the tables whose rows go or change with a row of a table,
    /// at any depth.
    #[must_use]
    pub fn hold(
        &self,
        removals: &[Removal],
        reached: impl Fn(&str) -> BTreeSet<String>,
    ) -> BTreeSet<i64> {
        let mut removals: Vec<&Removal> = removals.iter().collect();
        removals.sort_by_key(|removal| removal.seq);
        let mut held = BTreeSet::new();
        for removal in &removals {
            let reached = reached(&removal.table);
            let mut others = reached.iter().filter_map(|table| self.others.get(table));
            let beside = removals.iter().filter(|other| other.seq != removal.seq);
            // Another that came before and may be paid is paid first; it matters only if it has to wait itself.
            let mut waits_for = beside.filter(|other| {
                reached.contains(&other.table)
                    && self.since.get(&other.seq).copied().unwrap_or(other.seq) < removal.seq
                    && (other.seq > removal.seq || held.contains(&other.seq))
            });
            if others.any(|&since| since < removal.seq) || waits_for.next().is_some() {
                held.insert(removal.seq);
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(seq: i64, table: &str) -> Removal {
        let table = table.to_owned();
        Removal { seq, table }
    }

    /// `a` takes `b` along, and that `c`; `tree` is a tree.
    fn reached(table: &str) -> BTreeSet<String> {
        let reached: &[&str] = match table {
            "a" => &["b", "c"],
            "b" => &["c"],
            "tree" => &["tree"],
            _ => &[],
        };
        reached.iter().map(|&name| name.to_owned()).collect()
    }

    fn held(others: &[(&str, i64)], since: &[(i64, i64)], removals: &[Removal]) -> Vec<i64> {
        let others = others.iter().map(|&(table, seq)| (table.to_owned(), seq));
        let older = Older {
            others: others.collect(),
            since: since.iter().copied().collect(),
        };
        older.hold(removals, reached).into_iter().collect()
    }

    #[test]
    fn a_removal_waits_for_what_is_older_and_within_its_reach() {
        let a = [removal(5, "a")];
        assert_eq!(held(&[("c", 4)], &[], &a), [5]);
        assert!(held(&[("c", 6), ("a", 1), ("tree", 1)], &[], &a).is_empty());
    }

    #[test]
    fn removals_go_together_unless_one_that_came_before_waits() {
        let both = [
            removal(7, "a"),
            removal(5, "b"),
            removal(6, "tree"),
            removal(8, "tree"),
        ];
        assert!(held(&[], &[], &both).is_empty());
        assert_eq!(held(&[("c", 4)], &[], &both), [5, 7]);
        assert_eq!(held(&[("c", 6)], &[], &both), [7]);
    }

    #[test]
    fn one_that_came_again_after_a_removal_keeps_it_waiting() {
        let both = [removal(2, "a"), removal(4, "b")];
        assert_eq!(held(&[], &[(4, 1)], &both), [2]);
        assert!(held(&[], &[], &both).is_empty());
    }
}
