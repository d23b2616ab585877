//! Intents: the durable lock of a live write.
//!
//! The open entry is the lock, across replicas, with no session to lose: it is taken before storage is
//! asked, and only its owner (by token) may settle, drop or resolve it, in a transaction that proves it
//! still is one (P2). All keys of a write are opened, settled and resolved as one (P12).

use std::time::Duration;

use super::bonds::{Bonds, Named, is_leaving};
use super::claim::{entries_of_keys, micros, now, uuid_at};
use super::floor::FLOOR;
use super::gate::commit_under;
use super::operation::open_record;
use super::stripes::{by_table, json_list, seq_is_among};
use super::{Operation, OperationState, Parked, record_state};
use crate::contract::{AttemptId, Epoch, Key, OpId, Token};
use crate::sql::{Arg, Db, Dialect, Fault, Tx};

/// A live write about to be sent.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The write.
    pub op_id: OpId,
    /// Digest of its payload.
    pub digest: String,
    /// The epoch it was admitted under.
    pub epoch: Epoch,
    /// Every key it may touch, by table; not empty.
    pub keys: Vec<Named>,
    /// What it does to relations.
    pub bonds: Bonds,
    /// Its owner.
    pub token: Token,
    /// The one send it covers.
    pub attempt: AttemptId,
    /// How long the request may run.
    pub lease: Duration,
}

/// What became of opening an intent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    /// Open: the request may be sent and must not commit after this (unix microseconds).
    Until(i64),
    /// An open entry holds one of the keys, or a row that the write points to is about to go: wait and try
    /// again.
    Held,
    /// The operation has a record already; nothing was opened.
    Recorded(Operation),
}

/// Opens an intent on all its keys at once, or none. Commits synchronously (P10).
///
/// # Errors
/// See [`Fault`]. In doubt, the intent may be open: nobody sends under it, and it is resolved after its
/// deadline like any other.
pub async fn open_intent(db: &Db, intent: &Intent) -> Result<Opened, Fault> {
    let mut tx = db.begin().await?;
    durable(&mut tx).await?;
    intent.bonds.stripes(&intent.keys).lock(&mut tx).await?;
    if is_held(&mut tx, &intent.keys).await? || is_leaving(&mut tx, &intent.bonds.targets).await? {
        return Ok(Opened::Held);
    }
    if let Some(record) = open_record(&mut tx, intent.op_id, &intent.digest, intent.epoch).await? {
        return Ok(Opened::Recorded(record));
    }
    let deadline_us = now(&mut tx).await? + micros(intent.lease);
    insert(&mut tx, intent, &intent.keys, deadline_us).await?;
    commit_under(tx, intent.epoch).await?;
    Ok(Opened::Until(deadline_us))
}

/// Makes the transaction's commit a synchronous one (P10).
pub(super) async fn durable(tx: &mut Tx) -> Result<(), Fault> {
    if tx.dialect() == Dialect::Postgres {
        tx.fetch("SET LOCAL synchronous_commit = on", vec![])
            .await?;
    }
    Ok(())
}

/// Inserts the entries of these keys, in order.
pub(super) async fn insert(
    tx: &mut Tx,
    intent: &Intent,
    keys: &[Named],
    deadline_us: i64,
) -> Result<(), Fault> {
    let leaves = |named: &Named| intent.bonds.leaving.contains(named);
    let alike = |a: &Named, b: &Named| a.0 == b.0 && leaves(a) == leaves(b);
    for run in keys.chunk_by(alike) {
        let texts: Vec<&str> = run.iter().map(|(_, key)| key.0.as_str()).collect();
        let rows = tx
            .control(
                "INSERT INTO cutover.journal (generation, direction, kind, tbl, key, op_id, epoch, created_us, \
                 token, attempt_id, deadline_us, attempts, leaves, points) \
                 SELECT s.generation, 'legacy', 'intent', $1, e.value, $2::uuid, $3, cutover.now_us(), \
                 $4::uuid, $5::uuid, $6, 1, $7, $8 FROM cutover.state s, cutover.each($9) AS e RETURNING seq",
                vec![
                    run[0].0.as_str().into(),
                    intent.op_id.into(),
                    intent.epoch.into(),
                    intent.token.into(),
                    intent.attempt.into(),
                    deadline_us.into(),
                    leaves(&run[0]).into(),
                    (!intent.bonds.targets.is_empty()).into(),
                    json_list(&texts),
                ],
            )
            .await?;
        if rows.len() < run.len() {
            return Err(Fault::Unexpected("cutover.state is empty".to_owned()));
        }
    }
    Ok(())
}

/// Whether any open entry, `copy` and repair included, holds one of these keys (P4).
pub(super) async fn is_held(tx: &mut Tx, keys: &[Named]) -> Result<bool, Fault> {
    let sql = format!(
        "SELECT 1 FROM {} WHERE j.generation = (SELECT generation FROM cutover.state) LIMIT 1",
        entries_of_keys(tx.dialect())
    );
    for (table, keys) in by_table(keys) {
        if !tx.control(&sql, vec![keys, table.into()]).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Does something to the entries of these keys that are still open, intents, and this token's, and locks them until
/// the end of `tx`. `false`: not all of them were; the intent is not ours any more, and `tx` must not commit (P2).
///
/// `deed` is a statement on the journal without its condition, whose own parameters are from `$4` on.
pub(super) async fn to_intent(
    tx: &mut Tx,
    token: Token,
    keys: &[Named],
    deed: &str,
    more: &[Arg],
) -> Result<bool, Fault> {
    let dialect = tx.dialect();
    // By their keys: nothing leads from a token to its entries, and the gate may be held meanwhile.
    let of_keys = format!("SELECT j.seq FROM {}", entries_of_keys(dialect));
    let ours = format!(
        "SELECT seq FROM cutover.journal WHERE kind = 'intent' AND token = $3::uuid AND {} \
         ORDER BY seq FOR UPDATE",
        seq_is_among(dialect, &of_keys)
    );
    let sql = format!(
        "{deed} WHERE {} RETURNING seq",
        seq_is_among(dialect, &ours)
    );
    let mut met = 0;
    for (table, keys) in by_table(keys) {
        let mut args = vec![keys, table.into(), token.into()];
        args.extend_from_slice(more);
        met += tx.control(&sql, args).await?.len();
    }
    Ok(met == keys.len())
}

/// Settles the intent on these keys and records what became of its operation. `false`: as `to_intent`.
///
/// # Errors
/// See [`Fault`].
pub async fn settle_intent(
    tx: &mut Tx,
    token: Token,
    keys: &[Named],
    op_id: OpId,
    state: OperationState,
    reply: Option<&str>,
) -> Result<bool, Fault> {
    let settled = to_intent(tx, token, keys, "DELETE FROM cutover.journal", &[]).await?;
    record_state(tx, op_id, state, reply).await?;
    Ok(settled)
}

/// Drops an intent whose request certainly did not take effect, if it is still this token's: the
/// operation may be tried again. `false`: it is not ours any more, and its record tells what became of it.
///
/// # Errors
/// See [`Fault`]; the intent then stays and is resolved after its deadline.
pub async fn drop_intent(db: &Db, intent: &Intent) -> Result<bool, Fault> {
    let mut tx = db.begin().await?;
    let settled = settle_intent(
        &mut tx,
        intent.token,
        &intent.keys,
        intent.op_id,
        OperationState::NotApplied,
        None,
    );
    if !settled.await? {
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}

/// Marks an intent whose reply was not the row that was written: nobody copies storage's row from then on.
/// `false`: it is not ours any more.
///
/// # Errors
/// See [`Fault`]; the intent is then resolved like any other unless the mark is made in time.
pub async fn distrust(db: &Db, token: Token) -> Result<bool, Fault> {
    let distrust = format!(
        "UPDATE cutover.journal SET parked = $2 WHERE seq >= {FLOOR} AND kind = 'intent' AND token = $1::uuid \
         RETURNING seq"
    );
    let args = vec![token.into(), Parked::Mismatched.as_str().into()];
    let rows = db.control(&distrust, args).await?;
    Ok(!rows.is_empty())
}

/// Ends the mismatched intent that this entry belongs to, with neither side changed: nobody will know
/// what became of its operation. `false`: it is none.
pub(super) async fn accept_intent(tx: &mut Tx, seq: i64) -> Result<bool, Fault> {
    let entries = format!(
        "SELECT token::text, op_id::text, tbl, key FROM cutover.journal \
         WHERE seq >= {FLOOR} AND kind = 'intent' AND token = \
         (SELECT token FROM cutover.journal WHERE seq = $1 AND kind = 'intent' AND parked = $2) ORDER BY seq"
    );
    let args = vec![seq.into(), Parked::Mismatched.as_str().into()];
    let rows = tx.control(&entries, args).await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let (token, op_id) = (Token(uuid_at(row, 0)?), OpId(uuid_at(row, 1)?));
    let keys = rows
        .iter()
        .map(|row| Ok((row.some_text(2)?, Key(row.some_text(3)?))))
        .collect::<Result<Vec<_>, Fault>>()?;
    settle_intent(tx, token, &keys, op_id, OperationState::Unknown, None).await
}
