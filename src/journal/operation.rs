//! Operation records: what became of an operation id (invariant I2, rule P8).
//!
//! The record is written in the transaction of the write itself, so it says `done` exactly when the write
//! is in the database. Its reply is the first answer, given again to every repeat.

use super::stripes::json_list;
use crate::contract::{Epoch, OpId};
use crate::sql::{Arg, Db, Fault, Record, Tx};

/// Where an operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationState {
    /// A live write is under way, or its outcome is not known yet.
    Open,
    /// It took effect; the reply is recorded.
    Done,
    /// A rollback turned its intent into a copy: it did not take effect in legacy and is to be run again.
    Converted,
    /// It certainly did not take effect: it may be run again.
    NotApplied,
    /// Nobody will ever know.
    Unknown,
    /// Storage took it and legacy refused it: it is taken back, and every repeat hears of the refusal. The
    /// reply is the name of what refused it.
    Refused,
}

/// The record of one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Digest of the payload: the same id with another payload is a conflict.
    pub digest: String,
    /// Where it stands.
    pub state: OperationState,
    /// The first answer, JSON text; for `Refused`, the name of what refused it.
    pub reply: Option<String>,
}

impl OperationState {
    /// As the table spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Converted => "converted",
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
        }
    }

    fn read(text: &str) -> Result<Self, Fault> {
        [
            Self::Open,
            Self::Done,
            Self::Converted,
            Self::NotApplied,
            Self::Unknown,
            Self::Refused,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| Fault::Unexpected(format!("operation state {text}")))
    }

    /// Whether the operation may (still) be run.
    #[must_use]
    pub fn may_run(self) -> bool {
        match self {
            Self::Converted | Self::NotApplied => true,
            Self::Open | Self::Done | Self::Unknown | Self::Refused => false,
        }
    }
}

impl Operation {
    fn read(row: &Record) -> Result<Self, Fault> {
        Ok(Self {
            digest: row.some_text(0)?,
            state: OperationState::read(&row.some_text(1)?)?,
            reply: row.text(2)?,
        })
    }
}

const SELECT: &str = "SELECT digest, state, reply FROM cutover.operations WHERE op_id = $1::uuid";

/// The record of an operation, if there is one.
///
/// # Errors
/// See [`Fault`].
pub async fn recorded(db: &Db, op_id: OpId) -> Result<Option<Operation>, Fault> {
    let rows = db.control(SELECT, vec![op_id.into()]).await?;
    rows.first().map(Operation::read).transpose()
}

pub(super) async fn recorded_in(tx: &mut Tx, op_id: OpId) -> Result<Option<Operation>, Fault> {
    let rows = tx.control(SELECT, vec![op_id.into()]).await?;
    rows.first().map(Operation::read).transpose()
}

/// Records in the write's transaction that it took effect. `false`: another record stands in the way (it
/// is done, open or unknown) and the transaction must not commit.
///
/// # Errors
/// See [`Fault`].
pub async fn record_done(
    tx: &mut Tx,
    op_id: OpId,
    digest: &str,
    epoch: Epoch,
    reply: &str,
) -> Result<bool, Fault> {
    let rows = tx
        .control(
            "INSERT INTO cutover.operations AS o (op_id, digest, state, reply, epoch, created_us, settled_us) \
             VALUES ($1::uuid, $2, 'done', $3, $4, cutover.now_us(), cutover.now_us()) \
             ON CONFLICT (op_id) DO UPDATE SET state = 'done', reply = excluded.reply, \
             epoch = excluded.epoch, settled_us = excluded.settled_us \
             WHERE o.digest = excluded.digest \
             AND o.state IN ('converted', 'not_applied') RETURNING 1",
            vec![op_id.into(), digest.into(), reply.into(), epoch.into()],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Forgets a record that is settled, so that another operation may take its id: only for ids that a client
/// did not choose. `false`: there is none.
///
/// # Errors
/// See [`Fault`].
pub async fn forget_settled(db: &Db, op_id: OpId) -> Result<bool, Fault> {
    let rows = db
        .control(
            "DELETE FROM cutover.operations WHERE op_id = $1::uuid AND state <> 'open' RETURNING 1",
            vec![op_id.into()],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Sets the state of a record that is open. Without a reply, `Done` keeps the one that was foretold.
///
/// # Errors
/// See [`Fault`].
pub async fn record_state(
    tx: &mut Tx,
    op_id: OpId,
    state: OperationState,
    reply: Option<&str>,
) -> Result<(), Fault> {
    tx.control(
        "UPDATE cutover.operations SET state = $2, settled_us = cutover.now_us(), \
         reply = CASE WHEN $2 = 'done' THEN coalesce($3, reply) ELSE $3 END \
         WHERE op_id = $1::uuid AND state = 'open'",
        vec![
            op_id.into(),
            state.as_str().into(),
            Arg::Text(reply.map(str::to_owned)),
        ],
    )
    .await
    .map(drop)
}

/// Writes down what the answer of an open operation is if it takes effect: for a write whose rows do not
/// tell afterwards.
pub(super) async fn foretell(tx: &mut Tx, op_id: OpId, reply: &str) -> Result<(), Fault> {
    tx.control(
        "UPDATE cutover.operations SET reply = $2 WHERE op_id = $1::uuid AND state = 'open'",
        vec![op_id.into(), reply.into()],
    )
    .await
    .map(drop)
}

/// Opens a record for a live write. `Some`: a record that does not allow it to run stands in the way.
pub(super) async fn open_record(
    tx: &mut Tx,
    op_id: OpId,
    digest: &str,
    epoch: Epoch,
) -> Result<Option<Operation>, Fault> {
    let opened = tx
        .control(
            "INSERT INTO cutover.operations AS o (op_id, digest, state, epoch, created_us) \
             VALUES ($1::uuid, $2, 'open', $3, cutover.now_us()) \
             ON CONFLICT (op_id) DO UPDATE SET state = 'open', epoch = excluded.epoch, reply = NULL, settled_us = NULL \
             WHERE o.digest = excluded.digest \
             AND o.state IN ('converted', 'not_applied') RETURNING 1",
            vec![op_id.into(), digest.into(), epoch.into()],
        )
        .await?;
    if opened.is_empty() {
        return recorded_in(tx, op_id).await;
    }
    Ok(None)
}

/// Forgets records that settled before `before_us` and have no open entry; at most `batch_max` of them.
/// Returns how many.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn prune(db: &Db, before_us: i64, batch_max: i64) -> Result<usize, Fault> {
    let old = db
        .control(
            "SELECT op_id::text FROM cutover.operations o WHERE settled_us < $1 \
             AND NOT EXISTS (SELECT 1 FROM cutover.journal j WHERE j.op_id = o.op_id) LIMIT $2",
            vec![before_us.into(), batch_max.into()],
        )
        .await?;
    if old.is_empty() {
        return Ok(0);
    }
    let ids = old
        .iter()
        .map(|row| row.some_text(0))
        .collect::<Result<Vec<_>, _>>()?;
    db.control(
        "DELETE FROM cutover.operations WHERE op_id IN (SELECT e.value::uuid FROM cutover.each($1) AS e)",
        vec![json_list(&ids)],
    )
    .await?;
    Ok(ids.len())
}
