//! Paying: making storage's row of a key what the authority's row is.
//!
//! A payment is a full-row put or a hard delete, so that to repeat one is harmless. What the service lacks is
//! made up for here as far as it can be, and nowhere else.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::keyed::{CALLS_AT_ONCE, key_values, pinned, read};
use super::outcome::item;
use super::{Call, Capability, Storage, StorageError, UnixMs};
use crate::contract::{AttemptId, BatchItem, Code, Delete, Epoch, Insert, Key, Query, Row, Update};
use crate::schema::{Generated, Table};

/// Items in one `batch`.
const BATCH_ITEMS_MAX: usize = 200;
/// Estimated bytes in one `batch`; a single larger item goes alone.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// One key's debt.
#[derive(Clone, Debug)]
pub struct Payment {
    /// The table.
    pub table: Arc<Table>,
    /// The key.
    pub key: Key,
    /// The authority's row; none: there is none, and storage's is to go.
    pub row: Option<Row>,
    /// Names this send.
    pub attempt: AttemptId,
    /// The entry's deadline.
    pub deadline: UnixMs,
    /// The epoch it was claimed under.
    pub epoch: Epoch,
    /// The key's fence token, if fences are in use.
    pub fence: Option<i64>,
}

/// What a payment did.
#[derive(Clone, PartialEq, Debug)]
pub struct Paid {
    /// The row that storage now has or, for a delete, had; none when there was nothing to delete.
    pub stored: Option<Row>,
}

impl Storage {
    /// Pays, and says for each payment, in order, what became of it: by `batch` where the service can, else by
    /// single calls, some at once. Payments of one list must be of different keys.
    ///
    /// Without `upsert` a put is an update, then an insert if there was nothing to update, each an attempt of
    /// its own: after a doubt, `resolve` of the payment's attempt does not speak for the second, and the
    /// deadline must be waited out as it must be for a service without `resolve`.
    pub async fn pay(&self, payments: Vec<Payment>) -> Vec<Result<Paid, StorageError>> {
        let batches = self.capabilities.has(Capability::Batch)
            && self.capabilities.has(Capability::Upsert)
            && self.capabilities.has(Capability::Delete);
        if !batches || payments.len() == 1 {
            return self.pay_each(payments).await;
        }
        let mut results = Vec::with_capacity(payments.len());
        for batch in batched(payments) {
            results.extend(self.pay_batch(&batch).await);
        }
        results
    }

    /// Pays one by one, some at once.
    async fn pay_each(&self, payments: Vec<Payment>) -> Vec<Result<Paid, StorageError>> {
        stream::iter(payments)
            .map(|payment| async move { self.pay_one(&payment).await })
            .buffered(CALLS_AT_ONCE)
            .collect()
            .await
    }

    /// Removes the rows of a cycle and puts them again in one transaction: the way out when each row's unique
    /// value is still another's (rule P13). `swept` are the rows that go with them or are changed by that;
    /// they are put again after. Needs `transaction`, `upsert` and `delete`.
    ///
    /// # Errors
    /// Those of the call; all or nothing.
    pub async fn replace_all(
        &self,
        cycle: &[Payment],
        swept: &[Payment],
    ) -> Result<(), StorageError> {
        let Some(first) = cycle.first() else {
            return Ok(());
        };
        for (capability, name) in [
            (Capability::Transaction, "transaction"),
            (Capability::Upsert, "upsert"),
            (Capability::Delete, "delete"),
        ] {
            if !self.capabilities.has(capability) {
                return Err(StorageError::unsupported(name));
            }
        }
        let mut queries = Vec::with_capacity(cycle.len() * 2 + swept.len());
        // Children were appended after their parents: they go first, and come back last.
        for payment in cycle.iter().rev() {
            let key = key_values(&payment.table, &payment.key)?;
            queries.push(delete(&payment.table, &key));
        }
        for payment in cycle.iter().chain(swept) {
            if let Some(row) = &payment.row {
                queries.push(upsert(&payment.table, writable(&payment.table, row)));
            }
        }
        let call = Call::new(Query::Transaction(queries), first.deadline, first.epoch);
        self.call(&call).await.map(drop)
    }

    async fn pay_one(&self, payment: &Payment) -> Result<Paid, StorageError> {
        let key = key_values(&payment.table, &payment.key)?;
        let Some(row) = &payment.row else {
            if !self.capabilities.has(Capability::Delete) {
                return Err(StorageError::unsupported("delete"));
            }
            return self
                .send(payment, payment.attempt, delete(&payment.table, &key))
                .await;
        };
        let row = writable(&payment.table, row);
        if self.capabilities.has(Capability::Upsert) {
            return self
                .send(payment, payment.attempt, upsert(&payment.table, row))
                .await;
        }
        let update = update(&payment.table, &key, row.clone());
        let paid = self.send(payment, payment.attempt, update).await?;
        if paid.stored.is_some() {
            return Ok(paid);
        }
        let insert = insert(&payment.table, row);
        self.send(payment, AttemptId::fresh(), Query::Insert(insert))
            .await
    }

    async fn send(
        &self,
        payment: &Payment,
        attempt: AttemptId,
        query: Query,
    ) -> Result<Paid, StorageError> {
        let call = Call {
            query,
            attempt,
            deadline: payment.deadline,
            epoch: payment.epoch,
            traceparent: None,
            fences: payment.fences(),
        };
        let stored = read(&self.call(&call).await?)?;
        Ok(Paid { stored })
    }

    async fn pay_batch(&self, batch: &[Payment]) -> Vec<Result<Paid, StorageError>> {
        let (items, refused): (Vec<_>, Vec<_>) = batch
            .iter()
            .map(|payment| match key_values(&payment.table, &payment.key) {
                Ok(key) => (Some(self.batch_item(payment, &key)), None),
                Err(error) => (None, Some(error)),
            })
            .unzip();
        let items: Vec<BatchItem> = items.into_iter().flatten().collect();
        let replies = match self.send_batch(batch, items).await {
            Ok(replies) => replies,
            // Nothing of it was done. What the service cannot even read is refused alone, and the others are paid.
            Err(error) if is_unreadable(&error) && batch.len() > 1 => {
                return self.pay_each(batch.to_vec()).await;
            }
            Err(error) => vec![Err(error); batch.len()],
        };
        let mut replies = replies.into_iter();
        let answers = refused.into_iter().map(|refused| match refused {
            Some(error) => Err(error),
            None => match replies.next() {
                Some(reply) => reply,
                None => Err(StorageError::InDoubt("a reply is missing".to_owned())),
            },
        });
        answers.collect()
    }

    /// Sends the items as one call; as many results as items, or why there is none.
    async fn send_batch(
        &self,
        batch: &[Payment],
        items: Vec<BatchItem>,
    ) -> Result<Vec<Result<Paid, StorageError>>, StorageError> {
        let count = items.len();
        let deadline = batch.iter().map(|payment| payment.deadline).max();
        let epoch = batch.iter().map(|payment| payment.epoch).max();
        let (Some(deadline), Some(epoch)) = (deadline, epoch) else {
            return Ok(Vec::new());
        };
        let call = Call::new(Query::Batch(items), deadline, epoch);
        let replies: Vec<Value> = read(&self.call(&call).await?)?;
        if replies.len() != count {
            return Err(StorageError::InDoubt("not one reply per item".to_owned()));
        }
        let paid = |reply| item(reply).map(|stored| Paid { stored });
        Ok(replies.into_iter().map(paid).collect())
    }

    fn batch_item(&self, payment: &Payment, key: &[Value]) -> BatchItem {
        let query = match &payment.row {
            Some(row) => upsert(&payment.table, writable(&payment.table, row)),
            None => delete(&payment.table, key),
        };
        let fences = if self.capabilities.has(Capability::Fencing) {
            payment.fences()
        } else {
            Vec::new()
        };
        BatchItem {
            query,
            attempt_id: payment.attempt,
            deadline_ms: payment.deadline.0,
            fences,
        }
    }
}

/// Whether the service refused a call for what stands in it, before it did anything.
fn is_unreadable(error: &StorageError) -> bool {
    match error {
        StorageError::Rejected(error) => {
            matches!(error.code, Code::InvalidRequest | Code::TooLarge)
        }
        StorageError::Unavailable(_) | StorageError::InDoubt(_) => false,
    }
}

impl Payment {
    fn fences(&self) -> Vec<(Key, i64)> {
        let fence = self.fence.map(|token| (self.key.clone(), token));
        fence.into_iter().collect()
    }

    /// About how many bytes it is on the wire.
    fn weight(&self) -> usize {
        const ENVELOPE: usize = 256;
        let row = self.row.iter().flatten();
        let row: usize = row
            .map(|(name, value)| name.len() + 4 + weight(value))
            .sum();
        ENVELOPE + self.key.0.len() + row
    }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(number) => number.as_str().len() + 1,
        Value::String(text) => text.len() + 3,
        Value::Array(values) => values.iter().map(weight).sum::<usize>() + 2,
        Value::Object(members) => {
            let members = members.iter();
            members
                .map(|(name, value)| name.len() + 4 + weight(value))
                .sum::<usize>()
                + 2
        }
    }
}

/// The payments in order, cut so that each part keeps within both bounds.
fn batched(payments: Vec<Payment>) -> Vec<Vec<Payment>> {
    let mut batches: Vec<Vec<Payment>> = Vec::new();
    let mut bytes = 0;
    for payment in payments {
        let weight = payment.weight();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_ITEMS_MAX && bytes + weight <= BATCH_BYTES_MAX => {
                bytes += weight;
                batch.push(payment);
            }
            Some(_) | None => {
                bytes = weight;
                batches.push(vec![payment]);
            }
        }
    }
    batches
}

/// The row without what only the database can write.
fn writable(table: &Table, row: &Row) -> Row {
    let computed = |name: &str| {
        let column = table.columns.iter().find(|column| column.name == name);
        column.is_some_and(|column| column.generated == Generated::Expression)
    };
    let columns = row.iter().filter(|(name, _)| !computed(name));
    columns
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn insert(table: &Table, row: Row) -> Insert {
    Insert {
        table: table.name.clone(),
        rows: vec![row],
        single: true,
    }
}

fn upsert(table: &Table, row: Row) -> Query {
    Query::Upsert(insert(table, row))
}

fn update(table: &Table, key: &[Value], data: Row) -> Query {
    Query::Update(Update {
        table: table.name.clone(),
        filter: Some(pinned(table, key)),
        data,
        all: false,
        include_deleted: table.policy.soft_delete.is_some(),
    })
}

fn delete(table: &Table, key: &[Value]) -> Query {
    Query::Delete(Delete {
        table: table.name.clone(),
        filter: Some(pinned(table, key)),
        hard: true,
        all: false,
        include_deleted: table.policy.soft_delete.is_some(),
    })
}
