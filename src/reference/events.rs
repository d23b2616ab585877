//! What the service tells the hub after a committed write: which row changed, never what is in it.

use serde_json::{Map, Value, json};

use crate::contract::Key;
use crate::schema::Change;

/// The event of one changed row, as JSON text; `None` only if the key is not one of the table's.
///
/// It has `table`, `op` and `key` (an object of the key's columns), and for the table `campaigns` with the
/// single key `id` also `campaign_id`, which is what the application's handler reads.
pub(super) fn of(change: &Change, key: &Key) -> Option<String> {
    let table = change.table();
    let values: Vec<Value> = serde_json::from_str(&key.0).ok()?;
    let columns = table.key_columns().map(|column| column.name.clone());
    let key: Map<String, Value> = columns.zip(values).collect();
    let campaign = match key.get("id") {
        Some(id) if table.name == "campaigns" && key.len() == 1 => Some(id.clone()),
        _ => None,
    };
    let mut body = json!({ "table": table.name, "op": op(change), "key": key });
    if let Some(id) = campaign {
        body["campaign_id"] = id;
    }
    Some(body.to_string())
}

fn op(change: &Change) -> &'static str {
    match change {
        Change::Insert { upsert: false, .. } => "insert",
        Change::Insert { upsert: true, .. } => "upsert",
        Change::Update { .. } => "update",
        Change::Delete { .. } | Change::SoftDelete { .. } => "delete",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::{Column, Filter, Generated, Kind, Policy, Table};

    fn delete_from(table: &str) -> Change {
        let table = Table {
            name: table.to_owned(),
            sql_name: table.to_owned(),
            columns: vec![Column {
                name: "id".to_owned(),
                kind: Kind::Uuid,
                sql_type: "uuid".to_owned(),
                nullable: false,
                has_default: false,
                generated: Generated::No,
                sequence: None,
            }],
            key: vec![0],
            unique: Vec::new(),
            references: Vec::new(),
            policy: Policy::default(),
        };
        Change::Delete {
            table: Arc::new(table),
            filter: Filter::All(Vec::new()),
            single: false,
        }
    }

    #[test]
    fn a_changed_campaign_is_told_with_its_id() {
        let event = of(&delete_from("campaigns"), &Key(r#"["a"]"#.to_owned()));
        assert_eq!(
            event.unwrap(),
            r#"{"table":"campaigns","op":"delete","key":{"id":"a"},"campaign_id":"a"}"#
        );
    }

    #[test]
    fn another_tables_row_is_told_with_its_key_alone() {
        let event = of(&delete_from("tags"), &Key("[7]".to_owned()));
        assert_eq!(
            event.unwrap(),
            r#"{"table":"tags","op":"delete","key":{"id":7}}"#
        );
    }
}
