//! Writes: one loop from admission to answer.
//!
//! Each turn runs the write under one snapshot. When the epoch moved underneath, nothing happened, and the
//! next turn runs it under the new one: a flip costs no caller an error. Turns end with the caller's
//! deadline, and then the answer says honestly whether the write may have happened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::errors;
use super::{Answer, Call, OpIdSource, Repository};
use crate::contract::{Error, OpId, Query, Reply, Request};
use crate::control::Snapshot;
use crate::journal::OperationState;
use crate::legacy::{Stamp, WriteError};
use crate::schema::{Bound, Schema, Write};
use crate::sql::Fault;
use crate::stage::{Backend, Stage};
use crate::telemetry::Op;

/// The parts of a write that do not change from turn to turn.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) request: Request,
    pub(super) write: Write,
    /// The tables that `write` is bound to.
    pub(super) known: Arc<Schema>,
    pub(super) op: Op,
    pub(super) op_id: OpId,
    pub(super) digest: String,
    pub(super) deadline: Instant,
    pub(super) traceparent: Option<String>,
    /// Somebody gave it its id before it came here: it may have come before.
    pub(super) may_be_repeat: bool,
    /// The id was made by a door for a message that is new: a settled record under it is another's.
    pub(super) id_is_new: bool,
}

/// How one turn ended.
#[derive(Debug)]
pub(super) enum Turn {
    /// Answered.
    Done(Result<Reply, Error>, Backend, Duration),
    /// Nothing happened under this snapshot; try under the current one.
    Again,
    /// An earlier attempt of this operation may have happened; wait a little for its outcome.
    InDoubt,
    /// Nothing happened, and nothing will change soon; wait a little.
    Blocked(Error),
    /// Nothing happened: the tables are not those that the write was bound to.
    OtherSchema,
}

/// How long to wait before a turn that was blocked by another write of the key, or by a doubt: doubling from
/// the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(80);

impl Repository {
    /// Runs a write until it is answered or its deadline has come.
    pub(super) async fn write(
        self: &Arc<Self>,
        call: Call,
        known: Arc<Schema>,
        write: Write,
    ) -> Answer {
        let mut order = Order {
            write,
            known,
            op: Op::of(&call.request.query),
            id_is_new: call.op_id_source == OpIdSource::FirstDelivery,
            may_be_repeat: call.request.op_id.is_some(),
            op_id: call.request.op_id.unwrap_or_else(OpId::fresh),
            digest: digest(&call.request.query),
            deadline: call.received + self.options.load().write_deadline,
            traceparent: call.traceparent,
            request: call.request,
        };
        let mut answer = self.turns(&mut order).await;
        answer.op_id = Some(order.op_id);
        if let Err(error) = &mut answer.result {
            error.op_id = error.op_id.or(Some(order.op_id));
        }
        answer
    }

    async fn turns(self: &Arc<Self>, order: &mut Order) -> Answer {
        let mut in_doubt = false;
        let mut pause = PAUSE_MIN;
        let mut blocked = errors::unavailable("the stage is changing");
        loop {
            let snapshot = match self.control.admit_write(order.deadline.into()).await {
                Ok(snapshot) => snapshot,
                Err(held) => {
                    let snapshot = self.control.snapshot();
                    return Answer::refused(&snapshot, ended(order.op_id, in_doubt, held.into()));
                }
            };
            match self.turn(&snapshot, order).await {
                Turn::Done(result, backend, time) => {
                    return Self::answered(&snapshot, result, backend, time);
                }
                Turn::Again => {
                    if let Err(fault) = self.control.refresh().await {
                        blocked = errors::from_fault(fault, errors::Effect::Write, None);
                    }
                }
                Turn::InDoubt => {
                    in_doubt = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Turn::Blocked(error) => {
                    blocked = error;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Turn::OtherSchema => match self.bind_order_anew(order).await {
                    Ok(()) => {}
                    Err(error) if error.code.retryable() => {
                        blocked = error;
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                    Err(error) => {
                        let error = ended(order.op_id, in_doubt, error);
                        return Answer::refused(&snapshot, error);
                    }
                },
            }
            // From now on a record under the id may be this write's own.
            order.id_is_new = false;
            if Instant::now() >= order.deadline {
                return Answer::refused(&snapshot, ended(order.op_id, in_doubt, blocked));
            }
        }
    }

    /// Binds the write to the tables as they are.
    async fn bind_order_anew(&self, order: &mut Order) -> Result<(), Error> {
        match self.bind_anew(&order.known, &order.request).await? {
            (newer, Bound::Write(write)) => {
                (order.known, order.write) = (newer, write);
                Ok(())
            }
            (_, Bound::Read(_)) => Err(errors::internal("a write became a read")),
        }
    }

    /// Makes room for a new message whose derived id an earlier one had.
    async fn forget_namesake(&self, order: &Order) -> Result<(), Fault> {
        let db = self.legacy.db();
        match crate::journal::recorded(db, order.op_id).await? {
            Some(_) => crate::journal::forget_settled(db, order.op_id)
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    async fn turn(self: &Arc<Self>, snapshot: &Arc<Snapshot>, order: &Order) -> Turn {
        if order.id_is_new
            && snapshot.stage <= Stage::Live
            && let Err(fault) = self.forget_namesake(order).await
        {
            return Turn::Blocked(errors::from_fault(fault, errors::Effect::Write, None));
        }
        match snapshot.stage {
            Stage::Off | Stage::DualWrite | Stage::Shadow => {
                self.write_legacy(snapshot, order).await
            }
            Stage::Live => self.write_live(snapshot, order).await,
            Stage::RampDown | Stage::Complete => self.write_solo(snapshot, order).await,
        }
    }

    /// `off`, `dual_write`, `shadow`: the caller waits for legacy alone. What storage is owed is in the
    /// same commit.
    async fn write_legacy(&self, snapshot: &Snapshot, order: &Order) -> Turn {
        let stamp = Stamp {
            epoch: snapshot.epoch,
            op_id: order.op_id,
            digest: order.digest.clone(),
        };
        let started = Instant::now();
        let result = self.legacy.write(&order.write, &stamp).await;
        let time = started.elapsed();
        let fault = match &result {
            Err(WriteError::Fault(fault)) => Some(fault),
            _ => None,
        };
        self.observer.legacy(order.op, time, fault);
        match result {
            Ok(written) => {
                if snapshot.stage != Stage::Off {
                    self.owed.notify_one();
                }
                Turn::Done(Ok(written.reply), Backend::Legacy, time)
            }
            Err(WriteError::Fault(fault)) if fault.is_stale_epoch() => Turn::Again,
            Err(WriteError::Fault(Fault::OtherSchema(_))) => Turn::OtherSchema,
            // The record of the operation makes it safe to send again, and tells what became of it.
            Err(WriteError::Fault(Fault::InDoubt(_))) => Turn::InDoubt,
            Err(WriteError::Fault(fault @ Fault::Unavailable(_))) => Turn::Blocked(
                errors::from_fault(fault, errors::Effect::Write, Some(order.op_id)),
            ),
            // Found out in `live`, after its caller was gone, that it took effect: no answer was recorded.
            Err(WriteError::Recorded(operation)) if operation.state == OperationState::Done => {
                match self.rows_now(order).await {
                    Ok(reply) => Turn::Done(Ok(reply), Backend::Legacy, time),
                    Err(turn) => turn,
                }
            }
            Err(error) => Turn::Done(
                Err(errors::from_write(error, order.op_id)),
                Backend::Legacy,
                time,
            ),
        }
    }
}

/// The answer when time has run out.
fn ended(op_id: OpId, in_doubt: bool, blocked: Error) -> Error {
    if in_doubt {
        errors::unknown_outcome(op_id)
    } else {
        blocked
    }
}

/// Tells payloads apart: the same operation id with another payload is a conflict.
fn digest(query: &Query) -> String {
    let mut hex = String::with_capacity(32);
    for byte in Sha256::digest(query.to_value().to_string()).iter().take(16) {
        hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    hex
}
