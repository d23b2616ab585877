//! Claiming: taking entries to pay, so that a key's entries are paid one at a time and in order, across
//! all replicas.
//!
//! A claim is stamped in its own transaction with an absolute deadline and a fresh owner token (P1).
//! Older entries of a key are settled in favour of the newest in that same transaction, and only when
//! none of them may still have a request running (P3); as an entry names one key and is paid with the
//! row's state after the claim, the newest covers them all.

use std::collections::HashMap;
use std::time::Duration;

use super::candidates::{Outlook, Which, candidates};
use super::departures::last_departure;
use super::floor::FLOOR;
use super::stripes::{by_table, lock, seq_is_in, seq_list};
use super::{Claimed, Departure, Direction, Parked};
use crate::contract::{Epoch, Key, OpId, Token};
use crate::sql::{Arg, Db, Dialect, Fault, Record, Tx};

/// What a claim may take.
#[derive(Clone, Debug)]
pub struct ClaimOptions {
    /// Whom the entries are owed to.
    pub direction: Direction,
    /// At most this many keys.
    pub batch_max: usize,
    /// How long a request made under the claim may run: the deadline it carries.
    pub lease: Duration,
    /// Clocks may differ by this much: nobody claims again before deadline plus this.
    pub clock_skew_max: Duration,
    /// The epoch known before claiming. An older one means that history was lost (P16): then nothing is claimed,
    /// because a payment would overwrite what may be the only copy.
    pub epoch_min: Epoch,
}

/// Entries claimed together.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Proves ownership when settling.
    pub token: Token,
    /// Unix microseconds, by the database's clock: when it was made.
    pub made_us: i64,
    /// Unix microseconds: requests under this claim must not commit later.
    pub deadline_us: i64,
    /// The epoch the claim was made under.
    pub epoch: Epoch,
    /// The last departure that was noted before it: rows that are read from now on are what that left.
    pub departure: Departure,
    /// One per key, in journal order.
    pub entries: Vec<Claimed>,
    /// Whether it looked at as many keys as it may take: there may be more.
    pub is_full: bool,
}

/// An entry of a claimed key, as the fresh statement under the stripe lock sees it.
struct Open {
    seq: i64,
    table: String,
    key: Key,
    kind_is_intent: bool,
    /// Until then a request of its claim may run (clock skew included), or it rests.
    busy_until_us: i64,
    op_id: Option<OpId>,
    created_us: i64,
    attempts: i64,
    removing: bool,
    bypass: bool,
    left: Option<Departure>,
    noted: Departure,
}

/// Which entries to settle, which to claim.
#[derive(Default)]
struct Choice {
    skipped: Vec<i64>,
    claimed: Vec<Claimed>,
    /// Those of the claimed that stand for skipped ones.
    standing: Vec<i64>,
}

/// Claims `copy` entries whose turn it is.
///
/// # Errors
/// See [`Fault`]; nothing is claimed then.
pub async fn claim(
    db: &Db,
    options: &ClaimOptions,
    outlook: &Outlook,
) -> Result<Option<Claim>, Fault> {
    claim_where(db, options, Which::Unparked, outlook).await
}

/// Claims entries that a constraint parked, to try them again with the current row (P13): of those whose rest is
/// over, those whose rest was over at `rested_us`, where that is given.
///
/// # Errors
/// See [`Fault`].
pub async fn claim_parked(
    db: &Db,
    options: &ClaimOptions,
    outlook: &Outlook,
    rested_us: Option<i64>,
) -> Result<Option<Claim>, Fault> {
    claim_where(db, options, Which::Parked { rested_us }, outlook).await
}

async fn claim_where(
    db: &Db,
    options: &ClaimOptions,
    which: Which,
    outlook: &Outlook,
) -> Result<Option<Claim>, Fault> {
    let heads = candidates(db, options, which, outlook).await?;
    if heads.is_empty() {
        return Ok(None);
    }
    let mut tx = db.begin().await?;
    let (epoch, generation) = epoch_and_generation(&mut tx).await?;
    if epoch < options.epoch_min {
        return Ok(None);
    }
    lock(
        &mut tx,
        heads.iter().map(|(table, key)| (table.as_str(), key)),
    )
    .await?;
    let now_us = now(&mut tx).await?;
    let open = open_entries(
        &mut tx,
        options.direction,
        generation,
        options.clock_skew_max,
        &heads,
    )
    .await?;
    let choice = choose(open, now_us);
    if choice.claimed.is_empty() {
        return Ok(None);
    }
    let token = Token::fresh();
    let deadline_us = now_us + micros(options.lease);
    let departure = last_departure(&mut tx).await?;
    let seqs: Vec<i64> = choice.claimed.iter().map(|entry| entry.seq).collect();
    let claim = format!(
        "UPDATE cutover.journal SET token = $1::uuid, deadline_us = $2, attempts = attempts + 1, parked = NULL \
         WHERE {}",
        seq_is_in(tx.dialect(), "$3")
    );
    let args = vec![token.into(), deadline_us.into(), seq_list(&seqs)];
    tx.control(&claim, args).await?;
    if !choice.skipped.is_empty() {
        let named = seq_is_in(tx.dialect(), "$1");
        let since = format!(
            "UPDATE cutover.journal AS j SET (since, removing) = ( \
             SELECT min(CASE WHEN o.since > 0 THEN o.since ELSE o.seq END), \
             max(CASE WHEN o.removing THEN 1 ELSE 0 END) = 1 FROM cutover.journal o \
             WHERE o.tbl = j.tbl AND o.key = j.key AND o.direction = j.direction \
             AND o.generation = j.generation AND o.seq + 0 >= {FLOOR}) \
             WHERE {named}"
        );
        tx.control(&since, vec![seq_list(&choice.standing)]).await?;
        let skip = format!("DELETE FROM cutover.journal WHERE {named}");
        tx.control(&skip, vec![seq_list(&choice.skipped)]).await?;
    }
    tx.commit().await?;
    Ok(Some(Claim {
        token,
        made_us: now_us,
        deadline_us,
        epoch,
        departure,
        entries: choice.claimed,
        is_full: heads.len() >= options.batch_max,
    }))
}

/// Every open entry of these keys, oldest first, whatever its kind.
async fn open_entries(
    tx: &mut Tx,
    direction: Direction,
    generation: i64,
    skew: Duration,
    keys: &[(String, Key)],
) -> Result<Vec<Open>, Fault> {
    let sql = format!(
        "SELECT j.seq, j.tbl, j.key, j.kind, \
         CASE WHEN j.token IS NULL THEN j.not_before_us ELSE j.deadline_us + $5 END, \
         j.op_id::text, j.created_us, j.attempts, j.bypass, \
         CASE WHEN j.leaves THEN j.left_by END, j.noted, j.removing FROM {} \
         WHERE j.direction = $3 AND j.generation = $4",
        entries_of_keys(tx.dialect())
    );
    let mut open = Vec::with_capacity(keys.len());
    for (table, keys) in by_table(keys) {
        let args = vec![
            keys,
            table.into(),
            direction.as_str().into(),
            generation.into(),
            micros(skew).into(),
        ];
        for row in tx.control(&sql, args).await? {
            open.push(Open::read(&row)?);
        }
    }
    open.sort_by_key(|entry| entry.seq);
    Ok(open)
}

/// The entries of table `$2` with the keys `$1`, each looked up by the index. Left to itself, PostgreSQL reads the
/// whole journal instead: it grows and shrinks faster than its statistics follow. That is also why the index goes on
/// with `seq + 0`: at a condition on `seq` it may walk the primary key from the floor on, once for each key.
pub(super) fn entries_of_keys(dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => format!(
            "cutover.each($1) AS k CROSS JOIN LATERAL (SELECT * FROM cutover.journal \
             WHERE tbl = $2 AND key = k.value AND seq + 0 >= {FLOOR} OFFSET 0) AS j"
        ),
        Dialect::Sqlite => "cutover.each($1) AS k CROSS JOIN cutover.journal AS j \
             ON j.tbl = $2 AND j.key = k.value"
            .to_owned(),
    }
}

impl Open {
    fn read(row: &Record) -> Result<Self, Fault> {
        Ok(Self {
            seq: row.some_int(0)?,
            table: row.some_text(1)?,
            key: Key(row.some_text(2)?),
            kind_is_intent: row.some_text(3)? == "intent",
            busy_until_us: row.some_int(4)?,
            op_id: row.text(5)?.and_then(|text| text.parse().ok()).map(OpId),
            created_us: row.some_int(6)?,
            attempts: row.some_int(7)?,
            bypass: row.some_bool(8)?,
            left: row.int(9)?.map(Departure),
            noted: Departure(row.some_int(10)?),
            removing: row.some_bool(11)?,
        })
    }
}

/// Per key: nothing while any of its entries may still have a request running or is an intent; else the
/// newest is claimed and stands for the older ones.
fn choose(open: Vec<Open>, now_us: i64) -> Choice {
    let mut by_key: HashMap<(String, Key), Vec<Open>> = HashMap::new();
    for entry in open {
        by_key
            .entry((entry.table.clone(), entry.key.clone()))
            .or_default()
            .push(entry);
    }
    let mut choice = Choice::default();
    for mut entries in by_key.into_values() {
        let held = entries
            .iter()
            .any(|entry| entry.kind_is_intent || entry.busy_until_us >= now_us);
        let Some(newest) = entries.pop() else {
            continue;
        };
        if held {
            continue;
        }
        // An entry is counted when it is first looked at, and never again.
        let bypassed = entries
            .iter()
            .chain([&newest])
            .filter(|entry| entry.bypass && entry.attempts == 0)
            .count();
        let marks = entries.iter().chain([&newest]);
        let left = marks.clone().filter_map(|entry| entry.left).max();
        let noted = marks.map(|entry| entry.noted).min();
        let removing = entries.iter().chain([&newest]).any(|entry| entry.removing);
        if !entries.is_empty() {
            choice.standing.push(newest.seq);
        }
        choice.skipped.extend(entries.iter().map(|entry| entry.seq));
        let created_us = entries
            .first()
            .map_or(newest.created_us, |oldest| oldest.created_us);
        choice.claimed.push(Claimed {
            seq: newest.seq,
            table: newest.table,
            key: newest.key,
            op_id: newest.op_id,
            created_us,
            attempts: newest.attempts + 1,
            removing,
            bypassed,
            left,
            noted: noted.unwrap_or(newest.noted),
        });
    }
    choice.claimed.sort_by_key(|entry| entry.seq);
    choice
}

pub(super) fn uuid_at(row: &Record, index: usize) -> Result<uuid::Uuid, Fault> {
    row.some_text(index)?
        .parse()
        .map_err(|_| Fault::Unexpected(format!("column {index} is not a UUID")))
}

pub(super) async fn epoch_and_generation(tx: &mut Tx) -> Result<(Epoch, i64), Fault> {
    let rows = tx
        .control("SELECT epoch, generation FROM cutover.state", vec![])
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| Fault::Unexpected("cutover.state is empty".to_owned()))?;
    Ok((Epoch(row.some_int(0)?), row.some_int(1)?))
}

/// The time of the database.
pub(super) async fn now(tx: &mut Tx) -> Result<i64, Fault> {
    let rows = tx.control("SELECT cutover.now_us()", vec![]).await?;
    rows.first()
        .ok_or_else(|| Fault::Unexpected("no clock".to_owned()))?
        .some_int(0)
}

/// A duration in the journal's unit.
#[must_use]
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Claim {
    /// Settles what was paid: the entries leave the journal if they are still this claim's (P2).
    /// Returns the sequence numbers that were.
    ///
    /// # Errors
    /// See [`Fault`]; the entries stay and are paid again, which is harmless.
    pub async fn settle(&self, db: &Db, seqs: &[i64]) -> Result<Vec<i64>, Fault> {
        let settle = format!(
            "DELETE FROM cutover.journal WHERE token = $1::uuid AND {} RETURNING seq",
            seq_is_in(db.dialect(), "$2")
        );
        let args = vec![self.token.into(), seq_list(seqs)];
        let rows = db.control(&settle, args).await?;
        rows.iter().map(|row| row.some_int(0)).collect()
    }

    /// Gives entries back that were certainly not paid, not to be tried before `delay` has passed.
    ///
    /// # Errors
    /// See [`Fault`]; the claim then runs out by itself.
    pub async fn release(
        &self,
        db: &Db,
        seqs: &[i64],
        delay: Duration,
        parked: Option<Parked>,
    ) -> Result<(), Fault> {
        if seqs.is_empty() {
            return Ok(());
        }
        let release = format!(
            "UPDATE cutover.journal SET token = NULL, deadline_us = 0, \
             not_before_us = CASE WHEN $3 = 0 THEN 0 ELSE cutover.now_us() + $3 END, parked = $4 \
             WHERE token = $1::uuid AND {}",
            seq_is_in(db.dialect(), "$2")
        );
        let args = vec![
            self.token.into(),
            seq_list(seqs),
            micros(delay).into(),
            Arg::Text(parked.map(|parked| parked.as_str().to_owned())),
        ];
        db.control(&release, args).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(seq: i64, key: &str, busy_until_us: i64, intent: bool) -> Open {
        Open {
            seq,
            table: "t".to_owned(),
            key: Key(key.to_owned()),
            kind_is_intent: intent,
            busy_until_us,
            op_id: None,
            created_us: seq,
            attempts: 0,
            removing: false,
            bypass: true,
            left: None,
            noted: Departure(seq),
        }
    }

    #[test]
    fn the_newest_entry_stands_for_the_older_ones_of_its_key() {
        let choice = choose(
            vec![
                open(1, "a", 0, false),
                open(2, "b", 0, false),
                open(3, "a", 0, false),
            ],
            100,
        );
        let claimed: Vec<i64> = choice.claimed.iter().map(|entry| entry.seq).collect();
        assert_eq!(claimed, [2, 3]);
        assert_eq!(choice.skipped, [1]);
        assert_eq!(choice.claimed[1].created_us, 1);
        assert_eq!(choice.claimed[1].bypassed, 2);
    }

    #[test]
    fn what_one_entry_of_a_key_knows_of_a_departure_the_newest_says_too() {
        let left = |seq, number| Open {
            left: Some(Departure(number)),
            ..open(seq, "a", 0, false)
        };
        let choice = choose(vec![left(1, 7), left(2, 5), open(3, "a", 0, false)], 100);
        assert_eq!(choice.claimed[0].seq, 3);
        assert_eq!(choice.claimed[0].left, Some(Departure(7)));
        assert_eq!(choice.claimed[0].noted, Departure(1));
    }

    #[test]
    fn nothing_of_a_key_is_claimed_while_a_request_of_it_may_run() {
        let choice = choose(vec![open(1, "a", 100, false), open(2, "a", 0, false)], 100);
        assert!(choice.claimed.is_empty() && choice.skipped.is_empty());
        let choice = choose(vec![open(1, "a", 99, false), open(2, "a", 0, false)], 100);
        assert_eq!(choice.claimed.len(), 1);
    }

    #[test]
    fn an_intent_keeps_its_key_from_being_claimed() {
        let choice = choose(vec![open(1, "a", 0, true), open(2, "a", 0, false)], 100);
        assert!(choice.claimed.is_empty());
    }
}
