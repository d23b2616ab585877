//! Looking up, on either side, the rows that a page's rows refer to.

use std::collections::HashSet;

use serde_json::Value;

use super::pages::rows_in;
use super::{Walk, WalkError};
use crate::contract::{Key, Row};
use crate::schema::{Read, Relation, read_query};
use crate::stage::Backend;
use crate::storage::{Call, Capability, UnixMs};

impl Walk {
    /// Which of these references lead to a row on that side: their identities.
    pub(crate) async fn parents(
        &self,
        side: Backend,
        relation: &Relation,
        references: &[Vec<Value>],
    ) -> Result<HashSet<String>, WalkError> {
        let rows = self.parent_rows(side, relation, references).await?;
        let found = rows.iter().filter_map(|row| relation.parent_identity(row));
        Ok(found.collect())
    }

    /// The keys of the rows that these references lead to, on whichever side.
    pub(crate) async fn parent_keys(
        &self,
        relation: &Relation,
        references: &[Vec<Value>],
    ) -> Result<Vec<Key>, WalkError> {
        let mut keys = HashSet::new();
        for side in [Backend::Legacy, Backend::Storage] {
            let rows = self.parent_rows(side, relation, references).await?;
            let found = self.keyed(&relation.parent, rows).await?;
            keys.extend(found.into_iter().map(|(key, _)| key));
        }
        Ok(keys.into_iter().collect())
    }

    async fn parent_rows(
        &self,
        side: Backend,
        relation: &Relation,
        references: &[Vec<Value>],
    ) -> Result<Vec<Row>, WalkError> {
        let storage = &self.parts.storage;
        let at_once = storage.keys_per_select(relation.target.len());
        let mut rows = Vec::new();
        for some in references.chunks(at_once) {
            let read = relation.parents(some);
            rows.extend(match side {
                Backend::Legacy => self.legacy_rows(&read).await?,
                Backend::Storage => self.rows_of_storage(&read).await?,
            });
        }
        Ok(rows)
    }

    async fn rows_of_storage(&self, read: &Read) -> Result<Vec<Row>, WalkError> {
        let epoch = self.steady().await?.epoch;
        let storage = &self.parts.storage;
        let ordered = storage.capabilities().has(Capability::OrderBy);
        let ask = || async {
            let deadline = UnixMs::after(storage.rpc_deadline());
            let call = Call::new(read_query(read, ordered), deadline, epoch);
            Ok(storage.call(&call).await?)
        };
        rows_in(&self.patiently(ask).await?, &read.table)
    }
}
