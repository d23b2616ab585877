//! From queries to JSON. A member that would say what its absence says is left out, so that a service
//! that knows only the plan's queries understands all it can.

use serde_json::{Map, Value, json};

use super::super::{BatchItem, Insert, Order, Query, Request, Row, Select, Where};

impl Request {
    /// The wire form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("db".to_owned(), json!(self.db));
        map.insert("query".to_owned(), self.query.to_value());
        if let Some(op_id) = self.op_id {
            map.insert("op_id".to_owned(), json!(op_id));
        }
        Value::Object(map).to_string()
    }
}

impl Query {
    /// The wire form; `from_value` reads it back as the same query.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("type".to_owned(), json!(self.op()));
        match self {
            Self::Select(select) => write_select(select, &mut map),
            Self::Count(count) => {
                write_target(&count.table, count.filter.as_ref(), &mut map);
                write_flag("include_deleted", count.include_deleted, &mut map);
            }
            Self::Insert(insert) | Self::Upsert(insert) => write_insert(insert, &mut map),
            Self::Update(update) => {
                write_target(&update.table, update.filter.as_ref(), &mut map);
                map.insert("data".to_owned(), Value::Object(update.data.clone()));
                write_flag("all", update.all, &mut map);
                write_flag("include_deleted", update.include_deleted, &mut map);
            }
            Self::Delete(delete) => {
                write_target(&delete.table, delete.filter.as_ref(), &mut map);
                write_flag("hard", delete.hard, &mut map);
                write_flag("all", delete.all, &mut map);
                write_flag("include_deleted", delete.include_deleted, &mut map);
            }
            Self::Transaction(queries) => {
                let queries = queries.iter().map(Self::to_value).collect();
                map.insert("queries".to_owned(), Value::Array(queries));
            }
            Self::Range(range) => {
                map.insert("table".to_owned(), json!(range.table));
                map.insert("after".to_owned(), json!(range.after));
                map.insert("limit".to_owned(), json!(range.limit));
            }
            Self::Batch(items) => {
                let items = items.iter().map(write_item).collect();
                map.insert("items".to_owned(), Value::Array(items));
            }
            Self::Describe(describe) => {
                map.insert("table".to_owned(), json!(describe.table));
            }
            Self::Resolve(resolve) => {
                map.insert("table".to_owned(), json!(resolve.table));
                map.insert("keys".to_owned(), json!(resolve.keys));
                map.insert("attempt_id".to_owned(), json!(resolve.attempt_id));
            }
        }
        Value::Object(map)
    }
}

fn write_target(table: &str, filter: Option<&Where>, map: &mut Row) {
    map.insert("table".to_owned(), json!(table));
    if let Some(filter) = filter {
        map.insert("where".to_owned(), filter.to_value());
    }
}

fn write_flag(name: &str, flag: bool, map: &mut Row) {
    if flag {
        map.insert(name.to_owned(), Value::Bool(true));
    }
}

fn write_select(select: &Select, map: &mut Row) {
    write_target(&select.table, select.filter.as_ref(), map);
    if let Some(columns) = &select.columns {
        map.insert("columns".to_owned(), json!(columns));
    }
    let mut terms: Vec<Value> = select.order_by.iter().map(write_term).collect();
    match (terms.len(), terms.pop()) {
        (1, Some(only)) => {
            map.insert("order_by".to_owned(), only);
        }
        (_, Some(last)) => {
            terms.push(last);
            map.insert("order_by".to_owned(), Value::Array(terms));
        }
        (_, None) => {}
    }
    if let Some(limit) = select.limit {
        map.insert("limit".to_owned(), json!(limit));
    }
    if let Some(offset) = select.offset {
        map.insert("offset".to_owned(), json!(offset));
    }
    write_flag("include_deleted", select.include_deleted, map);
}

fn write_term(order: &Order) -> Value {
    let sign = if order.descending { "-" } else { "" };
    Value::String(format!("{sign}{}", order.column))
}

fn write_insert(insert: &Insert, map: &mut Row) {
    map.insert("table".to_owned(), json!(insert.table));
    let data = match insert.rows.as_slice() {
        [row] if insert.single => Value::Object(row.clone()),
        rows => Value::Array(rows.iter().cloned().map(Value::Object).collect()),
    };
    map.insert("data".to_owned(), data);
}

fn write_item(item: &BatchItem) -> Value {
    let mut map = Map::new();
    map.insert("query".to_owned(), item.query.to_value());
    map.insert("attempt_id".to_owned(), json!(item.attempt_id));
    map.insert("deadline".to_owned(), json!(item.deadline_ms));
    if !item.fences.is_empty() {
        let fences = item.fences.iter();
        let fences = fences.map(|(key, token)| (key.0.clone(), json!(token)));
        map.insert("fences".to_owned(), Value::Object(fences.collect()));
    }
    Value::Object(map)
}
