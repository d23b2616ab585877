//! `ramp_down` and `complete`: storage answers alone.
//!
//! In `ramp_down` legacy is paid as well as it can be, and nothing waits for it (P15): the keys a write
//! touched are handed to a task that appends them to the journal; when that is not possible legacy is
//! marked stale, and going back is refused until it has been verified.
//!
//! Operation records live in legacy, for which nothing waits here beyond a short bound (`circuit`). So a repeat
//! is recognised by the replica that did the operation (`recent`), and by legacy's records as far as they can
//! be had (`records`). What that leaves open `status` lists among the weakened promises. A send always has a
//! fresh attempt id, never the client's (P7): no service is asked to tell repeats apart by it.

mod circuit;
mod recent;
mod records;
mod touched;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Repository;
use super::errors;
use super::write::{Order, Turn};
use crate::clock;
use crate::contract::{AttemptId, OpId};
use crate::control::{LegacyDebt, Snapshot};
use crate::journal::{Copies, Departure, Direction, SENT_AGE_MAX, append_copies, note_created};
use crate::schema::write_query;
use crate::sql::Fault;
use crate::stage::{Backend, Stage};
use crate::storage::{self, StorageError};

use recent::{Entered, Ticket};
use records::Taken;
use touched::{Touched, touched_rows};

pub(super) use circuit::Circuit;
pub(super) use recent::Recent;

/// When a write was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// After this departure.
    noted: Departure,
    /// By `clock::boottime`.
    at: Duration,
}

/// What `status` says of repeats in these stages.
#[must_use]
pub fn repeats_weakened() -> String {
    format!(
        "in ramp_down and complete a repeated op_id is recognised by the replica that did it, among its last {} \
         operations since it started, and in ramp_down also by legacy's record if legacy answers within {:?}; \
         otherwise it runs again, and so does one that storage left in doubt",
        recent::OPERATIONS_MAX,
        circuit::WITHIN
    )
}

impl Repository {
    /// One write with storage as its only judge, unless it is a repeat.
    pub(super) async fn write_solo(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        order: &Order,
    ) -> Turn {
        let repeated = |result| Turn::Done(result, Backend::Storage, Duration::ZERO);
        let now = Instant::now();
        let entered = self
            .recent
            .enter(order.op_id, &order.digest, order.id_is_new, now);
        let ticket = match entered {
            Entered::Runs(ticket) => ticket,
            Entered::UnderWay => return Turn::InDoubt,
            Entered::Done(reply) => return repeated(Ok(reply)),
            Entered::OtherPayload => return repeated(Err(errors::other_payload(order.op_id))),
        };
        if snapshot.stage != Stage::RampDown {
            return self.send_solo(snapshot, order, ticket, None).await;
        }
        if let Some(answer) = self.answer_on_record(order).await {
            return repeated(answer);
        }
        match self.control.incur_legacy_debt(snapshot) {
            Some(debt) => self.send_solo(snapshot, order, ticket, Some(debt)).await,
            None => Turn::Again,
        }
    }

    async fn send_solo(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        order: &Order,
        ticket: Ticket,
        debt: Option<LegacyDebt>,
    ) -> Turn {
        let started = Instant::now();
        let sent = Sent {
            noted: self.legacy.departure_known(),
            at: clock::boottime(),
        };
        let call = storage::Call {
            query: write_query(&order.write, &clock::rfc3339_now()),
            attempt: AttemptId::fresh(),
            deadline: self.rpc_deadline(),
            epoch: snapshot.epoch,
            traceparent: order.traceparent.clone(),
            fences: Vec::new(),
        };
        let result = self.storage.call(&call).await;
        let time = started.elapsed();
        self.observer.storage(order.op, time, result.as_ref().err());
        match &result {
            Ok(reply) => {
                if let Some(debt) = debt {
                    let taken = Taken::new(order, snapshot.epoch, reply);
                    self.owe_legacy(order, taken, sent, debt);
                }
                ticket.done(reply.clone());
            }
            // The debt is dropped: legacy is stale until it is verified.
            Err(StorageError::InDoubt(_)) => {
                let skew = self.control.options().clock_skew_max;
                ticket.in_doubt(Instant::now() + call.deadline.remaining() + skew);
            }
            Err(StorageError::Rejected(_) | StorageError::Unavailable(_)) => {
                if let Some(debt) = debt {
                    debt.settled();
                }
            }
        }
        let result = result.map_err(|error| errors::from_storage_write(error, order.op_id));
        Turn::Done(result, Backend::Storage, time)
    }

    /// Appends what legacy is owed, behind the caller's back, and records the operation; a debt that cannot be
    /// written down is a dropped one.
    fn owe_legacy(self: &Arc<Self>, order: &Order, taken: Taken, sent: Sent, debt: LegacyDebt) {
        let schema = self.legacy.schema();
        let touched = match touched_rows(&schema, &order.write, taken.reply()) {
            Ok(touched) => touched,
            Err(why) => {
                tracing::error!(why, "a debt towards legacy was dropped");
                return;
            }
        };
        let Ok(permit) = Arc::clone(&self.debts).try_acquire_owned() else {
            tracing::error!("too many debts towards legacy wait to be written down");
            return;
        };
        let (this, op_id) = (Arc::clone(self), order.op_id);
        self.tasks.spawn(async move {
            let _permit = permit;
            for rows in touched {
                if let Err(fault) = this.write_down(&rows, op_id, sent).await {
                    tracing::error!(%fault, "a debt towards legacy was dropped");
                    return;
                }
            }
            // Before the debt is settled, for which a way back waits: the stage after it looks at records.
            this.record_taken(&taken).await;
            debt.settled();
            this.owed.notify_one();
        });
    }

    async fn write_down(&self, touched: &Touched, op_id: OpId, sent: Sent) -> Result<(), Fault> {
        let table = &touched.table;
        let keys = self.legacy.canonical_keys(table, &touched.keys).await?;
        let mut tx = self.legacy.db().begin().await?;
        if clock::boottime().saturating_sub(sent.at) > SENT_AGE_MAX {
            return Err(Fault::Unexpected("it was sent too long ago".to_owned()));
        }
        let copies = Copies {
            direction: Direction::ToLegacy,
            table: &table.name,
            keys: &keys,
            op_id: Some(op_id),
            left: touched.left,
            noted: Some(sent.noted),
        };
        append_copies(&mut tx, copies).await?;
        if touched.created {
            note_created(&mut tx, &table.name, &keys).await?;
        }
        tx.commit().await
    }
}
