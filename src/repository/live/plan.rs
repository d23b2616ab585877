//! What a live write will touch: every key, resolved before anything is sent.
//!
//! Predicates are resolved on legacy, which holds every acknowledged write of `live`; missing integer keys
//! come from legacy's sequence, so that a rollback finds them taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Number, Value};

use super::super::bonds::{self, Leaving};
use super::super::errors;
use super::super::write::{Order, Turn};
use super::Repository;
use crate::contract::{Key, Reply, Row};
use crate::control::Snapshot;
use crate::journal::{Bonds, Named, Target, record_done};
use crate::schema::{Change, Filter, Step, Table, Write};
use crate::sql::Fault;
use crate::stage::Backend;

/// A write with every key known.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The write as it goes to storage: keys filled in, predicates narrowed to the resolved keys.
    pub(super) write: Write,
    /// Every key, by table, without repeats.
    pub(super) keys: Vec<Named>,
    /// What is known of each step, in step order.
    pub(super) steps: Vec<Planned>,
    /// What the write does to relations.
    pub(super) bonds: Bonds,
    /// The caller asked for a transaction.
    pub(super) asked_transaction: bool,
    /// The time that soft deletes set.
    pub(super) deleted_at: String,
}

/// What is known of one step before it runs.
#[derive(Clone, Default, Debug)]
pub(super) struct Planned {
    /// Its keys (none for reads).
    pub(super) keys: Vec<Key>,
    /// It moves a row from the first of its two keys to the second.
    pub(super) moves: bool,
    /// What others may hang on that it takes away.
    pub(super) leaving: Leaving,
    /// What it makes rows point at.
    pub(super) targets: Vec<Target>,
    /// Whose step it is.
    pub(super) part: Part,
}

/// Whose step it is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// The caller's.
    #[default]
    Asked,
    /// The caller's, with steps of ours for what hangs on its rows: all of them have to be removed by it.
    Root,
    /// Ours: columns of rows that hang on a removed one become NULL.
    Cleared,
    /// Ours: rows that hang on a removed one go.
    Swept,
}

/// Rows of legacy by table and key.
pub(super) type Before = HashMap<Named, Row>;

impl Part {
    /// Whether the caller asked for it.
    pub(super) fn is_asked(self) -> bool {
        match self {
            Self::Asked | Self::Root => true,
            Self::Cleared | Self::Swept => false,
        }
    }
}

impl Plan {
    /// Whether storage must do more than one row at once.
    pub(super) fn needs_transaction(&self) -> bool {
        let moves = self.steps.iter().filter(|planned| planned.moves).count();
        self.write.transaction || self.keys.len() - moves > 1
    }

    /// The changes, with what is known of each.
    pub(super) fn changes(&self) -> Vec<(&Change, &Planned)> {
        let steps = self.write.steps.iter().zip(&self.steps);
        let changes = steps.filter_map(|(step, planned)| match step {
            Step::Change(change) => Some((change, planned)),
            Step::Read(_) => None,
        });
        changes.collect()
    }

    fn add(&mut self, table: &str, planned: Planned) {
        for key in &planned.keys {
            let named = (table.to_owned(), key.clone());
            if !self.keys.contains(&named) {
                self.keys.push(named);
            }
        }
        let leaving = match (planned.leaving, planned.moves) {
            (Leaving::Nothing, _) => &planned.keys[..0],
            // Nothing can point at the new key yet.
            (Leaving::Rows | Leaving::Columns, true) => &planned.keys[..1],
            (Leaving::Rows | Leaving::Columns, false) => &planned.keys[..],
        };
        let leaving = leaving.iter().map(|key| (table.to_owned(), key.clone()));
        self.bonds.leaving.extend(leaving);
        for target in &planned.targets {
            if !self.bonds.targets.contains(target) {
                self.bonds.targets.push(target.clone());
            }
        }
        self.steps.push(planned);
    }
}

impl Repository {
    /// Resolves keys. `Err` is the turn's end.
    pub(super) async fn plan(&self, order: &Order) -> Result<Plan, Turn> {
        let mut plan = Plan {
            write: order.write.clone(),
            keys: Vec::new(),
            steps: Vec::new(),
            bonds: Bonds::default(),
            asked_transaction: order.write.transaction,
            deleted_at: crate::clock::rfc3339_now(),
        };
        let schema = self.legacy.schema();
        let mut steps = std::mem::take(&mut plan.write.steps);
        for step in &mut steps {
            let Step::Change(change) = step else {
                plan.steps.push(Planned::default());
                continue;
            };
            let mut planned = self.resolve(change, order).await?;
            planned.leaving = bonds::leaving(change, &schema);
            planned.targets = self
                .targets(&bonds::pointed(change, &schema))
                .await
                .map_err(|fault| self.blocked(fault, order))?;
            plan.add(&change.table().name, planned);
        }
        plan.write.steps = steps;
        Ok(plan)
    }

    async fn resolve(&self, change: &mut Change, order: &Order) -> Result<Planned, Turn> {
        let (keys, moves) = match change {
            Change::Insert { table, rows, .. } => {
                self.fill_keys(table, rows)
                    .await
                    .map_err(|fault| self.blocked(fault, order))?;
                let values = rows
                    .iter()
                    .map(|row| table.key_of(row))
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| refused(errors::key_required(&table.name)))?;
                let keys = self.legacy.canonical_keys(table, &values).await;
                (keys.map_err(|fault| self.blocked(fault, order))?, false)
            }
            Change::Update {
                table, filter, set, ..
            } => {
                let keys = self.narrow(table, filter, order).await?;
                self.moved(table, keys, set, order).await?
            }
            Change::SoftDelete { table, filter, .. } | Change::Delete { table, filter, .. } => {
                (self.narrow(table, filter, order).await?, false)
            }
        };
        Ok(Planned {
            keys,
            moves,
            ..Planned::default()
        })
    }

    /// The keys of an update: the old one and the new one where it sets the key of a row to another.
    async fn moved(
        &self,
        table: &Table,
        mut keys: Vec<Key>,
        set: &Row,
        order: &Order,
    ) -> Result<(Vec<Key>, bool), Turn> {
        let mut key_columns = table.key_columns();
        if keys.is_empty() || !key_columns.any(|column| set.contains_key(&column.name)) {
            return Ok((keys, false));
        }
        let moved: Vec<Vec<Value>> = values_of(&keys)
            .iter()
            .map(|key| table.moved_key(key, set))
            .collect();
        let moved = self.legacy.canonical_keys(table, &moved).await;
        let moved = moved.map_err(|fault| self.blocked(fault, order))?;
        match moved.as_slice() {
            _ if moved == keys => Ok((keys, false)),
            [only] => {
                keys.push(only.clone());
                Ok((keys, true))
            }
            _ => Err(refused(errors::unsupported(
                "only one row's primary key can be changed at a time in this stage",
            ))),
        }
    }

    /// What is pointed at, by canonical key where the key is known.
    async fn targets(&self, pointed: &[bonds::Pointed]) -> Result<Vec<Target>, Fault> {
        let mut targets = Vec::new();
        for group in pointed.chunk_by(|a, b| a.table.name == b.table.name) {
            let Some(table) = group.first().map(|one| &one.table) else {
                continue;
            };
            let of = |key| Target {
                table: table.name.clone(),
                key,
            };
            let known: Vec<Vec<Value>> = group.iter().filter_map(|one| one.key.clone()).collect();
            if known.len() < group.len() {
                targets.push(of(None));
            }
            if !known.is_empty() {
                let keys = self.legacy.canonical_keys(table, &known).await?;
                targets.extend(keys.into_iter().map(|key| of(Some(key))));
            }
        }
        Ok(targets)
    }

    /// Finds the keys that match, and narrows the filter to them: the original predicate stays, so a row
    /// that storage sees otherwise is not touched.
    async fn narrow(
        &self,
        table: &Arc<Table>,
        filter: &mut Filter,
        order: &Order,
    ) -> Result<Vec<Key>, Turn> {
        let limit = self.options.load().limits.rows_max as u64;
        let keys = self
            .legacy
            .keys_matching(table, filter, limit + 1)
            .await
            .map_err(|fault| self.blocked(fault, order))?;
        if keys.len() as u64 > limit {
            return Err(refused(errors::too_many_rows(limit)));
        }
        let original = std::mem::replace(filter, Filter::All(Vec::new()));
        *filter = Filter::All(vec![original, Filter::Keys(values_of(&keys))]);
        Ok(keys)
    }

    /// Missing integer keys come from legacy's sequence.
    async fn fill_keys(&self, table: &Table, rows: &mut [Row]) -> Result<(), Fault> {
        for column in table.key_columns() {
            let missing = rows
                .iter()
                .filter(|row| !row.contains_key(&column.name))
                .count();
            let (Some(sequence), true) = (&column.sequence, missing > 0) else {
                continue;
            };
            let mut values = self
                .legacy
                .next_values(sequence, u32::try_from(missing).unwrap_or(u32::MAX))
                .await?
                .into_iter();
            for row in rows
                .iter_mut()
                .filter(|row| !row.contains_key(&column.name))
            {
                if let Some(value) = values.next() {
                    row.insert(column.name.clone(), Value::Number(Number::from(value)));
                }
            }
        }
        Ok(())
    }

    /// Legacy's rows of the keys, to hold storage's reply against.
    pub(super) async fn rows_before(&self, plan: &Plan) -> Result<Before, Fault> {
        let mut before = Before::new();
        for (change, planned) in plan.changes() {
            if matches!(change, Change::Insert { upsert: false, .. }) || planned.keys.is_empty() {
                continue;
            }
            for (key, row) in self.legacy.rows(change.table(), &planned.keys).await? {
                before.insert((change.table().name.clone(), key), row);
            }
        }
        Ok(before)
    }

    /// A write that matches nothing still has an answer to remember.
    pub(super) async fn write_nothing(
        &self,
        snapshot: &Snapshot,
        order: &Order,
        plan: &Plan,
    ) -> Turn {
        let replies: Vec<&str> = plan
            .write
            .changes()
            .map(|change| if change.is_single() { "null" } else { "[]" })
            .collect();
        let json = match (plan.write.transaction, replies.as_slice()) {
            (false, [only]) => (*only).to_owned(),
            _ => format!("[{}]", replies.join(",")),
        };
        let recorded = async {
            let mut tx = self.legacy.db().begin().await?;
            let fresh =
                record_done(&mut tx, order.op_id, &order.digest, snapshot.epoch, &json).await?;
            crate::journal::commit_under(tx, snapshot.epoch).await?;
            Ok::<bool, Fault>(fresh)
        };
        match recorded.await {
            Ok(true) => Turn::Done(Ok(Reply::from_json(json)), Backend::Legacy, Duration::ZERO),
            Ok(false) => Turn::InDoubt,
            Err(fault) if fault.is_stale_epoch() => Turn::Again,
            Err(fault) => self.blocked(fault, order),
        }
    }

    /// The answer of a write that was found out to have taken effect: its rows as they are now.
    pub(in crate::repository) async fn rows_now(&self, order: &Order) -> Result<Reply, Turn> {
        let plan = self.plan(order).await?;
        let rows = self
            .rows_of(&plan)
            .await
            .map_err(|fault| self.blocked(fault, order))?;
        let single = plan.write.changes().next().is_some_and(Change::is_single);
        let value = match (plan.write.transaction, single) {
            (false, true) => rows.into_iter().next().map_or(Value::Null, Value::Object),
            _ => Value::Array(rows.into_iter().map(Value::Object).collect()),
        };
        Ok(Reply::from_value(&value))
    }

    async fn rows_of(&self, plan: &Plan) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        for (change, planned) in plan.changes() {
            let mut found = self.legacy.rows(change.table(), &planned.keys).await?;
            rows.extend(planned.keys.iter().filter_map(|key| found.remove(key)));
        }
        Ok(rows)
    }
}

pub(super) fn refused(error: crate::contract::Error) -> Turn {
    Turn::Done(Err(error), Backend::Legacy, Duration::ZERO)
}

/// The column values that a canonical key stands for.
pub(super) fn values_of(keys: &[Key]) -> Vec<Vec<Value>> {
    keys.iter()
        .filter_map(|key| serde_json::from_str(&key.0).ok())
        .collect()
}
