//! Tables for tests: the plan's campaigns, its items, a table with a sequence and one with two key columns.

use std::sync::Arc;

use serde_json::Value;

use super::bind::{BindLimits, Bound, bind};
use super::{
    Change, Column, Generated, Kind, OnChange, Policy, Read, Reference, Schema, Step, Table, Write,
};
use crate::contract::{Error, Query};

/// A key of `campaigns`.
pub(crate) const ID: &str = "0190a5c8-7d3e-7c3e-8f00-0123456789ab";

fn column(name: &str, kind: Kind) -> Column {
    Column {
        name: name.to_owned(),
        kind,
        sql_type: "text".to_owned(),
        base_type: "text".to_owned(),
        nullable: true,
        has_default: false,
        generated: Generated::No,
        sequence: None,
    }
}

fn required(name: &str, kind: Kind) -> Column {
    Column {
        nullable: false,
        ..column(name, kind)
    }
}

fn table(name: &str, columns: Vec<Column>) -> Table {
    Table {
        name: name.to_owned(),
        sql_name: format!("public.{name}"),
        columns,
        key: vec![0],
        unique: Vec::new(),
        references: Vec::new(),
        policy: Policy::default(),
        row_sql: Default::default(),
    }
}

fn campaigns_table() -> Table {
    let mut table = table(
        "campaigns",
        vec![
            required("id", Kind::Uuid),
            required("name", Kind::Text),
            column("budget", Kind::Numeric),
            column("deleted_at", Kind::Timestamptz),
            column("meta", Kind::Json(true)),
            column("note", Kind::Text),
            column("slug", Kind::Text),
            column("starts_at", Kind::Timestamptz),
            column("active", Kind::Bool),
            column("raw", Kind::Json(false)),
            column("tags", Kind::Array(Box::new(Kind::Text))),
        ],
    );
    table.columns[6].generated = Generated::Expression;
    table.policy.soft_delete = Some(3);
    table.policy.ignore = vec![5];
    table
}

fn items_table() -> Table {
    let mut table = table(
        "items",
        vec![
            required("id", Kind::Uuid),
            required("campaign_id", Kind::Uuid),
        ],
    );
    table.references.push(Reference {
        columns: vec![1],
        table: "campaigns".to_owned(),
        target: vec!["id".to_owned()],
        on_delete: OnChange::Cascade,
        on_update: OnChange::Refuse,
        clears: vec![1],
    });
    table
}

fn events_table() -> Table {
    let mut table = table(
        "events",
        vec![
            required("id", Kind::Int(64)),
            column("payload", Kind::Json(true)),
        ],
    );
    table.columns[0].generated = Generated::IdentityAlways;
    table.columns[0].sequence = Some("public.events_id_seq".to_owned());
    table
}

/// A table whose key is `(a, b)`, not in the order of its columns.
pub(crate) fn pairs_table() -> Table {
    let mut table = table(
        "pairs",
        vec![
            required("b", Kind::Text),
            required("a", Kind::Int(32)),
            column("amount", Kind::Float(64)),
        ],
    );
    table.key = vec![1, 0];
    table
}

/// All of them.
pub(crate) fn schema() -> Schema {
    let tables = [
        campaigns_table(),
        items_table(),
        events_table(),
        pairs_table(),
    ];
    Schema {
        tables: tables
            .into_iter()
            .map(|table| (table.name.clone(), Arc::new(table)))
            .collect(),
    }
}

/// Parses and binds.
pub(crate) fn bound(query: Value) -> Result<Bound, Error> {
    bind(
        &Query::from_value(query)?,
        &schema(),
        &BindLimits::default(),
    )
}

/// Parses and binds what must be a read.
pub(crate) fn read(query: Value) -> Read {
    match bound(query) {
        Ok(Bound::Read(read)) => read,
        other => panic!("not a read: {other:?}"),
    }
}

/// Parses and binds what must be a write.
pub(crate) fn write(query: Value) -> Write {
    match bound(query) {
        Ok(Bound::Write(write)) => write,
        other => panic!("not a write: {other:?}"),
    }
}

/// Parses and binds what must be a write of one change.
pub(crate) fn change(query: Value) -> Change {
    match write(query).steps.remove(0) {
        Step::Change(change) => change,
        Step::Read(read) => panic!("not a change: {read:?}"),
    }
}
