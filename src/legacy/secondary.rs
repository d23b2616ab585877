//! Writing to legacy as the secondary: rows that storage has, by key.
//!
//! What is applied must fire neither the capture triggers nor the application's: the session's
//! `session_replication_role` is `replica` where that is granted, and the capture trigger steps aside for
//! the role `apply` where it is not. So these writes ask the gate themselves, last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::authority::{enter, leave};
use super::hanging::ties;
use super::{Legacy, as_known};
use crate::contract::{Epoch, Key, OpId, Row, Token, carried_row};
use crate::journal::{self, Claim, Departure, OperationState};
use crate::schema::{Filter, Generated, Schema, Table};
use crate::sql::render::{advance_sequences, next_values};
use crate::sql::{Dialect, Fault, Tx};

/// The state a key must have: a row, or none.
#[derive(Clone, Debug)]
pub struct Image {
    /// The table.
    pub table: Arc<Table>,
    /// The key.
    pub key: Key,
    /// The row, or none when it is gone.
    pub row: Option<Row>,
}

impl Image {
    /// Whether the row, if there is one, holds every column that can be written.
    fn is_whole(&self, table: &Table) -> bool {
        let Some(row) = &self.row else { return true };
        let mut written = table.columns.iter();
        written.all(|column| {
            column.generated == Generated::Expression || row.contains_key(&column.name)
        })
    }
}

/// A row to be copied.
#[derive(Clone, Debug)]
pub struct Source {
    /// The row.
    pub row: Row,
    /// Names of columns whose values it does not hold as they are in the database (a JSON `null` document, one
    /// that the contract refuses, an array whose subscripts do not begin at 1): such a row must not be copied.
    /// Empty when it may.
    pub unfaithful: String,
}

/// What became of applying images under a claim or an intent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// They are in legacy, and what was owed is settled.
    Done,
    /// The entry is not ours any more: nothing was done (P2).
    NotOurs,
}

/// What became of paying an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paid {
    /// The row is in legacy, and the entry is settled.
    Done,
    /// The entry is not ours any more: nothing was done (P2).
    NotOurs,
    /// Something that the row refers to left storage after the claim: nothing was done, and the row must be read again.
    Overtaken,
}

/// An intent to finish: whose it is and how it ends.
#[derive(Clone, Debug)]
pub struct Finish<'a> {
    /// The intent's owner.
    pub token: Token,
    /// The keys it holds.
    pub keys: &'a [journal::Named],
    /// Its operation.
    pub op_id: OpId,
    /// What is recorded of the operation.
    pub state: OperationState,
    /// The answer to record, for `Done`.
    pub reply: Option<&'a str>,
    /// The epoch to commit under.
    pub epoch: Epoch,
}

impl Legacy {
    /// Step 5 of a live write, and the end of a resolved one: in one commit the intent is still open and
    /// ours, the rows are put or removed, the sequences follow, the operation is recorded.
    ///
    /// # Errors
    /// See [`Fault`]; `StaleEpoch` when the epoch moved. Must not be cancelled half-way.
    pub async fn finish(&self, finish: &Finish<'_>, images: &[Image]) -> Result<Applied, Fault> {
        let mut known = self.schema();
        loop {
            match self.finish_as(&known, finish, images).await {
                Err(fault) => known = self.newer(&known, fault).await?,
                applied => return applied,
            }
        }
    }

    async fn finish_as(
        &self,
        known: &Schema,
        finish: &Finish<'_>,
        images: &[Image],
    ) -> Result<Applied, Fault> {
        let mut tx = self.db().begin().await?;
        self.silence(&mut tx, finish.epoch).await?;
        // The rows first: who waits for a row that somebody else has locked must not hold the gate meanwhile.
        // Then the gate, before the intent's entries: a transition converts those under it. If the proof fails,
        // nothing of it is committed (P2).
        apply(&mut tx, known, images, self.silences_triggers()).await?;
        leave(&mut tx).await?;
        journal::gate(&mut tx, finish.epoch).await?;
        let settled = journal::settle_intent(
            &mut tx,
            finish.token,
            finish.keys,
            finish.op_id,
            finish.state,
            finish.reply,
        );
        if !settled.await? {
            return Ok(Applied::NotOurs);
        }
        tx.commit().await?;
        Ok(Applied::Done)
    }

    /// Pays one claimed `copy` entry towards legacy. What hangs on its row must be owed already, and is told when it
    /// was `looked` for (`owe_hanging`).
    ///
    /// # Errors
    /// As `finish`.
    pub async fn pay(
        &self,
        claim: &Claim,
        seq: i64,
        image: &Image,
        looked: Option<Departure>,
    ) -> Result<Paid, Fault> {
        let mut known = self.schema();
        loop {
            match self.pay_as(&known, claim, seq, image, looked).await {
                Err(fault) => known = self.newer(&known, fault).await?,
                paid => return paid,
            }
        }
    }

    async fn pay_as(
        &self,
        known: &Schema,
        claim: &Claim,
        seq: i64,
        image: &Image,
        looked: Option<Departure>,
    ) -> Result<Paid, Fault> {
        let mut tx = self.db().begin().await?;
        self.silence(&mut tx, claim.epoch).await?;
        let ties = ties(known, image);
        if journal::is_overtaken(&mut tx, &ties, claim.departure, looked).await? {
            return Ok(Paid::Overtaken);
        }
        let images = std::slice::from_ref(image);
        apply(&mut tx, known, images, self.silences_triggers()).await?;
        leave(&mut tx).await?;
        journal::gate(&mut tx, claim.epoch).await?;
        if !claim.settle_in(&mut tx, seq).await? {
            return Ok(Paid::NotOurs);
        }
        tx.commit().await?;
        Ok(Paid::Done)
    }

    /// Rows of these keys that exist, soft-deleted ones included.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn rows(&self, table: &Arc<Table>, keys: &[Key]) -> Result<HashMap<Key, Row>, Fault> {
        let sources = self.sources(table, keys).await?;
        Ok(sources
            .into_iter()
            .map(|(key, source)| (key, source.row))
            .collect())
    }

    /// The same, as what is to be copied from.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn sources(
        &self,
        table: &Arc<Table>,
        keys: &[Key],
    ) -> Result<HashMap<Key, Source>, Fault> {
        let mut known = self.schema();
        let found = loop {
            match self.db().rows_by_keys(&as_known(&known, table), keys).await {
                Err(fault) => known = self.newer(&known, fault).await?,
                Ok(found) => break found,
            }
        };
        let asked: HashSet<&Key> = keys.iter().collect();
        found
            .into_iter()
            .map(|held| {
                if !asked.contains(&held.key) {
                    let why = "a row whose key is spelled otherwise than it was asked for";
                    return Err(Fault::Unexpected(why.to_owned()));
                }
                let (row, mut unread) = carried_row(&held.row)
                    .map_err(|error| Fault::Unexpected(format!("a row is not JSON: {error}")))?;
                if !held.unfaithful.is_empty() {
                    unread.insert(0, held.unfaithful);
                }
                let unfaithful = unread.join(",");
                Ok((held.key, Source { row, unfaithful }))
            })
            .collect()
    }

    /// Keys of the rows that a filter matches now, at most `limit`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn keys_matching(
        &self,
        table: &Table,
        filter: &Filter,
        limit: u64,
    ) -> Result<Vec<Key>, Fault> {
        self.db().keys_matching(table, filter, limit).await
    }

    /// The canonical form of keys.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn canonical_keys(
        &self,
        table: &Table,
        keys: &[Vec<serde_json::Value>],
    ) -> Result<Vec<Key>, Fault> {
        self.db().canonical_keys(table, keys).await
    }

    /// The next values of a sequence, for keys that a live write does not bring along.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn next_values(&self, sequence: &str, count: u32) -> Result<Vec<i64>, Fault> {
        let statement = next_values(self.db().dialect(), sequence, count);
        let rows = self.db().fetch(&statement.text, statement.args).await?;
        let free = rows.iter().map(|row| row.some_int(0));
        let free = free.collect::<Result<Vec<_>, _>>()?;
        Ok(match self.db().dialect() {
            Dialect::Postgres => free,
            Dialect::Sqlite => self.rowids.hand_out(sequence, free),
        })
    }

    async fn silence(&self, tx: &mut Tx, epoch: Epoch) -> Result<(), Fault> {
        if self.silences_triggers() {
            tx.fetch("SET LOCAL session_replication_role = replica", vec![])
                .await?;
        }
        if tx.dialect() == Dialect::Sqlite {
            tx.fetch("PRAGMA defer_foreign_keys = ON", vec![]).await?;
        }
        enter(tx, epoch, None, "apply").await
    }
}

/// Puts and removes by key. Several rows of one table are removed before they are put, so that unique
/// values may change hands among them; without silenced triggers that would cascade, and what a row does not
/// hold of its columns would be lost, so then each row is only upserted. The rows are put with the columns of `known`, and the database refuses when it has others.
async fn apply(tx: &mut Tx, known: &Schema, images: &[Image], silenced: bool) -> Result<(), Fault> {
    let dialect = tx.dialect();
    for (table, group) in by_table(images) {
        let table = as_known(known, &table);
        let in_place =
            !silenced || group.len() == 1 || !group.iter().all(|one| one.is_whole(&table));
        let gone: Vec<Key> = group
            .iter()
            .filter(|image| image.row.is_none() || !in_place)
            .map(|image| image.key.clone())
            .collect();
        if !gone.is_empty() {
            tx.remove_keys(&table, &gone).await?;
        }
        let rows: Vec<Row> = group.iter().filter_map(|image| image.row.clone()).collect();
        if !rows.is_empty() {
            tx.put_rows(&table, &rows).await?;
            for statement in advance_sequences(dialect, &table, &rows) {
                tx.fetch(&statement.text, statement.args).await?;
            }
        }
    }
    Ok(())
}

/// Images by table, in the order in which the tables first appear.
fn by_table(images: &[Image]) -> Vec<(Arc<Table>, Vec<&Image>)> {
    let mut groups: Vec<(Arc<Table>, Vec<&Image>)> = Vec::new();
    for image in images {
        match groups
            .iter_mut()
            .find(|(table, _)| table.name == image.table.name)
        {
            Some((_, group)) => group.push(image),
            None => groups.push((Arc::clone(&image.table), vec![image])),
        }
    }
    groups
}
