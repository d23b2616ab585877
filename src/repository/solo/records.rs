//! Legacy's records of operations, as far as they can be had without waiting for legacy (P15, I12).
//!
//! What was acknowledged in an earlier stage, or by another replica, is recognised by its record if legacy
//! answers within `WITHIN`. What is done here is recorded behind the caller's back, with the debt of its
//! rows, so that it is recognised elsewhere and later: by then the way back has waited for it.

use std::sync::Arc;

use tokio::time::timeout;

use super::Repository;
use super::circuit::{Leave, WITHIN};
use crate::clock::boottime;
use crate::contract::{Epoch, Error, OpId, Reply};
use crate::journal::{self, Operation, OperationState};
use crate::repository::errors;
use crate::repository::write::Order;
use crate::sql::Fault;

/// An operation that storage took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    op_id: OpId,
    digest: String,
    epoch: Epoch,
    reply: Reply,
    /// An earlier record under its id is another's.
    id_is_new: bool,
}

impl Taken {
    pub(super) fn new(order: &Order, epoch: Epoch, reply: &Reply) -> Self {
        Self {
            op_id: order.op_id,
            digest: order.digest.clone(),
            epoch,
            reply: reply.clone(),
            id_is_new: order.id_is_new,
        }
    }

    pub(super) fn reply(&self) -> &Reply {
        &self.reply
    }
}

impl Repository {
    /// The answer that a record of legacy has for a repeat; nothing when the write is to be run, also because
    /// legacy does not say in time.
    pub(super) async fn answer_on_record(
        self: &Arc<Self>,
        order: &Order,
    ) -> Option<Result<Reply, Error>> {
        if !order.may_be_repeat || order.id_is_new {
            return None;
        }
        let operation = self.record_in_time(order.op_id).await?;
        if operation.digest != order.digest {
            return Some(Err(errors::other_payload(order.op_id)));
        }
        match (operation.state, operation.reply) {
            (OperationState::Done, Some(reply)) => Some(Ok(Reply::from_json(reply))),
            (OperationState::Refused, rule) => {
                Some(Err(errors::refused_by_legacy(rule.as_deref())))
            }
            (OperationState::Converted | OperationState::NotApplied, _) => None,
            // It took effect and its answer was never known, or nobody knows whether it did (P8).
            (OperationState::Done, None) | (OperationState::Unknown | OperationState::Open, _) => {
                Some(Err(errors::unknown_outcome(order.op_id)))
            }
        }
    }

    async fn record_in_time(self: &Arc<Self>, op_id: OpId) -> Option<Operation> {
        match self.circuit.leave(boottime()) {
            Leave::Ask => self.ask_for_record(op_id).await,
            Leave::Probe => {
                let this = Arc::clone(self);
                self.tasks.spawn(async move {
                    this.ask_for_record(op_id).await;
                });
                None
            }
            Leave::GoOn => None,
        }
    }

    async fn ask_for_record(&self, op_id: OpId) -> Option<Operation> {
        let found = timeout(WITHIN, journal::recorded(self.legacy.db(), op_id)).await;
        match found {
            Ok(Ok(found)) => {
                if self.circuit.answered() {
                    tracing::info!("legacy tells of operations in time again");
                }
                found
            }
            Ok(Err(_)) | Err(_) => {
                if self.circuit.missed(boottime()) {
                    tracing::warn!(
                        within = ?WITHIN,
                        "legacy does not tell of operations in time: repeats are recognised by the replica that did them, until it does"
                    );
                }
                None
            }
        }
    }

    /// Records what storage took. What cannot be recorded is recognised by this replica alone; it is no debt.
    pub(super) async fn record_taken(&self, taken: &Taken) {
        if let Err(fault) = self.try_to_record(taken).await {
            tracing::debug!(%fault, op_id = %taken.op_id, "an operation could not be recorded");
        }
    }

    async fn try_to_record(&self, taken: &Taken) -> Result<(), Fault> {
        let db = self.legacy.db();
        if taken.id_is_new {
            journal::forget_settled(db, taken.op_id).await?;
        }
        let mut tx = db.begin().await?;
        let (digest, reply) = (&taken.digest, taken.reply.as_json());
        if journal::record_done(&mut tx, taken.op_id, digest, taken.epoch, reply).await? {
            tx.commit().await?;
        }
        Ok(())
    }
}
