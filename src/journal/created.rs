//! Rows that callers created while legacy is paid, remembered for removals that are yet to be written down.
//!
//! What storage's foreign keys took along is found by following legacy's rows from the one that was removed
//! (`departures`). But a removal is written down after its answer, by whichever replica did it, and nothing waits for
//! that. A row that it took along may meanwhile be created again, be paid, and refer to another row than before: then no
//! trail leads from the removed row to it, nor to what hung on it. Only callers' writes create rows. So each
//! that may have been taken along, with others hanging on it, is noted here in the transaction that owes it; and
//! whoever has followed a departure then owes, as rows that may have left, those of the tables below that were noted
//! since the cause of the departure was sent.
//!
//! None is missed. What was created again after the removal is noted here before whoever followed the departure asks,
//! and is found; or after it, and then it was sent before the departure got its number, which whoever pays it asks for
//! (`carried_by`); or it was sent later still. Then the look found the trail whole, unless another write had changed that
//! in storage before the removal. That one was sent before the departure as well and was still owed then, so whoever
//! pays it asks for the departure, or finds the row gone.
//!
//! "Since" is counted in departures, without clocks: a write was sent after the last departure that its replica knew of
//! by then. Replicas count on every second (`tick`), so that what they know is never much older.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::append::{Copies, append_copies};
use super::claim::micros;
use super::departures::{KEPT, OWED_SINCE, counted};
use super::gate::commit_under;
use super::stripes::{json_list, seq_is_in, seq_list};
use super::{Departure, Direction, Left};
use crate::contract::{Epoch, Key};
use crate::sql::{Arg, Db, Fault, Tx};

/// Rows that are owed in one transaction.
const PAGE: usize = 500;

/// A write that was sent longer ago than this is not written down any more, because rows may be forgotten here that it
/// has to do with: legacy is stale then.
pub const SENT_AGE_MAX: Duration = Duration::from_secs(1800);

/// Notes rows as created, in the transaction that owes them.
///
/// # Errors
/// See [`Fault`].
pub async fn note_created(tx: &mut Tx, table: &str, keys: &[Key]) -> Result<(), Fault> {
    let texts: Vec<&str> = keys.iter().map(|key| key.0.as_str()).collect();
    tx.control(
        "INSERT INTO cutover.created (tbl, key, number, at_us) \
         SELECT $1, e.value, d.number, cutover.now_us() \
         FROM cutover.departures d, cutover.each($2) AS e WHERE d.name = ''",
        vec![table.into(), json_list(&texts)],
    )
    .await
    .map(drop)
}

/// Owes legacy the rows of these tables that were noted since a departure, as rows that may have left, and forgets them:
/// each is looked at once, whatever else departs.
///
/// # Errors
/// See [`Fault`]. Must not be cancelled half-way.
pub async fn owe_created(
    db: &Db,
    epoch: Epoch,
    tables: &BTreeSet<String>,
    since: Departure,
) -> Result<(), Fault> {
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    loop {
        let mut tx = db.begin().await?;
        // Counted before they are deleted: another replica may take some of them.
        let noted = "SELECT seq FROM cutover.created WHERE tbl IN (SELECT e.value FROM cutover.each($1) AS e) \
                     AND number >= $2 ORDER BY seq LIMIT $3";
        let page = Arg::Int(i64::try_from(PAGE).ok());
        let args = vec![json_list(&names), since.0.into(), page];
        let seqs = tx.control(noted, args).await?;
        let seqs: Vec<i64> = seqs
            .iter()
            .map(|row| row.some_int(0))
            .collect::<Result<_, _>>()?;
        let is_last = seqs.len() < PAGE;
        let take = format!(
            "DELETE FROM cutover.created WHERE {} RETURNING tbl, key",
            seq_is_in(tx.dialect(), "$1")
        );
        let rows = tx.control(&take, vec![seq_list(&seqs)]).await?;
        let mut found: BTreeMap<String, BTreeSet<Key>> = BTreeMap::new();
        for row in &rows {
            let keys = found.entry(row.some_text(0)?).or_default();
            keys.insert(Key(row.some_text(1)?));
        }
        for (table, keys) in found {
            let keys: Vec<Key> = keys.into_iter().collect();
            let copies = Copies {
                direction: Direction::ToLegacy,
                table: &table,
                keys: &keys,
                op_id: None,
                left: Left::ByNow,
                noted: Some(since),
            };
            append_copies(&mut tx, copies).await?;
        }
        commit_under(tx, epoch).await?;
        if is_last {
            return Ok(());
        }
    }
}

/// Counts on, as if something had departed. Returns the number.
///
/// # Errors
/// See [`Fault`].
pub async fn tick(db: &Db) -> Result<Departure, Fault> {
    let count =
        "UPDATE cutover.departures SET number = number + 1 WHERE name = '' RETURNING number";
    counted(&db.control(count, vec![]).await?)
}

/// Forgets rows that no departure can need any more, at most `batch_max`. Returns how many. One whose cause is still
/// owed keeps what was noted since.
///
/// # Errors
/// See [`Fault`].
pub async fn prune_created(db: &Db, batch_max: i64) -> Result<usize, Fault> {
    let forget = format!(
        "DELETE FROM cutover.created WHERE seq IN (SELECT c.seq FROM cutover.created c \
         WHERE c.at_us < cutover.now_us() - $1 AND c.number < coalesce({OWED_SINCE}, c.number + 1) \
         LIMIT $2) RETURNING seq"
    );
    let args = vec![micros(KEPT).into(), batch_max.into()];
    Ok(db.control(&forget, args).await?.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::Bench;

    const EPOCH: Epoch = Epoch(7);

    impl Bench {
        async fn creates(&self, table: &str, key: &str) {
            let mut tx = self.db.begin().await.unwrap();
            let keys = [Key(key.to_owned())];
            note_created(&mut tx, table, &keys).await.unwrap();
            tx.commit().await.unwrap();
        }

        async fn owes_created(&self, table: &str, since: Departure) {
            let tables = BTreeSet::from([table.to_owned()]);
            let owed = owe_created(&self.db, EPOCH, &tables, since).await;
            owed.unwrap();
        }

        async fn owed(&self) -> Vec<String> {
            let owed = "SELECT tbl || key FROM cutover.journal WHERE leaves ORDER BY seq";
            let rows = self.db.control(owed, vec![]).await.unwrap();
            rows.iter().map(|row| row.some_text(0).unwrap()).collect()
        }
    }

    #[tokio::test]
    async fn what_was_created_since_a_write_was_sent_is_owed_once_as_rows_that_may_have_left() {
        let bench = Bench::new().await;
        bench.creates("rows", "[1]").await;
        let sent = tick(&bench.db).await.unwrap();
        for key in ["[2]", "[3]", "[2]"] {
            bench.creates("rows", key).await;
        }
        bench.creates("others", "[4]").await;
        bench.owes_created("rows", sent).await;
        assert_eq!(bench.owed().await, ["rows[2]", "rows[3]"]);
        bench.owes_created("rows", sent).await;
        assert_eq!(bench.owed().await.len(), 2);
        bench.owes_created("rows", Departure(0)).await;
        assert_eq!(bench.owed().await[2..], ["rows[1]"]);
    }

    #[tokio::test]
    async fn more_than_are_owed_at_once_are_owed_all_the_same() {
        let bench = Bench::new().await;
        let many = 2 * PAGE;
        let mut tx = bench.db.begin().await.unwrap();
        let keys: Vec<Key> = (0..many).map(|id| Key(format!("[{id}]"))).collect();
        note_created(&mut tx, "rows", &keys).await.unwrap();
        tx.commit().await.unwrap();
        bench.owes_created("rows", Departure(0)).await;
        assert_eq!(bench.owed().await.len(), many);
    }

    #[tokio::test]
    async fn rows_are_forgotten_when_they_are_old_and_nothing_that_was_sent_before_is_owed() {
        let bench = Bench::new().await;
        bench.creates("rows", "[1]").await;
        let forgotten = async || prune_created(&bench.db, 10).await.unwrap();
        assert_eq!(forgotten().await, 0);
        let age = "UPDATE cutover.created SET at_us = 1";
        bench.db.control(age, vec![]).await.unwrap();
        bench.owes_legacy(Departure(0)).await;
        assert_eq!(forgotten().await, 0);
        bench.pays_all().await;
        assert_eq!(forgotten().await, 1);
    }
}
