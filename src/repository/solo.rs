//! `ramp_down` and `complete`: storage answers alone.
//!
//! In `ramp_down` legacy is paid as well as it can be, and nothing waits for it (P15): the keys a write
//! touched are handed to a task that appends them to the journal; when that is not possible legacy is
//! marked stale, and going back is refused until it has been verified.
//!
//! Operation records live in legacy, for which nothing waits here: a repeated operation id is not recognised.
//! `status` lists this among the weakened promises.

use std::sync::Arc;
use std::time::Instant;

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

impl Repository {
    /// One write with storage as its only judge.
    pub(super) async fn write_solo(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        order: &Order,
    ) -> Turn {
        let debt = if snapshot.stage == Stage::RampDown {
            match self.control.incur_legacy_debt(snapshot) {
                Some(debt) => Some(debt),
                None => return Turn::Again,
            }
        } else {
            None
        };
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
        match (&result, debt) {
            (Ok(reply), Some(debt)) => self.owe_legacy(order, reply, debt),
            // In doubt, the debt is dropped: legacy is stale until it is verified.
            (Err(StorageError::InDoubt(_)), debt) => drop(debt),
            (Err(_), Some(debt)) => debt.settled(),
            (_, None) => {}
        }
        let result = result.map_err(|error| errors::from_storage_write(error, order.op_id));
        Turn::Done(result, Backend::Storage, time)
    }

    /// Appends what legacy is owed, behind the caller's back; a debt that cannot be written down is a
    /// dropped one.
    fn owe_legacy(self: &Arc<Self>, order: &Order, reply: &Reply, debt: LegacyDebt) {
        let touched = match touched_rows(order, reply) {
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
