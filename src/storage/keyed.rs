//! Reading storage by key: rows, pages, and what became of an attempt.
//!
//! A row is matched to the key that was asked for by `Table::key_identity`, equal for equal values however they
//! are spelled (`1` and `1.0`, upper and lower case of a uuid). A row that matches none is an error, not left
//! out: to the caller an absent row means "delete it".

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::{Call, Capability, Storage, StorageError, UnixMs};
use crate::contract::{
    AttemptId, Condition, Epoch, Key, Operator, Query, Range, Reply, Resolve, Row, Select, Where,
};
use crate::schema::Table;

/// Keys in one `in`.
const KEYS_PER_SELECT: usize = 500;
/// Tests and combiners in one condition: a service may bound them, the reference service at 256.
const WHERE_PARTS: usize = 250;
/// Selects under way for one request.
pub(super) const CALLS_AT_ONCE: usize = 16;

/// One page of a walk in key order.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where to go on; none at the end. The key's column values, in key order.
    pub next: Option<Vec<Value>>,
}

/// What became of an attempt.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// It took effect. If not, it never will.
    pub applied: bool,
    /// The rows of the keys as they are now; keys without a row are absent.
    pub rows: HashMap<Key, Row>,
}

/// The reply of a `resolve`.
#[derive(Deserialize)]
struct ResolvedReply {
    applied: bool,
    rows: Vec<Row>,
}

impl Storage {
    /// The rows of these keys, soft-deleted ones included; keys without a row are absent.
    ///
    /// # Errors
    /// Those of the first call that failed; `InDoubt` for a reply with rows that were not asked for.
    pub async fn rows_by_keys(
        &self,
        table: &Arc<Table>,
        keys: &[Key],
        epoch: Epoch,
        deadline: UnixMs,
    ) -> Result<HashMap<Key, Row>, StorageError> {
        let mut wanted = HashMap::with_capacity(keys.len());
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let parts = key_values(table, key)?;
            if wanted.insert(table.key_identity(&parts), key).is_none() {
                values.push(parts);
            }
        }
        let filters: Vec<Where> = values
            .chunks(self.keys_per_select(table.key.len()))
            .map(|some| any_of(table, some))
            .collect();
        let replies: Vec<Vec<Row>> = stream::iter(filters)
            .map(|filter| self.select(table, filter, epoch, deadline))
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        by_key(table, &wanted, replies.into_iter().flatten())
    }

    /// How many rows one select may ask for by the values of so many columns.
    #[must_use]
    pub fn keys_per_select(&self, columns: usize) -> usize {
        match (self.capabilities.has(Capability::Operators), columns) {
            (false, _) => 1,
            (true, 1) => KEYS_PER_SELECT,
            // Each is a combiner with a test per column.
            (true, columns) => (WHERE_PARTS / (columns + 1)).max(1),
        }
    }

    async fn select(
        &self,
        table: &Table,
        filter: Where,
        epoch: Epoch,
        deadline: UnixMs,
    ) -> Result<Vec<Row>, StorageError> {
        let select = Select {
            table: table.name.clone(),
            filter: Some(filter),
            include_deleted: table.policy.soft_delete.is_some(),
            ..Select::default()
        };
        let call = Call::new(Query::Select(select), deadline, epoch);
        read(&self.call(&call).await?)
    }

    /// A page of at most `limit` rows after a key, soft-deleted ones included, in key order.
    ///
    /// # Errors
    /// `Rejected` with `unsupported` without the capability `ranges`; else those of the call.
    pub async fn range(
        &self,
        table: &Table,
        after: Option<&[Value]>,
        limit: u64,
        epoch: Epoch,
        deadline: UnixMs,
    ) -> Result<Page, StorageError> {
        if !self.capabilities.has(Capability::Ranges) {
            return Err(StorageError::unsupported("ranges"));
        }
        let range = Range {
            table: table.name.clone(),
            after: after.map(<[Value]>::to_vec),
            limit,
        };
        let call = Call::new(Query::Range(range), deadline, epoch);
        read(&self.call(&call).await?)
    }

    /// Asks what became of an attempt; the service refuses it from then on.
    ///
    /// # Errors
    /// `Rejected` with `unsupported` without the capability `resolve`; else those of the call.
    pub async fn resolve(
        &self,
        table: &Table,
        keys: &[Key],
        attempt: AttemptId,
        epoch: Epoch,
        deadline: UnixMs,
    ) -> Result<Resolved, StorageError> {
        if !self.capabilities.has(Capability::Resolve) {
            return Err(StorageError::unsupported("resolve"));
        }
        let values = keys
            .iter()
            .map(|key| key_values(table, key))
            .collect::<Result<Vec<_>, _>>()?;
        let wanted = values
            .iter()
            .zip(keys)
            .map(|(values, key)| (table.key_identity(values), key))
            .collect();
        let resolve = Resolve {
            table: table.name.clone(),
            keys: values,
            attempt_id: attempt,
        };
        let call = Call::new(Query::Resolve(resolve), deadline, epoch);
        let reply: ResolvedReply = read(&self.call(&call).await?)?;
        Ok(Resolved {
            applied: reply.applied,
            rows: by_key(table, &wanted, reply.rows)?,
        })
    }

    /// Whether the service answers: one row of `table`, thrown away.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn probe(
        &self,
        table: &Table,
        epoch: Epoch,
        deadline: UnixMs,
    ) -> Result<(), StorageError> {
        let select = Select {
            table: table.name.clone(),
            limit: Some(1),
            ..Select::default()
        };
        let call = Call::new(Query::Select(select), deadline, epoch);
        self.call(&call).await.map(|_| ())
    }
}

/// Rows under the keys that they were asked for by.
fn by_key(
    table: &Table,
    wanted: &HashMap<String, &Key>,
    found: impl IntoIterator<Item = Row>,
) -> Result<HashMap<Key, Row>, StorageError> {
    let mut rows = HashMap::with_capacity(wanted.len());
    for row in found {
        let identity = table.key_of(&row).map(|key| table.key_identity(&key));
        let Some(key) = identity.and_then(|identity| wanted.get(&identity)) else {
            return Err(StorageError::InDoubt(
                "a row that was not asked for".to_owned(),
            ));
        };
        rows.insert((*key).clone(), row);
    }
    Ok(rows)
}

/// A canonical key's column values.
pub(super) fn key_values(table: &Table, key: &Key) -> Result<Vec<Value>, StorageError> {
    match serde_json::from_str::<Vec<Value>>(&key.0) {
        Ok(values) if values.len() == table.key.len() => Ok(values),
        Ok(_) | Err(_) => {
            let why = format!("a key that is not one of table {}", table.name);
            let error = crate::contract::Error::new(crate::contract::Code::TypeMismatch, why);
            Err(StorageError::Rejected(error))
        }
    }
}

/// The condition that pins one key by equality.
pub(super) fn pinned(table: &Table, key: &[Value]) -> Where {
    let tests = table.key_columns().zip(key);
    let tests = tests.map(|(column, value)| {
        let condition = Condition {
            operator: Operator::Eq,
            value: value.clone(),
        };
        Where::Column(column.name.clone(), condition)
    });
    let mut tests: Vec<_> = tests.collect();
    if tests.len() == 1 {
        tests.remove(0)
    } else {
        Where::And(tests)
    }
}

/// The condition that holds for any of these keys.
fn any_of(table: &Table, keys: &[Vec<Value>]) -> Where {
    if let [key] = keys {
        return pinned(table, key);
    }
    if table.key.len() > 1 {
        return Where::Or(keys.iter().map(|key| pinned(table, key)).collect());
    }
    let name = table.columns[table.key[0]].name.clone();
    let condition = Condition {
        operator: Operator::In,
        value: keys.iter().flatten().cloned().collect(),
    };
    Where::Column(name, condition)
}

/// A reply in the shape that was asked for.
pub(super) fn read<T: serde::de::DeserializeOwned>(reply: &Reply) -> Result<T, StorageError> {
    serde_json::from_str(reply.as_json())
        .map_err(|_| StorageError::InDoubt("a reply of another shape than asked for".to_owned()))
}
