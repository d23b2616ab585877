//! Writes in `live`: storage first, then legacy, and the caller is answered after both.
//!
//! 1. Keys are resolved (`plan`).
//! 2. A durable intent on all of them keeps every other write of them out. That of a removal is widened by what
//!    hangs on its rows (`removal`), which is then removed by name (`unfold`).
//! 3. Storage is asked, with the keys and the original predicate.
//! 4. Its reply is believed only if it is the row that was written (`echo`).
//! 5. One legacy commit applies it, settles the intent and records the operation.
//!
//! Whatever goes wrong in between, the record of the operation knows: the next turn reads it.

mod echo;
mod finish;
mod plan;
mod removal;
mod unfold;

use std::sync::Arc;
use std::time::Instant;

use super::Repository;
use super::errors::{self, Effect};
use super::write::{Order, Turn};
use crate::contract::{AttemptId, Reply, Token};
use crate::control::Snapshot;
use crate::divergence::Finding;
use crate::journal::{self, Intent, Opened, Operation, OperationState};
use crate::legacy::Image;
use crate::schema::write_query;
use crate::sql::Fault;
use crate::stage::Backend;
use crate::storage::{self, Capability, StorageError, UnixMs};
use crate::telemetry::DivergenceKind;

use finish::{RETRY, StepFive};
use plan::Plan;

/// Why a reply is not applied.
enum Unbelieved {
    /// It is not the row that was written.
    Lie(echo::EchoMismatch),
    /// It could not be judged.
    Unknown,
}

impl Repository {
    /// One turn of a live write.
    pub(super) async fn write_live(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        order: &Order,
    ) -> Turn {
        if let Some(turn) = self.recorded(order).await {
            return turn;
        }
        let plan = match self.plan(order).await {
            Ok(plan) => plan,
            Err(turn) => return turn,
        };
        if plan.needs_transaction() && !self.storage.capabilities().has(Capability::Transaction) {
            return plan::refused(errors::no_transactions());
        }
        if plan.keys.is_empty() {
            return self.write_nothing(snapshot, order, &plan).await;
        }
        let mut intent = self.intent(snapshot, order, &plan);
        match journal::open_intent(self.legacy.db(), &intent).await {
            Ok(Opened::Until(deadline_us)) if plan.bonds.leaving.is_empty() => {
                self.send(snapshot, order, &plan, &intent, deadline_us)
                    .await
            }
            Ok(Opened::Until(_)) => match self.hold(order, &plan, &mut intent).await {
                Ok(held) => {
                    self.send(snapshot, order, &held.plan, &intent, held.deadline_us)
                        .await
                }
                Err(turn) => turn,
            },
            Ok(Opened::Held) => Turn::Blocked(errors::unavailable(
                "another write of this key is not finished",
            )),
            Ok(Opened::Recorded(operation)) => self.answer_from(order, operation).await,
            Err(fault) if fault.is_stale_epoch() => Turn::Again,
            // Nothing is sent under an intent whose commit is in doubt: the resolver will find it.
            Err(Fault::InDoubt(_)) => Turn::InDoubt,
            Err(fault) => self.blocked(fault, order),
        }
    }

    fn intent(&self, snapshot: &Snapshot, order: &Order, plan: &Plan) -> Intent {
        let options = self.options.load();
        Intent {
            op_id: order.op_id,
            digest: order.digest.clone(),
            epoch: snapshot.epoch,
            keys: plan.keys.clone(),
            bonds: plan.bonds.clone(),
            token: Token::fresh(),
            attempt: AttemptId::fresh(),
            lease: options.rpc_deadline,
        }
    }

    /// Steps 3 to 5.
    async fn send(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        order: &Order,
        plan: &Plan,
        intent: &Intent,
        deadline_us: i64,
    ) -> Turn {
        let call = storage::Call {
            query: write_query(&plan.write, &plan.deleted_at),
            attempt: intent.attempt,
            deadline: UnixMs(deadline_us / 1000),
            epoch: snapshot.epoch,
            traceparent: order.traceparent.clone(),
            fences: Vec::new(),
        };
        let asked = async {
            let started = Instant::now();
            (self.storage.call(&call).await, started.elapsed())
        };
        let ((result, time), before) = tokio::join!(asked, self.rows_before(plan));
        self.observer.storage(order.op, time, result.as_ref().err());
        let reply = match result {
            Ok(reply) => reply,
            Err(StorageError::Rejected(error)) => {
                return self
                    .dropped(intent, Turn::Done(Err(error), Backend::Storage, time))
                    .await;
            }
            Err(StorageError::Unavailable(_)) => {
                // Tried again until the deadline: it may come back, or a rollback come to the rescue.
                let error = errors::unavailable("the storage service cannot be reached");
                return self.dropped(intent, Turn::Blocked(error)).await;
            }
            Err(StorageError::InDoubt(_)) => return Turn::InDoubt,
        };
        let before = match self.known_before(plan, order, before).await {
            Ok(before) => before,
            Err(_) => return Turn::InDoubt,
        };
        let images = match self.believe(snapshot, order, plan, &reply, &before).await {
            Ok(images) => images,
            Err(Unbelieved::Lie(mismatch)) => {
                return self.disbelieve(order, intent, mismatch).await;
            }
            Err(Unbelieved::Unknown) => return Turn::InDoubt,
        };
        // Storage told no lie: what is resolved or copied afterwards is as good as ever.
        if let Some(altered) = self.storage.rehearsed_echo(&call, &reply)
            && let Err(mismatch) = self.judge(plan, &altered, &before)
        {
            self.report_mismatch(mismatch).await;
            return Turn::InDoubt;
        }
        let step = StepFive {
            order,
            intent,
            images,
            reply: plan.for_caller(reply),
            time,
        };
        self.finish(snapshot.epoch, step).await
    }

    fn judge(
        &self,
        plan: &Plan,
        reply: &Reply,
        before: &plan::Before,
    ) -> Result<Vec<Image>, echo::EchoMismatch> {
        let known = echo::Known {
            legacy: &self.legacy.schema(),
            drift: &self.drift.found(),
        };
        echo::images(plan, reply, before, &known)
    }

    /// The rows that legacy must get. Where columns may have come or gone on either side, both are looked at
    /// before the reply is called a lie.
    async fn believe(
        &self,
        snapshot: &Snapshot,
        order: &Order,
        plan: &Plan,
        reply: &Reply,
        before: &plan::Before,
    ) -> Result<Vec<Image>, Unbelieved> {
        let mismatch = match self.judge(plan, reply, before) {
            Ok(images) => return Ok(images),
            Err(mismatch) if mismatch.may_be_drift => mismatch,
            Err(mismatch) => return Err(Unbelieved::Lie(mismatch)),
        };
        let schema = self.legacy.schema_now().await.ok_or(Unbelieved::Unknown)?;
        let table = schema.table(&mismatch.table).ok_or(Unbelieved::Unknown)?;
        let found = self.drift.look_at(table, snapshot.epoch).await;
        let found = found.map_err(|_| Unbelieved::Unknown)?;
        let before = self.rows_before(plan).await;
        let before = self.known_before(plan, order, before).await;
        let before = before.map_err(|_| Unbelieved::Unknown)?;
        match self.judge(plan, reply, &before) {
            // A column that came to storage while it answered: the row is there, and whole for who reads it.
            Err(mismatch)
                if mismatch.may_be_drift
                    && mismatch.fields.iter().all(|field| {
                        table.column(field).is_some() && !found.may_lack(&table.name, field)
                    }) =>
            {
                Err(Unbelieved::Unknown)
            }
            judged => judged.map_err(Unbelieved::Lie),
        }
    }

    /// Without legacy's rows the reply cannot be judged, and what is not judged is not believed: ask again
    /// while there is time.
    async fn known_before(
        &self,
        plan: &Plan,
        order: &Order,
        first: Result<plan::Before, Fault>,
    ) -> Result<plan::Before, Fault> {
        let mut before = first;
        while before.is_err() && Instant::now() + RETRY < order.deadline {
            tokio::time::sleep(RETRY).await;
            before = self.rows_before(plan).await;
        }
        before
    }

    /// A reply that is not the row that was written is a confirmed divergence, and nothing is applied. The
    /// intent stays open and marked, so that nobody copies a row into legacy that storage lies about; a
    /// rollback gives storage legacy's row, and the write runs again there.
    ///
    /// A process that dies before the mark is made leaves an intent like any other in doubt: what storage
    /// then says of it is believed, because no lie of it is known.
    async fn disbelieve(
        &self,
        order: &Order,
        intent: &Intent,
        mismatch: echo::EchoMismatch,
    ) -> Turn {
        while let Err(fault) = journal::distrust(self.legacy.db(), intent.token).await {
            tracing::warn!(%fault, op_id = %order.op_id, "a mismatch could not be marked yet");
            if Instant::now() + RETRY >= order.deadline {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        self.report_mismatch(mismatch).await;
        Turn::InDoubt
    }

    async fn report_mismatch(&self, mismatch: echo::EchoMismatch) {
        let schema = self.legacy.schema();
        if let Some(table) = schema.table(&mismatch.table) {
            let finding = Finding {
                table: mismatch.table,
                kind: DivergenceKind::EchoMismatch,
                key: mismatch.key,
                fields: mismatch.fields,
            };
            self.comparer.confirmed(table, finding).await;
        }
    }

    /// Storage certainly did nothing: the intent goes, if it is still ours.
    async fn dropped(&self, intent: &Intent, turn: Turn) -> Turn {
        match journal::drop_intent(self.legacy.db(), intent).await {
            Ok(true) => turn,
            // A rollback took it over: the record says how to go on.
            Ok(false) => Turn::Again,
            Err(_) => Turn::InDoubt,
        }
    }

    /// The operation's record, looked at before anything is planned: a repeat gets its first answer.
    async fn recorded(&self, order: &Order) -> Option<Turn> {
        match journal::recorded(self.legacy.db(), order.op_id).await {
            Ok(None) => None,
            Ok(Some(operation))
                if operation.state.may_run() && operation.digest == order.digest =>
            {
                None
            }
            Ok(Some(operation)) => Some(self.answer_from(order, operation).await),
            Err(fault) => Some(self.blocked(fault, order)),
        }
    }

    async fn answer_from(&self, order: &Order, operation: Operation) -> Turn {
        let done = |result| Turn::Done(result, Backend::Storage, std::time::Duration::ZERO);
        if operation.digest != order.digest {
            return done(Err(errors::other_payload(order.op_id)));
        }
        match (operation.state, operation.reply) {
            (OperationState::Done, Some(reply)) => done(Ok(Reply::from_json(reply))),
            // Found out afterwards that it took effect: the rows as they are now are its answer.
            (OperationState::Done, None) => match self.rows_now(order).await {
                Ok(reply) => done(Ok(reply)),
                Err(turn) => turn,
            },
            (OperationState::Unknown, _) => done(Err(errors::unknown_outcome(order.op_id))),
            (OperationState::Open, _) => Turn::InDoubt,
            (OperationState::Refused, rule) => self.given_back(order, rule).await,
            (OperationState::Converted | OperationState::NotApplied, _) => Turn::Again,
        }
    }

    pub(super) fn blocked(&self, fault: Fault, order: &Order) -> Turn {
        match fault {
            Fault::Unavailable(_) | Fault::TimedOut => {
                Turn::Blocked(errors::unavailable("the legacy database cannot be reached"))
            }
            Fault::OtherSchema(_) => Turn::OtherSchema,
            other => Turn::Done(
                Err(errors::from_fault(other, Effect::Write, Some(order.op_id))),
                Backend::Legacy,
                std::time::Duration::ZERO,
            ),
        }
    }
}
