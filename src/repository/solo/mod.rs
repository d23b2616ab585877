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

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Repository;
use super::errors;
use super::write::{Order, Turn};
use crate::contract::{AttemptId, Reply, Row};
use crate::control::{LegacyDebt, Snapshot};
use crate::journal::{Direction, append_copies};
use crate::schema::write_query;
use crate::schema::{Step, Table};
use crate::stage::{Backend, Stage};
use crate::storage::{self, StorageError};

use recent::{Entered, Ticket};
use records::Taken;

pub(super) use circuit::Circuit;
pub(super) use recent::Recent;

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
        let call = storage::Call {
            query: write_query(&order.write, &crate::clock::rfc3339_now()),
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
                    self.owe_legacy(order, Taken::new(order, snapshot.epoch, reply), debt);
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
    fn owe_legacy(self: &Arc<Self>, order: &Order, taken: Taken, debt: LegacyDebt) {
        let touched = match touched_rows(order, taken.reply()) {
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
            for (table, rows) in touched {
                if let Err(fault) = this.write_down(&table, &rows, op_id).await {
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

    async fn write_down(
        &self,
        table: &Table,
        rows: &[Vec<Value>],
        op_id: crate::contract::OpId,
    ) -> Result<(), crate::sql::Fault> {
        let keys = self.legacy.canonical_keys(table, rows).await?;
        let mut tx = self.legacy.db().begin().await?;
        append_copies(
            &mut tx,
            Direction::ToLegacy,
            &table.name,
            &keys,
            Some(op_id),
        )
        .await?;
        tx.commit().await
    }
}

/// Keys of one table, each its column values in key order.
type Touched = (Arc<Table>, Vec<Vec<Value>>);

/// The keys of the rows that a reply says were touched, by table.
fn touched_rows(order: &Order, reply: &Reply) -> Result<Vec<Touched>, String> {
    let value = reply.parse().map_err(|error| error.to_string())?;
    let replies: Vec<Value> = match (order.write.transaction, value) {
        (true, Value::Array(replies)) => replies,
        (_, only) => vec![only],
    };
    let mut touched = Vec::new();
    for (step, reply) in order.write.steps.iter().zip(replies) {
        let Step::Change(change) = step else { continue };
        let rows: Vec<Row> = match reply {
            Value::Null => Vec::new(),
            Value::Object(row) => vec![row],
            Value::Array(rows) => rows
                .into_iter()
                .filter_map(|row| match row {
                    Value::Object(row) => Some(row),
                    _ => None,
                })
                .collect(),
            _ => return Err("storage's reply is not a row".to_owned()),
        };
        let keys = rows
            .iter()
            .map(|row| change.table().key_of(row))
            .collect::<Option<Vec<_>>>()
            .ok_or("storage's reply lacks the key")?;
        if !keys.is_empty() {
            touched.push((Arc::clone(change.table()), keys));
        }
    }
    Ok(touched)
}
