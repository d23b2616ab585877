//! A removal holds everything that hangs on its rows before storage is asked.
//!
//! Its intent is open on the rows themselves, marked, so that nobody begins to point at them
//! (`journal::Bonds`). Then, as often as it takes:
//!
//! 1. It waits until writes that may have pointed at them before are over: their rows are in legacy by then.
//! 2. It reads from legacy what hangs on them, and takes what it does not hold yet into the intent.
//!
//! When a turn of it finds nothing more, nothing can come either, and the last stamp of the intent is the
//! request's deadline. Whoever stands in the way is waited for or, where it might wait in turn, given way to:
//! everything is let go and the write tried again. A row whose key, or another column that a relation acts on,
//! is set anew goes the same way; only nothing may hang on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::super::bonds::{Leaving, acts, acts_on_update, hanging};
use super::super::errors;
use super::super::write::{Order, Turn};
use super::Repository;
use super::plan::{Plan, Planned, refused};
use super::unfold::{self, Tangle};
use crate::compare::values_equal;
use crate::contract::{Error, Row};
use crate::journal::{self, Ahead, Intent, Widened};
use crate::legacy::Swept;
use crate::schema::{Change, Generated, Reference, Table};
use crate::sql::Fault;
use crate::storage::Capability;

/// Rows that may hang on what one write removes.
const FOLLOWERS_MAX: usize = 1_000;
/// How long to wait for others before looking again, doubling from the first to the last.
const PAUSE: Duration = Duration::from_millis(3);
const PAUSE_MAX: Duration = Duration::from_millis(48);

/// A plan whose intent holds all that it touches.
pub(super) struct Held {
    pub(super) plan: Plan,
    /// The request must not commit later (unix microseconds).
    pub(super) deadline_us: i64,
}

/// What one look at what hangs on the rows came to.
enum Look {
    /// Everything is held.
    All(Box<Held>),
    /// There was more, and it is held now: look again.
    More,
    /// Others have to finish first.
    Wait,
}

impl Repository {
    /// Widens an open intent until it holds all that hangs on what the write removes. `Err` is the turn's end;
    /// the intent is gone then, or another's.
    pub(super) async fn hold(
        &self,
        order: &Order,
        plan: &Plan,
        intent: &mut Intent,
    ) -> Result<Held, Turn> {
        match self.widen(order, plan, intent).await {
            Ok(held) => Ok(held),
            Err(turn) => Err(self.dropped(intent, turn).await),
        }
    }

    async fn widen(&self, order: &Order, plan: &Plan, intent: &mut Intent) -> Result<Held, Turn> {
        let mut pause = PAUSE;
        let mut stamped = Instant::now();
        loop {
            let asked = Instant::now();
            match self.look(order, plan, intent).await? {
                Look::All(held) => return Ok(*held),
                Look::More => stamped = asked,
                Look::Wait => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            if Instant::now() >= order.deadline {
                return Err(in_the_way());
            }
            // So that nobody takes it over meanwhile.
            if stamped.elapsed() > intent.lease / 2 {
                stamped = Instant::now();
                self.stamp(order, intent, intent.keys.len(), None).await?;
            }
        }
    }

    async fn look(&self, order: &Order, plan: &Plan, intent: &mut Intent) -> Result<Look, Turn> {
        let fault = |fault| self.blocked(fault, order);
        let schema = self.legacy.schema();
        let tables = plan.bonds.leaving.iter().map(|(table, _)| table.as_str());
        let tables = hanging(tables, &schema);
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let db = self.legacy.db();
        let before = journal::pointing_before(db, intent.token, &tables).await;
        match before.map_err(fault)? {
            Ahead::Nobody => {}
            Ahead::Passing => return Ok(Look::Wait),
            Ahead::Elder => return Err(in_the_way()),
        }
        let swept = self.swept(order, plan).await?;
        let (rows, leaving) = unfold::held(&swept);
        let held = intent.keys.len();
        intent.bonds.leaving.extend(leaving);
        let more = rows.into_iter().filter(|row| !intent.keys.contains(row));
        let more: Vec<_> = more.collect();
        intent.keys.extend(more);
        if intent.keys.len() > held {
            let taken = self.stamp(order, intent, held, None).await;
            if !matches!(taken, Ok(Some(_))) {
                intent.keys.truncate(held);
            }
            return Ok(taken?.map_or(Look::Wait, |_| Look::More));
        }
        let plan = unfold::unfold(plan, &swept, &schema).map_err(|tangle| refused(said(tangle)))?;
        if plan.needs_transaction() && !self.storage.capabilities().has(Capability::Transaction) {
            return Err(refused(errors::no_transactions()));
        }
        let answer = self.foretold(&plan).await.map_err(fault)?;
        let stamped = self.stamp(order, intent, held, answer.as_deref()).await?;
        Ok(stamped.map_or(Look::Wait, |deadline_us| {
            Look::All(Box::new(Held { plan, deadline_us }))
        }))
    }

    /// Stamps the intent anew, with its keys from the `held`-th on taken into it. None: they are held by others.
    async fn stamp(
        &self,
        order: &Order,
        intent: &Intent,
        held: usize,
        answer: Option<&str>,
    ) -> Result<Option<i64>, Turn> {
        match journal::widen(self.legacy.db(), intent, held, answer).await {
            Ok(Widened::Until(deadline_us)) => Ok(Some(deadline_us)),
            Ok(Widened::Behind(Ahead::Elder)) => Err(in_the_way()),
            Ok(Widened::Behind(Ahead::Nobody | Ahead::Passing)) => Ok(None),
            Ok(Widened::NotOurs) => Err(Turn::Again),
            Err(fault) if fault.is_stale_epoch() => Err(Turn::Again),
            Err(Fault::InDoubt(_)) => Err(Turn::InDoubt),
            Err(fault) => Err(self.blocked(fault, order)),
        }
    }

    /// What hangs on the removed rows, read under the intent: they do not change any more.
    async fn swept(&self, order: &Order, plan: &Plan) -> Result<Swept, Turn> {
        let fault = |fault| self.blocked(fault, order);
        let mut removed = Vec::new();
        for (change, planned) in plan.changes() {
            match (change, planned.leaving) {
                (Change::Delete { table, filter, .. }, leaving) => {
                    // They may have changed before the intent was open.
                    let limit = planned.keys.len() as u64;
                    if leaving == Leaving::Rows
                        && self
                            .legacy
                            .keys_matching(table, filter, limit)
                            .await
                            .map_err(fault)?
                            != planned.keys
                    {
                        return Err(Turn::Again);
                    }
                    let keys = planned.keys.iter();
                    removed.extend(keys.map(|key| (Arc::clone(table), key.clone())));
                }
                (_, Leaving::Columns)
                    if self.has_followers(change, planned).await.map_err(fault)? =>
                {
                    return Err(refused(errors::unsupported(
                        "other rows point at this one by the columns that are set: change them first in this stage",
                    )));
                }
                (Change::Insert { .. } | Change::Update { .. } | Change::SoftDelete { .. }, _) => {}
            }
        }
        let swept = self.legacy.swept_along(&removed, FOLLOWERS_MAX).await;
        let too_many = || refused(said(Tangle::TooMany));
        swept.map_err(fault)?.ok_or_else(too_many)
    }

    /// Whether rows point at columns that a change sets to something else.
    async fn has_followers(&self, change: &Change, planned: &Planned) -> Result<bool, Fault> {
        let table = change.table();
        let key = match planned.keys.first() {
            Some(key) if planned.moves => std::slice::from_ref(key),
            Some(_) | None => &[],
        };
        if self.legacy.is_pointed_at(table, key, acts).await? {
            return Ok(true);
        }
        let before = self.legacy.rows(table, &planned.keys).await?;
        for (key, row) in before {
            let changed = changed_columns(change, &row);
            let counts = |reference: &Reference| acts_on_update(reference, changed.iter());
            let key = std::slice::from_ref(&key);
            if !changed.is_empty() && self.legacy.is_pointed_at(table, key, counts).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The answer of a removal or a move if it turns out later that it took effect: its rows do not tell then.
    async fn foretold(&self, plan: &Plan) -> Result<Option<String>, Fault> {
        if plan.asked_transaction {
            return Ok(None);
        }
        let changes = plan.changes();
        let mut asked = changes
            .iter()
            .filter(|(_, planned)| planned.part.is_asked());
        let Some((change, planned)) = asked.next() else {
            return Ok(None);
        };
        let mut rows = self.legacy.rows(change.table(), &planned.keys).await?;
        let rows = planned.keys.iter().filter_map(|key| rows.remove(key));
        let rows: Vec<Value> = match change {
            Change::Delete { .. } => rows.map(Value::Object).collect(),
            Change::Update { set, table, .. } if planned.moves => rows
                .map(|row| Value::Object(row_after(table, row, set)))
                .collect(),
            Change::Update { .. } | Change::Insert { .. } | Change::SoftDelete { .. } => {
                return Ok(None);
            }
        };
        let answer = match change.is_single() {
            true => rows.into_iter().next().unwrap_or_default(),
            false => Value::Array(rows),
        };
        Ok(Some(answer.to_string()))
    }
}

/// The names of columns that a change sets to something else than the row holds.
fn changed_columns(change: &Change, row: &Row) -> Vec<String> {
    let table = change.table();
    let key = table.key_of(row);
    let set = match change {
        Change::Update { set, .. } => Some(set),
        Change::Insert { rows, .. } => rows.iter().find(|given| {
            let identity = |key: Vec<Value>| table.key_identity(&key);
            table.key_of(given).map(identity) == key.clone().map(identity)
        }),
        Change::Delete { .. } | Change::SoftDelete { .. } => None,
    };
    let columns = table.columns.iter().filter(|column| {
        let set = set.and_then(|set| set.get(&column.name));
        let held = row.get(&column.name);
        set.is_some_and(|set| held.is_none_or(|held| !values_equal(&column.kind, held, set)))
    });
    columns.map(|column| column.name.clone()).collect()
}

/// A row after an update, as far as it can be known: without what only storage can fill in.
fn row_after(table: &Table, mut row: Row, set: &Row) -> Row {
    for (index, column) in table.columns.iter().enumerate() {
        if let Some(value) = set.get(&column.name) {
            row.insert(column.name.clone(), value.clone());
        } else if column.generated == Generated::Expression
            || table.policy.filled_by_storage.contains(&index)
        {
            row.remove(&column.name);
        }
    }
    row
}

fn in_the_way() -> Turn {
    Turn::Blocked(errors::unavailable(
        "other writes of rows that hang on this one are not finished",
    ))
}

fn said(tangle: Tangle) -> Error {
    match tangle {
        Tangle::TooMany => errors::too_many_rows(FOLLOWERS_MAX as u64),
        Tangle::Members => errors::unsupported(
            "in this stage a transaction cannot write rows that its removals take along: send the removal by itself",
        ),
        Tangle::Default => errors::unsupported(
            "a column of rows that reference this row would get its default: change them first in this stage",
        ),
        Tangle::Chain => errors::unsupported(
            "a column that other rows point at would become NULL: change them first in this stage",
        ),
    }
}
