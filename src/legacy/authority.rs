//! Writing to legacy as the authority.
//!
//! A write of one change is one statement and one round trip on PostgreSQL: it sets the writer's context,
//! runs the plain DML, and records the operation; the capture triggers fire at its end and append what
//! storage is owed. Transactions and SQLite take the same steps one by one.
//!
//! The operation's record is inserted in the same statement: a repeat of an operation id fails on it and
//! is answered from the record, so a write whose connection was lost can simply be sent again.

use super::Legacy;
use crate::contract::{Epoch, OpId, Reply};
use crate::journal::{Operation, OperationState, record_done, recorded};
use crate::schema::{Change, Step, Write};
use crate::sql::render::dml;
use crate::sql::{Dialect, Fault, Refusal, Tx, reply_of};

/// What marks a write as ours, admitted under an epoch, and as this operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The epoch it was admitted under; the gate refuses it under any other.
    pub epoch: Epoch,
    /// The operation.
    pub op_id: OpId,
    /// Digest of its payload.
    pub digest: String,
}

/// A write that took effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The answer.
    pub reply: Reply,
    /// It had taken effect before: this is the first answer again.
    pub repeated: bool,
}

/// Why a write has no reply.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The database's word on it.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The operation has a record that does not allow it to run now.
    #[error("the operation is recorded as {}", .0.state.as_str())]
    Recorded(Operation),
    /// The operation id was used with another payload.
    #[error("the operation id was used with another payload")]
    OtherPayload,
}

impl Legacy {
    /// Runs a write in one transaction, with its operation record and what storage is owed.
    ///
    /// # Errors
    /// See [`WriteError`]. Must not be cancelled half-way: callers run it in a task of its own.
    pub async fn write(&self, write: &Write, stamp: &Stamp) -> Result<Written, WriteError> {
        let result = match (self.db().dialect(), write.steps.as_slice()) {
            (Dialect::Postgres, [Step::Change(change)]) if !write.transaction => {
                self.write_statement(change, stamp).await
            }
            _ => self.write_transaction(write, stamp).await,
        };
        match result {
            // A repeat may be refused before it reaches its own record: the row it inserted is there.
            Err(Fault::Refused(
                refusal @ (Refusal::Unique(_)
                | Refusal::ForeignKey(_)
                | Refusal::Constraint(_)
                | Refusal::Value(_)),
            )) => self.repeat(write, stamp, refusal).await,
            other => Ok(Written {
                reply: other?,
                repeated: false,
            }),
        }
    }

    /// The operation's record, or a constraint of the application's, stood in the way.
    async fn repeat(
        &self,
        write: &Write,
        stamp: &Stamp,
        refusal: Refusal,
    ) -> Result<Written, WriteError> {
        let Some(operation) = recorded(self.db(), stamp.op_id).await? else {
            return Err(overtaken(Fault::Refused(refusal)).into());
        };
        if operation.digest != stamp.digest {
            return Err(WriteError::OtherPayload);
        }
        if operation.state.may_run() {
            let run = self.write_transaction(write, stamp).await;
            return Ok(Written {
                reply: run.map_err(overtaken)?,
                repeated: false,
            });
        }
        match (operation.state, &operation.reply) {
            (OperationState::Done, Some(json)) => Ok(Written {
                reply: Reply::from_json(json.clone()),
                repeated: true,
            }),
            _ => Err(WriteError::Recorded(operation)),
        }
    }

    async fn write_statement(&self, change: &Change, stamp: &Stamp) -> Result<Reply, Fault> {
        let dml = dml(change);
        let n = dml.args.len();
        let reply = if change.is_single() {
            "coalesce((SELECT w.row FROM w), 'null')"
        } else {
            "(SELECT '[' || coalesce(string_agg(w.row, ',' ORDER BY w.n), '') || ']' FROM w)"
        };
        let sql = format!(
            "WITH ctx AS MATERIALIZED (SELECT set_config('cutover.ctx', ${ctx}, true)), {ctes}, \
             op AS (INSERT INTO cutover.operations (op_id, digest, state, reply, epoch, created_us, settled_us) \
             SELECT ${op}::uuid, ${digest}, 'done', {reply}, ${epoch}, cutover.now_us(), cutover.now_us() FROM ctx \
             RETURNING reply) SELECT op.reply FROM op",
            ctes = dml.ctes,
            ctx = n + 1,
            op = n + 2,
            digest = n + 3,
            epoch = n + 4,
        );
        let mut args = dml.args;
        args.extend([
            context(stamp.epoch, Some(stamp.op_id), "write").into(),
            stamp.op_id.into(),
            stamp.digest.as_str().into(),
            stamp.epoch.into(),
        ]);
        let rows = self.db().fetch(&sql, args).await?;
        let row = rows
            .first()
            .ok_or_else(|| Fault::Unexpected("a write without a row".to_owned()))?;
        Ok(Reply::from_json(row.some_text(0)?))
    }

    async fn write_transaction(&self, write: &Write, stamp: &Stamp) -> Result<Reply, Fault> {
        let mut tx = self.db().begin().await?;
        enter(&mut tx, stamp.epoch, Some(stamp.op_id), "steps").await?;
        let mut replies = Vec::with_capacity(write.steps.len());
        for step in &write.steps {
            replies.push(match step {
                Step::Change(change) => reply_of(change, tx.apply(change).await?),
                Step::Read(read) => tx.read(read).await?,
            });
        }
        let reply = join(write, replies);
        leave(&mut tx).await?;
        let recorded = record_done(
            &mut tx,
            stamp.op_id,
            &stamp.digest,
            stamp.epoch,
            reply.as_json(),
        )
        .await?;
        if !recorded {
            return Err(Fault::Refused(Refusal::Unique(OPERATIONS_KEY.to_owned())));
        }
        // SQLite's triggers see no statement without rows, so the gate is asked here as well.
        crate::journal::commit_under(tx, stamp.epoch).await?;
        Ok(reply)
    }
}

/// The primary key of the operation records, as PostgreSQL names it.
const OPERATIONS_KEY: &str = "operations_pkey";

/// Where another request of the same operation got ahead, nothing is refused: asked again, its record tells.
fn overtaken(fault: Fault) -> Fault {
    match fault {
        Fault::Refused(Refusal::Unique(key)) if key == OPERATIONS_KEY => {
            Fault::Unavailable("another request of this operation is under way".to_owned())
        }
        other => other,
    }
}

/// What the capture trigger reads: epoch, operation, role. `write` is a single statement, at whose end the
/// trigger asks the gate; `steps` and `apply` have more to do after it and ask the gate themselves, last.
fn context(epoch: Epoch, op_id: Option<OpId>, role: &str) -> String {
    let op_id = op_id.map(|id| id.to_string()).unwrap_or_default();
    format!("{epoch}|{op_id}|{role}")
}

/// Says who writes, for the rest of the transaction.
pub(super) async fn enter(
    tx: &mut Tx,
    epoch: Epoch,
    op_id: Option<OpId>,
    role: &str,
) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Postgres => tx
            .fetch(
                "SELECT set_config('cutover.ctx', $1, true)",
                vec![context(epoch, op_id, role).into()],
            )
            .await
            .map(drop),
        Dialect::Sqlite => tx
            .control(
                "INSERT INTO cutover.ctx (epoch, op_id, role) VALUES ($1, $2, $3)",
                vec![
                    epoch.into(),
                    op_id.map(|id| id.to_string()).into(),
                    role.into(),
                ],
            )
            .await
            .map(drop),
    }
}

/// Removes SQLite's context row; PostgreSQL's setting ends with the transaction.
pub(super) async fn leave(tx: &mut Tx) -> Result<(), Fault> {
    if tx.dialect() == Dialect::Sqlite {
        tx.control("DELETE FROM cutover.ctx", vec![]).await?;
    }
    Ok(())
}

/// One reply, or the array of a transaction's replies.
fn join(write: &Write, replies: Vec<Reply>) -> Reply {
    if let (false, [only]) = (write.transaction, replies.as_slice()) {
        return only.clone();
    }
    let texts: Vec<&str> = replies.iter().map(Reply::as_json).collect();
    Reply::from_json(format!("[{}]", texts.join(",")))
}
