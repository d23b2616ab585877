//! The floor of the journal: below it nothing is owed, nor ever will be.
//!
//! While somebody holds a transaction open for long (a row lock, a report, a dump), PostgreSQL keeps every entry that
//! was settled meanwhile, and whoever reads the journal steps over all of them: the longer it lasts, the dearer, also
//! under the gate, where every writer waits. So whoever reads the journal begins at the floor.
//!
//! It is no hint: what is below is never read, so each floor is proven. An entry gets its number before it is
//! committed, and entries are committed in any order. But whoever appends one holds a lock on the table, taken before
//! the number and held until the transaction ends (PostgreSQL, "Explicit Locking"). So first the last number is
//! read, then who holds that lock. When all of them have ended, no number up to that one can turn up any more, and
//! a statement that begins then sees all of them that are open. A settled entry does not come back: the first that is
//! open is a floor for good.
//!
//! It is kept in a table, so that a backup or a failover brings back the floor of the entries that come with it. Each is
//! a row of its own, and the highest is found by index: one row, changed again and again, would leave behind
//! just what it is to spare others. Where somebody set the sequence back, it begins anew. SQLite leaves nothing
//! behind, and its floor is 0.

use std::collections::HashSet;

use crate::sql::{Db, Dialect, Fault, Record, Tx};

/// The first number that a reader of the journal must not skip, as an expression.
pub const FLOOR: &str = "(SELECT coalesce(max(f.seq), 0) FROM cutover.journal_floor f)";

/// A floor is raised by this much at least: what few entries cost is not worth a row.
const STEP: i64 = 100;

/// Where the journal's numbers come from, where this role may know it. From a cache a session would draw lower ones
/// later.
const NUMBERS: &str = "pg_sequences WHERE schemaname = 'cutover' \
     AND sequencename = 'journal_seq_seq' AND last_value IS NOT NULL AND cache_size = 1 AND increment_by = 1";

/// Transactions that may have appended entries. A prepared one has no process.
const WRITERS: &str = "SELECT virtualtransaction, pid IS NULL FROM pg_locks \
     WHERE locktype = 'relation' AND relation = 'cutover.journal'::regclass AND mode = 'RowExclusiveLock' \
     AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// The floor is 0 again.
const FORGET: &str = "DELETE FROM cutover.journal_floor";

/// Raises the floor, look after look.
#[derive(Debug, Default)]
pub struct Sounding {
    pending: Option<Pending>,
}

/// What a look found; proven once its writers have ended.
#[derive(Debug)]
struct Pending {
    last: i64,
    writers: HashSet<String>,
}

/// Who may have entries that are not committed.
#[derive(Debug, Default)]
struct Writers {
    named: HashSet<String>,
    /// One was prepared: its name is another than before.
    prepared: bool,
}

impl Sounding {
    /// Looks once. What the look before found is proven if its writers have ended since; else it is asked
    /// again at the next.
    ///
    /// # Errors
    /// See [`Fault`]; the floor stays.
    pub async fn look(&mut self, db: &Db) -> Result<(), Fault> {
        if db.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let Some((last, are_below)) = last_number(db).await? else {
            return Ok(());
        };
        if are_below {
            tracing::warn!(
                last,
                "the journal's numbers were set back: its floor begins anew"
            );
            self.pending = None;
            return db.control(FORGET, vec![]).await.map(drop);
        }
        let now = Writers::read(db).await?;
        if let Some(pending) = &self.pending {
            if !pending.is_proven(&now) {
                return Ok(());
            }
            raise(db, pending.last).await?;
        }
        let writers = now.named;
        self.pending = Some(Pending { last, writers });
        Ok(())
    }
}

impl Pending {
    /// Whether all its writers have ended.
    fn is_proven(&self, now: &Writers) -> bool {
        !now.prepared && self.writers.is_disjoint(&now.named)
    }
}

impl Writers {
    async fn read(db: &Db) -> Result<Self, Fault> {
        let mut writers = Self::default();
        for row in db.fetch(WRITERS, vec![]).await? {
            writers.named.insert(row.some_text(0)?);
            writers.prepared |= row.some_bool(1)?;
        }
        Ok(writers)
    }
}

/// The last number that was given to an entry, and whether the next one is below the floor, as when somebody
/// restarted the sequence.
async fn last_number(db: &Db) -> Result<Option<(i64, bool)>, Fault> {
    let sql = format!("SELECT last_value, last_value + 1 < {FLOOR} FROM {NUMBERS}");
    let rows = db.control(&sql, vec![]).await?;
    let read = |row: &Record| Ok((row.some_int(0)?, row.some_bool(1)?));
    rows.first().map(read).transpose()
}

/// Notes the first open entry as the floor, or the number after `last`. No entry up to `last` is yet to come.
async fn raise(db: &Db, last: i64) -> Result<(), Fault> {
    let sql = format!(
        "INSERT INTO cutover.journal_floor (seq) SELECT o.seq FROM (SELECT coalesce(min(j.seq), $1 + 1) AS seq \
         FROM cutover.journal j WHERE j.seq >= {FLOOR} AND j.seq <= $1) AS o \
         WHERE o.seq >= {FLOOR} + {STEP} ON CONFLICT DO NOTHING"
    );
    db.control(&sql, vec![last.into()]).await.map(drop)
}

/// Removes floors that a higher one stands for.
///
/// # Errors
/// See [`Fault`].
pub async fn prune_floor(db: &Db) -> Result<(), Fault> {
    let sql = format!("DELETE FROM cutover.journal_floor WHERE seq < {FLOOR}");
    db.control(&sql, vec![]).await.map(drop)
}

/// Begins anew at 0, where history was lost: whoever brought the database back may have given out numbers anew.
///
/// # Errors
/// See [`Fault`].
pub async fn forget_floor(tx: &mut Tx) -> Result<(), Fault> {
    tx.control(FORGET, vec![]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn writers(names: &[&str]) -> Writers {
        Writers {
            named: named(names),
            prepared: false,
        }
    }

    #[test]
    fn a_floor_is_proven_when_all_have_ended_that_may_have_a_number_below() {
        let pending = Pending {
            last: 7,
            writers: named(&["3/1", "4/9"]),
        };
        assert!(!pending.is_proven(&writers(&["4/9"])));
        assert!(pending.is_proven(&writers(&["3/2", "5/1"])));
    }

    #[test]
    fn who_was_prepared_meanwhile_has_not_ended() {
        let pending = Pending {
            last: 7,
            writers: named(&["3/1"]),
        };
        let prepared = Writers {
            prepared: true,
            ..writers(&["-1/700"])
        };
        assert!(!pending.is_proven(&prepared));
    }
}
