//! Departures: rows that left storage, or got another key there, while legacy is the one that is paid.
//!
//! No reply tells what storage's own foreign keys took along, so whoever pays legacy looks in legacy for what
//! refers to the row, and owes it. Beside that look somebody may be paying a row that refers to it, as he read it from
//! storage before the departure. So before anybody looks, the departure gets a number under an exclusive lock on
//! its name; and whoever puts a row takes a shared lock on the names of all that it refers to, and then asks for
//! departures after his claim. Either his row is in legacy before the number is given, and the look finds
//! it; or he sees the number, and reads again. Whether the parent is in legacy at all does not matter,
//! nor whether one with its key came back: a lock on its row would tell neither.
//!
//! A departure that was looked at also ends circles: what it owes is marked with its number, and a row that was looked
//! at under that number or a later one is not looked at again for its sake.
//!
//! Names are digests (`Relation::place`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::claim::micros;
use super::stripes::json_list;
use super::{Claim, Departure};
use crate::sql::{Arg, Db, Dialect, Fault, Record, Tx};

/// The class of our advisory locks on names (the first of the two 32-bit lock keys).
const NAME_CLASS: i32 = 0x0063_7564;
/// How long departures are kept. A claim that is as old as half of this pays nothing any more.
pub(super) const KEPT: Duration = Duration::from_secs(3600);

/// How old a claim towards legacy may be, past its deadline, to pay yet: it must still see every departure since.
const CLAIM_AGE_MAX: Duration = Duration::from_secs(1800);

/// Whose departure is noted.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// The names of the row.
    pub row: BTreeSet<String>,
    /// The names of tables whose rows it may take along.
    pub kinds: BTreeSet<String>,
    /// It left before this one was noted, or before now.
    pub before: Option<Departure>,
}

/// What of a row's payment rests on nothing having departed.
#[derive(Clone, Default, Debug)]
pub struct Ties {
    /// The names of the rows that it refers to, itself aside.
    pub refers_to: BTreeSet<String>,
    /// Itself, where it may be taken along and others may hang on it.
    pub kin: Option<Kin>,
}

/// A row that may be taken along.
#[derive(Clone, Debug)]
pub struct Kin {
    /// The name of its table.
    pub kind: String,
    /// Its own.
    pub row: String,
}

/// Of a table, `looked` is the last departure of those that its rows may have been taken along with.
const CARRIED: &str = "\
    SELECT d.looked FROM cutover.departures d WHERE d.name = $1 AND d.number > $2 \
    AND d.looked > coalesce((SELECT o.looked FROM cutover.departures o WHERE o.name = $3), 0)";

impl Kin {
    fn args(&self, after: Departure) -> Vec<Arg> {
        let (kind, row) = (self.kind.as_str(), self.row.as_str());
        vec![kind.into(), after.0.into(), row.into()]
    }
}

/// The last departure noted, as the next statement's reads are sure to come after it.
pub(super) async fn last_departure(tx: &mut Tx) -> Result<Departure, Fault> {
    let rows = tx
        .control(
            "SELECT number FROM cutover.departures WHERE name = ''",
            vec![],
        )
        .await?;
    counted(&rows)
}

/// The number that a statement gave.
pub(super) fn counted(rows: &[Record]) -> Result<Departure, Fault> {
    let row = rows.first();
    let row =
        row.ok_or_else(|| Fault::Unexpected("cutover.departures does not count".to_owned()))?;
    row.some_int(0).map(Departure)
}

/// Gives a number to a departure. What refers to the row and was read from storage before is in legacy now, or its
/// payer will see the number.
///
/// # Errors
/// See [`Fault`]. Must not be cancelled half-way.
pub async fn note_departure(db: &Db, leaving: &Leaving) -> Result<Departure, Fault> {
    let mut tx = db.begin().await?;
    let names = leaving.row.union(&leaving.kinds).cloned().collect();
    lock(&mut tx, &names, "pg_advisory_xact_lock").await?;
    let rows = tx
        .control(
            "UPDATE cutover.departures SET number = number + 1 WHERE name = '' RETURNING number",
            vec![],
        )
        .await?;
    let number = counted(&rows)?;
    let since = leaving.before.unwrap_or(number);
    for (names, looked) in [(&leaving.row, 0), (&leaving.kinds, since.0)] {
        tx.control(
            "INSERT INTO cutover.departures AS d (name, number, looked, at_us) \
             SELECT e.value, $1, $2, cutover.now_us() FROM cutover.each($3) AS e WHERE true \
             ON CONFLICT (name) DO UPDATE SET number = excluded.number, at_us = excluded.at_us, \
             looked = CASE WHEN d.looked < excluded.looked THEN excluded.looked ELSE d.looked END",
            vec![number.0.into(), looked.into(), list(names)],
        )
        .await?;
    }
    tx.commit().await?;
    Ok(number)
}

/// Whether a row that was read for a claim made after `claimed` may not be put as it was read, because something that it
/// refers to departed since; or may have been taken along since it was `looked` at. Until `tx` ends, nothing of
/// that can happen.
///
/// # Errors
/// See [`Fault`].
pub async fn is_overtaken(
    tx: &mut Tx,
    ties: &Ties,
    claimed: Departure,
    looked: Option<Departure>,
) -> Result<bool, Fault> {
    let mut names = ties.refers_to.clone();
    names.extend(ties.kin.iter().map(|kin| kin.kind.clone()));
    if names.is_empty() {
        return Ok(false);
    }
    lock(tx, &names, "pg_advisory_xact_lock_shared").await?;
    // In a statement of its own: one that waited for the lock sees what was before.
    let rows = tx
        .control(
            "SELECT 1 FROM cutover.departures \
             WHERE name IN (SELECT e.value FROM cutover.each($1) AS e) AND number > $2 LIMIT 1",
            vec![list(&ties.refers_to), claimed.0.into()],
        )
        .await?;
    match &ties.kin {
        _ if !rows.is_empty() => Ok(true),
        Some(kin) => {
            let since = looked.map_or(claimed, |looked| looked.max(claimed));
            let carried = tx.control(CARRIED, kin.args(since)).await?;
            Ok(!carried.is_empty())
        }
        None => Ok(false),
    }
}

/// The departure that may have taken a row along after the one numbered `noted`, if it was not looked at since.
///
/// # Errors
/// See [`Fault`].
pub async fn carried_by(db: &Db, kin: &Kin, noted: Departure) -> Result<Option<Departure>, Fault> {
    let rows = db.control(CARRIED, kin.args(noted)).await?;
    let by = rows.first().map(|row| row.some_int(0)).transpose()?;
    Ok(by.map(Departure))
}

/// The last departure that was known when the oldest cause of what legacy is owed was sent.
pub(super) const OWED_SINCE: &str = "(SELECT min(j.noted) FROM cutover.journal j \
    WHERE j.direction = 'legacy' AND j.kind = 'copy')";

/// Forgets departures that no payment can need any more, at most `batch_max`. Returns how many. What is owed still
/// needs those since its cause.
///
/// # Errors
/// See [`Fault`].
pub async fn prune_departures(db: &Db, batch_max: i64) -> Result<usize, Fault> {
    let forget = format!(
        "DELETE FROM cutover.departures WHERE at_us < cutover.now_us() - $1 AND name IN (\
         SELECT d.name FROM cutover.departures d WHERE d.at_us < cutover.now_us() - $1 AND d.name <> '' \
         AND d.number <= coalesce({OWED_SINCE}, d.number) LIMIT $2) RETURNING name"
    );
    let args = vec![micros(KEPT).into(), batch_max.into()];
    Ok(db.control(&forget, args).await?.len())
}

impl Departure {
    /// Whether somebody has looked at what hangs on this name since the departure. One whose number nobody knows
    /// is 0, and was not looked at.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn was_looked_at(self, db: &Db, name: &str) -> Result<bool, Fault> {
        if self == Self(0) {
            return Ok(false);
        }
        let looked = "SELECT 1 FROM cutover.departures WHERE name = $1 AND looked >= $2";
        let rows = db.control(looked, vec![name.into(), self.0.into()]).await?;
        Ok(!rows.is_empty())
    }
}

impl Claim {
    /// Notes that what hangs on the row of an entry is owed since its departure was noted: it is not looked at again for
    /// the same reason, and where all that may hang on it is owed, for which its name is given, for none before.
    ///
    /// # Errors
    /// See [`Fault`]; then it will be looked at again.
    pub async fn note_look(
        &self,
        db: &Db,
        seq: i64,
        row: Option<&str>,
        number: Departure,
    ) -> Result<(), Fault> {
        if let Some(row) = row {
            let look = "UPDATE cutover.departures SET looked = $2 WHERE name = $1 AND looked < $2";
            db.control(look, vec![row.into(), number.0.into()]).await?;
        }
        let known = "UPDATE cutover.journal SET leaves = true, left_by = $3, noted = $3 \
                     WHERE seq = $1 AND token = $2::uuid";
        let args = vec![seq.into(), self.token.into(), number.0.into()];
        db.control(known, args).await.map(drop)
    }

    /// Settles an entry in the transaction that paid it towards legacy. `false`: it is not ours any more, or the claim
    /// is too old to know of every departure, and `tx` must not commit (P2).
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn settle_in(&self, tx: &mut Tx, seq: i64) -> Result<bool, Fault> {
        let rows = tx
            .control(
                "DELETE FROM cutover.journal WHERE seq = $1 AND token = $2::uuid \
                 AND deadline_us > cutover.now_us() - $3 RETURNING seq",
                vec![seq.into(), self.token.into(), micros(CLAIM_AGE_MAX).into()],
            )
            .await?;
        Ok(!rows.is_empty())
    }
}

/// Takes the locks of names until the transaction ends, in one order everywhere. On SQLite the one writer is the
/// lock.
async fn lock(tx: &mut Tx, names: &BTreeSet<String>, how: &str) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => {
            let sql = format!(
                "SELECT count({how}({NAME_CLASS}, n.hash)::text) FROM (\
                 SELECT DISTINCT hashtext(e.value) AS hash FROM cutover.each($1) AS e ORDER BY 1) AS n"
            );
            tx.fetch(&sql, vec![list(names)]).await.map(drop)
        }
    }
}

fn list(names: &BTreeSet<String>) -> Arg {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    json_list(&names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Epoch, Token};
    use crate::journal::tests::Bench;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn leaving(row: &str, kinds: &[&str], before: Option<Departure>) -> Leaving {
        Leaving {
            row: names(&[row]),
            kinds: names(kinds),
            before,
        }
    }

    fn child() -> Kin {
        Kin {
            kind: "children".to_owned(),
            row: "child".to_owned(),
        }
    }

    async fn overtaken(
        bench: &Bench,
        ties: &Ties,
        claimed: Departure,
        looked: Option<Departure>,
    ) -> bool {
        let mut tx = bench.db.begin().await.unwrap();
        let overtaken = is_overtaken(&mut tx, ties, claimed, looked);
        overtaken.await.unwrap()
    }

    #[tokio::test]
    async fn a_row_whose_parent_departed_after_its_claim_is_read_again() {
        let bench = Bench::new().await;
        let ties = Ties {
            refers_to: names(&["parent"]),
            kin: None,
        };
        let mut tx = bench.db.begin().await.unwrap();
        let claimed = last_departure(&mut tx).await.unwrap();
        drop(tx);
        let other = note_departure(&bench.db, &leaving("other", &[], None)).await;
        assert!(other.unwrap() > claimed);
        assert!(!overtaken(&bench, &ties, claimed, None).await);
        let parent = note_departure(&bench.db, &leaving("parent", &[], None)).await;
        assert!(overtaken(&bench, &ties, claimed, None).await);
        assert!(!overtaken(&bench, &ties, parent.unwrap(), None).await);
    }

    #[tokio::test]
    async fn a_row_that_may_have_been_taken_along_is_looked_at_once_for_each_departure() {
        let bench = Bench::new().await;
        let ties = Ties {
            refers_to: BTreeSet::new(),
            kin: Some(child()),
        };
        let noted = Departure(0);
        let carried = async || carried_by(&bench.db, &child(), noted).await.unwrap();
        assert_eq!(carried().await, None);
        let parent = leaving("parent", &["children"], None);
        let first = note_departure(&bench.db, &parent).await.unwrap();
        assert_eq!(carried().await, Some(first));
        assert!(overtaken(&bench, &ties, noted, None).await);
        let own = leaving("child", &[], Some(first));
        let own = note_departure(&bench.db, &own).await.unwrap();
        assert!(!first.was_looked_at(&bench.db, "child").await.unwrap());
        let look = "UPDATE cutover.departures SET looked = 2 WHERE name = 'child'";
        bench.db.control(look, vec![]).await.unwrap();
        assert!(first.was_looked_at(&bench.db, "child").await.unwrap());
        // Found again on the way round a circle: by a later departure, but for the first one's sake.
        let round = leaving("grandchild", &["children"], Some(first));
        note_departure(&bench.db, &round).await.unwrap();
        assert_eq!(carried().await, None);
        assert!(!overtaken(&bench, &ties, noted, Some(own)).await);
        let second = note_departure(&bench.db, &parent).await.unwrap();
        assert_eq!(carried().await, Some(second));
        assert!(overtaken(&bench, &ties, noted, Some(own)).await);
    }

    #[tokio::test]
    async fn a_departure_whose_number_nobody_knows_was_never_looked_at_and_old_ones_are_forgotten()
    {
        let bench = Bench::new().await;
        let first = note_departure(&bench.db, &leaving("row", &[], None)).await;
        let look = "UPDATE cutover.departures SET looked = 9 WHERE name = 'row'";
        bench.db.control(look, vec![]).await.unwrap();
        assert!(!Departure(0).was_looked_at(&bench.db, "row").await.unwrap());
        assert_eq!(prune_departures(&bench.db, 10).await.unwrap(), 0);
        let age = "UPDATE cutover.departures SET at_us = 1";
        bench.db.control(age, vec![]).await.unwrap();
        assert_eq!(prune_departures(&bench.db, 10).await.unwrap(), 1);
        let next = note_departure(&bench.db, &leaving("row", &[], None)).await;
        assert!(next.unwrap() > first.unwrap(), "numbers grow for ever");
    }

    #[tokio::test]
    async fn a_departure_is_remembered_while_something_is_owed_whose_cause_was_sent_before() {
        let bench = Bench::new().await;
        let departed = note_departure(&bench.db, &leaving("row", &[], None)).await;
        let age = "UPDATE cutover.departures SET at_us = 1";
        bench.db.control(age, vec![]).await.unwrap();
        bench.owes_legacy(Departure(0)).await;
        assert_eq!(prune_departures(&bench.db, 10).await.unwrap(), 0);
        bench.pays_all().await;
        bench.owes_legacy(departed.unwrap()).await;
        assert_eq!(prune_departures(&bench.db, 10).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_row_of_which_only_some_that_hang_on_it_were_looked_for_was_not_looked_at() {
        let bench = Bench::new().await;
        let number = note_departure(&bench.db, &leaving("row", &[], None)).await;
        let number = number.unwrap();
        let claim = Claim {
            token: Token::fresh(),
            made_us: 0,
            deadline_us: 0,
            epoch: Epoch(7),
            departure: number,
            entries: Vec::new(),
            is_full: false,
        };
        for (row, looked) in [(None, false), (Some("row"), true)] {
            claim.note_look(&bench.db, 1, row, number).await.unwrap();
            let was = number.was_looked_at(&bench.db, "row").await;
            assert_eq!(was.unwrap(), looked);
        }
    }
}
