//! Transactions: members bound in order, and the rule that keys stay known.
//!
//! When storage is the authority, conditions are resolved to keys before the transaction starts. A member
//! whose rows depend on what an earlier member wrote would be resolved wrongly, so it is refused, in every
//! stage alike, unless it names its keys.

use std::collections::BTreeSet;

use super::{BindLimits, bind_step};
use crate::contract::{Code, Error, Query, shown};
use crate::schema::{Change, Filter, OnChange, Reference, Schema, Step, Table, Write};

/// Binds the members of a transaction.
pub(super) fn bind(
    queries: &[Query],
    schema: &Schema,
    limits: &BindLimits,
) -> Result<Write, Error> {
    if queries.is_empty() {
        let message = "a transaction needs at least one member";
        return Err(Error::new(Code::InvalidRequest, message));
    }
    if queries.len() > limits.transaction_max {
        let message = format!(
            "a transaction has at most {} members",
            limits.transaction_max
        );
        return Err(Error::new(Code::TooLarge, message));
    }
    let mut written = BTreeSet::new();
    let mut steps = Vec::with_capacity(queries.len());
    for (index, query) in queries.iter().enumerate() {
        let in_member = |mut error: Error| {
            error.message = format!("queries[{index}]: {}", error.message);
            error
        };
        let step = bind_step(query, schema, limits).map_err(in_member)?;
        check_independent(&step, &written).map_err(in_member)?;
        if let Step::Change(change) = &step {
            add_written(change, schema, &mut written);
        }
        steps.push(step);
    }
    Ok(Write {
        steps,
        transaction: true,
    })
}

/// Refuses a condition over a table that an earlier member wrote.
fn check_independent(step: &Step, written: &BTreeSet<String>) -> Result<(), Error> {
    let (table, filter): (&Table, &Filter) = match step {
        Step::Read(read) => (&read.table, &read.filter),
        Step::Change(Change::Insert { .. }) => return Ok(()),
        Step::Change(
            Change::Update { table, filter, .. }
            | Change::Delete { table, filter, .. }
            | Change::SoftDelete { table, filter, .. },
        ) => (table, filter),
    };
    if !written.contains(&table.name) || filter.pinned_keys(table).is_some() {
        return Ok(());
    }
    let message = format!(
        "{} was written earlier in the transaction, so the where must name the whole key",
        shown(&table.name)
    );
    Err(Error::new(Code::Unsupported, message))
}

/// Adds the tables that a change writes: its own, and those that foreign keys drag along.
fn add_written(change: &Change, schema: &Schema, written: &mut BTreeSet<String>) {
    let table = change.table();
    let first: Vec<String> = match change {
        Change::Insert { upsert: false, .. } | Change::SoftDelete { .. } => Vec::new(),
        Change::Insert { rows, .. } => referrers(table, schema, |reference| {
            let sets = |name| rows.iter().any(|row| row.contains_key(name));
            reference.on_update != OnChange::Refuse && reference.target.iter().any(sets)
        }),
        Change::Update { set, .. } => referrers(table, schema, |reference| {
            let sets = |name: &String| set.contains_key(name);
            reference.on_update != OnChange::Refuse && reference.target.iter().any(sets)
        }),
        Change::Delete { .. } => referrers(table, schema, |reference| {
            reference.on_delete != OnChange::Refuse
        }),
    };
    written.insert(table.name.clone());
    let mut reached = first;
    while let Some(name) = reached.pop() {
        if let Some(next) = schema.table(&name)
            && written.insert(name)
        {
            reached.extend(referrers(next, schema, |reference| {
                reference.on_delete != OnChange::Refuse || reference.on_update != OnChange::Refuse
            }));
        }
    }
}

/// The tables with a foreign key to this one that fits.
fn referrers(table: &Table, schema: &Schema, fits: impl Fn(&Reference) -> bool) -> Vec<String> {
    let points_here =
        |from: &Table| (from.references.iter()).any(|r| r.table == table.name && fits(r));
    let names = schema.tables.iter().filter(|(_, from)| points_here(from));
    names.map(|(name, _)| name.clone()).collect()
}
