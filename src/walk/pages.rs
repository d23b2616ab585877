//! Pages of either side, in key order.
//!
//! Keys are compared in canonical form, which only legacy can make; the order in which storage walks is
//! its own affair, so the other side is probed by key and never merged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Walk, WalkError};
use crate::contract::{Key, Reply, Row, written_rows};
use crate::schema::{Filter, Read, ReadKind, Sort, Table};
use crate::storage::{Capability, UnixMs};

/// Some of what one side has, in its order.
pub(crate) struct Page {
    pub(crate) rows: Vec<Row>,
    /// The key to go on after; none at the end.
    pub(crate) next: Option<Vec<Value>>,
}

impl Walk {
    /// Whether storage can be walked: without it, what only storage has is not found.
    pub(crate) fn walks_storage(&self) -> bool {
        self.parts.storage.capabilities().has(Capability::Ranges)
    }

    /// How many rows legacy's table has, if that can be had; for progress only.
    pub(crate) async fn estimate(&self, table: &Table) -> Option<u64> {
        let legacy = &self.parts.legacy;
        match legacy.rows_estimated(table).await {
            Ok(Some(rows)) => Some(rows),
            // Never analyzed: counted, where a statement has the time for it.
            Ok(None) => legacy.rows_counted(table).await.ok().flatten(),
            Err(_) => None,
        }
    }

    /// Legacy's keys after one and up to another, at most `limit`.
    pub(crate) async fn legacy_keys(
        &self,
        table: &Table,
        after: Option<&Key>,
        upper: &Key,
        limit: u64,
    ) -> Result<Vec<Key>, WalkError> {
        let beyond = Filter::Not(Box::new(Filter::After(values_of(upper)?)));
        let filter = match after {
            Some(key) => Filter::All(vec![Filter::After(values_of(key)?), beyond]),
            None => beyond,
        };
        self.keys_matching(table, &filter, limit).await
    }

    async fn keys_matching(
        &self,
        table: &Table,
        filter: &Filter,
        limit: u64,
    ) -> Result<Vec<Key>, WalkError> {
        let legacy = &self.parts.legacy;
        let read = || async { Ok(legacy.keys_matching(table, filter, limit).await?) };
        self.patiently(read).await
    }

    /// Legacy's last key; none in an empty table.
    pub(crate) async fn legacy_last_key(
        &self,
        table: &Arc<Table>,
    ) -> Result<Option<Key>, WalkError> {
        let from_the_end = |&column: &usize| Sort {
            column,
            descending: true,
        };
        let read = Read {
            table: Arc::clone(table),
            kind: ReadKind::Rows {
                columns: table.key.clone(),
                order: table.key.iter().map(from_the_end).collect(),
                limit: Some(1),
                offset: None,
            },
            filter: Filter::All(Vec::new()),
        };
        let rows = self.legacy_rows(&read).await?;
        Ok(self.keyed(table, rows).await?.pop().map(|(key, _)| key))
    }

    /// What legacy answers to a read of rows.
    pub(super) async fn legacy_rows(&self, read: &Read) -> Result<Vec<Row>, WalkError> {
        let reply = self
            .patiently(|| async { Ok(self.parts.legacy.read(read).await?) })
            .await?;
        rows_in(&reply, &read.table)
    }

    /// Legacy's whole rows after a key, soft-deleted ones too.
    pub(crate) async fn legacy_page(
        &self,
        table: &Arc<Table>,
        after: Option<&[Value]>,
        limit: u64,
    ) -> Result<Page, WalkError> {
        let filter = match after {
            Some(key) => Filter::After(key.to_vec()),
            None => Filter::All(Vec::new()),
        };
        let read = || async { Ok(self.parts.legacy.read_whole(table, &filter, limit).await?) };
        let rows = rows_in(&self.patiently(read).await?, table)?;
        let last = rows.last().map(|row| key_of(table, row)).transpose()?;
        Ok(Page {
            next: last.filter(|_| rows.len() as u64 >= limit),
            rows,
        })
    }

    /// Storage's rows after a key, soft-deleted ones too.
    pub(crate) async fn storage_page(
        &self,
        table: &Arc<Table>,
        after: Option<&[Value]>,
        limit: u64,
    ) -> Result<Page, WalkError> {
        let epoch = self.steady().await?.epoch;
        let storage = &self.parts.storage;
        let read = || async {
            let deadline = UnixMs::after(storage.rpc_deadline());
            Ok(storage.range(table, after, limit, epoch, deadline).await?)
        };
        let page = self.patiently(read).await?;
        if page.next.is_some() && page.next.as_deref() == after {
            let why = format!("{}: storage's range does not move on", table.name);
            return Err(WalkError::Unreadable(why));
        }
        Ok(Page {
            rows: page.rows,
            next: page.next,
        })
    }

    /// Storage's keys after one, and where to go on, in canonical form.
    pub(crate) async fn storage_keys(
        &self,
        table: &Arc<Table>,
        after: Option<&Key>,
        limit: u64,
    ) -> Result<(Vec<Key>, Option<Key>), WalkError> {
        let after = after.map(values_of).transpose()?;
        let page = self.storage_page(table, after.as_deref(), limit).await?;
        let next = match page.next {
            Some(values) => self.canonical(table, &[values]).await?.pop(),
            None => None,
        };
        let keyed = self.keyed(table, page.rows).await?;
        Ok((keyed.into_iter().map(|(key, _)| key).collect(), next))
    }

    /// Storage's rows of these keys.
    pub(crate) async fn storage_rows(
        &self,
        table: &Arc<Table>,
        keys: &[Key],
    ) -> Result<HashMap<Key, Row>, WalkError> {
        let epoch = self.steady().await?.epoch;
        let storage = &self.parts.storage;
        let read = || async {
            let deadline = UnixMs::after(storage.rpc_deadline());
            Ok(storage.rows_by_keys(table, keys, epoch, deadline).await?)
        };
        self.patiently(read).await
    }

    /// Those of these keys that legacy has no row of.
    pub(crate) async fn not_in_legacy(
        &self,
        table: &Table,
        keys: Vec<Key>,
    ) -> Result<Vec<Key>, WalkError> {
        if keys.is_empty() {
            return Ok(keys);
        }
        let values: Result<Vec<_>, _> = keys.iter().map(values_of).collect();
        let filter = Filter::Keys(values?);
        let held = self.keys_matching(table, &filter, keys.len() as u64);
        let held: HashSet<Key> = held.await?.into_iter().collect();
        Ok(keys.into_iter().filter(|key| !held.contains(key)).collect())
    }

    /// Rows with their keys in canonical form.
    pub(crate) async fn keyed(
        &self,
        table: &Table,
        rows: Vec<Row>,
    ) -> Result<Vec<(Key, Row)>, WalkError> {
        let values: Vec<_> = rows
            .iter()
            .map(|row| key_of(table, row))
            .collect::<Result<_, _>>()?;
        let keys = self.canonical(table, &values).await?;
        Ok(keys.into_iter().zip(rows).collect())
    }

    /// The canonical form of keys.
    pub(crate) async fn canonical(
        &self,
        table: &Table,
        values: &[Vec<Value>],
    ) -> Result<Vec<Key>, WalkError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self
            .patiently(|| async { Ok(self.parts.legacy.canonical_keys(table, values).await?) })
            .await?;
        if keys.len() != values.len() {
            let why = format!("{}: a key got lost on its way", table.name);
            return Err(WalkError::Unreadable(why));
        }
        Ok(keys)
    }
}

/// The rows in a reply.
pub(super) fn rows_in(reply: &Reply, table: &Table) -> Result<Vec<Row>, WalkError> {
    written_rows(reply.as_json())
        .map_err(|_| WalkError::Unreadable(format!("{}: rows that are none", table.name)))
}

/// A canonical key's column values.
pub(crate) fn values_of(key: &Key) -> Result<Vec<Value>, WalkError> {
    serde_json::from_str(&key.0)
        .map_err(|_| WalkError::Unreadable("a key that is not canonical".to_owned()))
}

/// A row's key, which every row has.
pub(crate) fn key_of(table: &Table, row: &Row) -> Result<Vec<Value>, WalkError> {
    let key = table.key_of(row);
    key.ok_or_else(|| WalkError::Unreadable(format!("{}: a row without key", table.name)))
}
