//! Who changed what and why: `transitions` (one per epoch) and `actions`, each a hash chain (`chain`).
//!
//! A record is written in the transaction of what it tells of, so that neither exists without the other.

use serde_json::Value;

use crate::contract::Epoch;
use crate::sql::{Db, Fault, Record, Tx};

use super::chain::chain_hash;
use super::change::{AuditEntry, Change};
use super::ddl::GATE_LOCK;
use super::recovery::Seen;
use super::state::{self, State};
use crate::stage::Stage;

/// Orders the writers of `actions` (PostgreSQL).
const AUDIT_LOCK: i64 = GATE_LOCK + 2;

/// One change of the control state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransitionRecord {
    /// The epoch it began.
    pub epoch: Epoch,
    /// When, in Unix microseconds by the database's clock.
    pub at_us: i64,
    /// Names the attempt, so that a lost answer to COMMIT can be told from a lost COMMIT.
    pub request_id: String,
    /// Which change: `install`, `move`, `drain`, `give_up`, `freeze`, `rearm`, `stale`, `verified`, `bypass`, `lost`, `recover`.
    pub step: String,
    /// Whose hand: `operator`, `file`, `guard`, `rollback`, `control`.
    pub kind: String,
    /// The stage before.
    pub from: String,
    /// The stage after.
    pub to: String,
    /// The phase after.
    pub phase: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The change ticket.
    pub ticket: Option<String>,
    /// Whether guards were overridden.
    pub forced: bool,
    /// What the decision rested on, as JSON text.
    pub evidence: String,
}

/// One act that weakens a guard, repairs, re-arms or rehearses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActionRecord {
    /// Counts up from 1.
    pub id: i64,
    /// When, in Unix microseconds by the database's clock.
    pub at_us: i64,
    /// Who.
    pub actor: String,
    /// What: `rearm`, `pin`, `force`, `repair`, …
    pub kind: String,
    /// Why.
    pub reason: String,
    /// Details as JSON text. No row values.
    pub details: String,
}

/// When a stage was entered for the last time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entered {
    /// The epoch that began then.
    pub epoch: Epoch,
    /// How long ago, in microseconds.
    pub age_us: i64,
}

impl TransitionRecord {
    pub(super) const COLUMNS: &'static str = "epoch, at_us, request_id, step, kind, from_stage, to_stage, phase, actor, reason, ticket, forced, evidence";

    /// The record of the install.
    pub(super) fn first(state: &State) -> Self {
        Self {
            epoch: state.epoch,
            at_us: state.since_us,
            request_id: uuid::Uuid::new_v4().to_string(),
            step: "install".to_owned(),
            kind: "control".to_owned(),
            from: state.stage.to_string(),
            to: state.stage.to_string(),
            phase: state.phase.to_string(),
            actor: state.actor.clone(),
            reason: state.reason.clone(),
            ticket: None,
            forced: false,
            evidence: Value::Null.to_string(),
        }
    }

    /// The record of a change.
    pub(super) fn of(before: &State, change: &Change, at_us: i64, request_id: &str) -> Self {
        let Change { after, entry, .. } = change;
        let AuditEntry {
            step,
            kind,
            cause,
            ticket,
            forced,
            overridden: _,
            evidence,
        } = entry;
        Self {
            epoch: after.epoch,
            at_us,
            request_id: request_id.to_owned(),
            step: (*step).to_owned(),
            kind: (*kind).to_owned(),
            from: before.stage.to_string(),
            to: after.stage.to_string(),
            phase: after.phase.to_string(),
            actor: cause.actor.clone(),
            reason: cause.reason.clone(),
            ticket: ticket.clone(),
            forced: *forced,
            evidence: evidence.to_string(),
        }
    }

    pub(super) fn from_record(row: &Record) -> Result<Self, Fault> {
        Ok(Self {
            epoch: Epoch(row.some_int(0)?),
            at_us: row.some_int(1)?,
            request_id: row.some_text(2)?,
            step: row.some_text(3)?,
            kind: row.some_text(4)?,
            from: row.some_text(5)?,
            to: row.some_text(6)?,
            phase: row.some_text(7)?,
            actor: row.some_text(8)?,
            reason: row.some_text(9)?,
            ticket: row.text(10)?,
            forced: row.some_bool(11)?,
            evidence: row.some_text(12)?,
        })
    }

    pub(super) fn hash(&self, previous: &str) -> String {
        chain_hash(
            previous,
            &[
                Some(&self.epoch.to_string()),
                Some(&self.at_us.to_string()),
                Some(&self.request_id),
                Some(&self.step),
                Some(&self.kind),
                Some(&self.from),
                Some(&self.to),
                Some(&self.phase),
                Some(&self.actor),
                Some(&self.reason),
                self.ticket.as_ref(),
                Some(&self.forced.to_string()),
                Some(&self.evidence),
            ],
        )
    }
}

impl ActionRecord {
    pub(super) const COLUMNS: &'static str = "id, at_us, actor, kind, reason, details";

    pub(super) fn from_record(row: &Record) -> Result<Self, Fault> {
        Ok(Self {
            id: row.some_int(0)?,
            at_us: row.some_int(1)?,
            actor: row.some_text(2)?,
            kind: row.some_text(3)?,
            reason: row.some_text(4)?,
            details: row.some_text(5)?,
        })
    }

    pub(super) fn hash(&self, previous: &str) -> String {
        chain_hash(
            previous,
            &[
                Some(&self.id.to_string()),
                Some(&self.at_us.to_string()),
                Some(&self.actor),
                Some(&self.kind),
                Some(&self.reason),
                Some(&self.details),
            ],
        )
    }
}

/// Appends to `transitions`. The caller holds the state row's lock, which orders the chain.
pub(super) async fn record_transition(tx: &mut Tx, record: &TransitionRecord) -> Result<(), Fault> {
    let previous = newest_hash(tx, "transitions", "epoch").await?;
    let columns = TransitionRecord::COLUMNS;
    let sql = format!(
        "INSERT INTO cutover.transitions ({columns}, previous_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
    );
    let args = vec![
        record.epoch.into(),
        record.at_us.into(),
        record.request_id.clone().into(),
        record.step.clone().into(),
        record.kind.clone().into(),
        record.from.clone().into(),
        record.to.clone().into(),
        record.phase.clone().into(),
        record.actor.clone().into(),
        record.reason.clone().into(),
        record.ticket.clone().into(),
        record.forced.into(),
        record.evidence.clone().into(),
        previous.1.clone().into(),
        record.hash(&previous.1).into(),
    ];
    tx.control(&sql, args).await.map(drop)
}

/// Appends to `actions` in the transaction of the act itself, so that neither exists without the other.
///
/// # Errors
/// See [`Fault`]; the transaction can then only be dropped.
pub async fn record_action(
    tx: &mut Tx,
    actor: &str,
    kind: &str,
    reason: &str,
    details: &Value,
) -> Result<ActionRecord, Fault> {
    tx.lock(AUDIT_LOCK).await?;
    let (last, previous) = newest_hash(tx, "actions", "id").await?;
    let record = ActionRecord {
        id: last + 1,
        at_us: state::now_us(tx).await?,
        actor: actor.to_owned(),
        kind: kind.to_owned(),
        reason: reason.to_owned(),
        details: details.to_string(),
    };
    tx.control(
        "INSERT INTO cutover.actions (id, at_us, actor, kind, reason, details, previous_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        vec![
            record.id.into(),
            record.at_us.into(),
            record.actor.clone().into(),
            record.kind.clone().into(),
            record.reason.clone().into(),
            record.details.clone().into(),
            previous.clone().into(),
            record.hash(&previous).into(),
        ],
    )
    .await?;
    Ok(record)
}

/// The newest transitions first, at most `limit`.
///
/// # Errors
/// See [`Fault`].
pub async fn history(db: &Db, limit: u32) -> Result<Vec<TransitionRecord>, Fault> {
    let columns = TransitionRecord::COLUMNS;
    let sql = format!("SELECT {columns} FROM cutover.transitions ORDER BY epoch DESC LIMIT $1");
    let rows = db.control(&sql, vec![i64::from(limit).into()]).await?;
    rows.iter().map(TransitionRecord::from_record).collect()
}

/// When `stage` was entered for the last time, from another one. A drain that was given up, a verdict or a
/// re-arm begins an epoch, but does not enter a stage.
///
/// # Errors
/// See [`Fault`].
pub async fn entered(db: &Db, stage: Stage) -> Result<Option<Entered>, Fault> {
    let rows = db
        .control(
            "SELECT epoch, cutover.now_us() - at_us FROM cutover.transitions
             WHERE to_stage = $1 AND from_stage <> $1 ORDER BY epoch DESC LIMIT 1",
            vec![stage.as_str().into()],
        )
        .await?;
    rows.first()
        .map(|row| {
            Ok(Entered {
                epoch: Epoch(row.some_int(0)?),
                age_us: row.some_int(1)?,
            })
        })
        .transpose()
}

/// What was known before history was lost for the last time, if the replica that noticed knew anything.
pub(super) async fn seen_before_loss(tx: &mut Tx) -> Result<Option<Seen>, Fault> {
    let rows = tx
        .control(
            "SELECT evidence FROM cutover.transitions WHERE step = 'lost' ORDER BY epoch DESC LIMIT 1",
            vec![],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let evidence: Value = serde_json::from_str(&row.some_text(0)?)
        .map_err(|error| Fault::Unexpected(format!("the record of the loss: {error}")))?;
    Ok(serde_json::from_value(evidence["seen"].clone()).unwrap_or(None))
}

/// The newest actions first, at most `limit`.
///
/// # Errors
/// See [`Fault`].
pub async fn actions(db: &Db, limit: u32) -> Result<Vec<ActionRecord>, Fault> {
    let columns = ActionRecord::COLUMNS;
    let sql = format!("SELECT {columns} FROM cutover.actions ORDER BY id DESC LIMIT $1");
    let rows = db.control(&sql, vec![i64::from(limit).into()]).await?;
    rows.iter().map(ActionRecord::from_record).collect()
}

/// The newest record's id and hash; `(0, "")` before the first.
async fn newest_hash(tx: &mut Tx, table: &str, id: &str) -> Result<(i64, String), Fault> {
    let sql = format!("SELECT {id}, hash FROM cutover.{table} ORDER BY {id} DESC LIMIT 1");
    let rows = tx.control(&sql, vec![]).await?;
    rows.first().map_or(Ok((0, String::new())), |row| {
        Ok((row.some_int(0)?, row.some_text(1)?))
    })
}
