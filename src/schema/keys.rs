//! Which keys a bound request is about, as far as that is known without a database.
//!
//! Locks, intents and the journal are per key, so a write whose keys are known saves the round trip that
//! would resolve its condition.

use serde_json::Value;

use super::value::decimal;
use super::{Change, Filter, Kind, Table, Test};
use crate::contract::{Key, Operator, Row};

impl Filter {
    /// The keys that the filter cannot reach beyond: the whole key is pinned at the top level, by equality, by
    /// an `or` of such, or, where the key has one column, by `in`. Rows of these keys need not exist or match.
    #[must_use]
    pub fn pinned_keys(&self, table: &Table) -> Option<Vec<Vec<Value>>> {
        if let Some(key) = self.pinned_key(table) {
            return Some(vec![key]);
        }
        self.conjuncts().into_iter().find_map(|part| match part {
            Self::Keys(keys) => Some(keys.clone()),
            Self::Any(parts) if !parts.is_empty() => {
                let keys = parts.iter().map(|part| part.pinned_key(table));
                let keys: Option<Vec<_>> = keys.collect();
                Some(distinct(table, keys?.into_iter()))
            }
            Self::Test(Test {
                column,
                operator: Operator::In,
                value: Value::Array(values),
            }) if table.key == [*column] => Some(distinct(
                table,
                values.iter().map(|value| vec![value.clone()]),
            )),
            _ => None,
        })
    }

    /// The one key that the filter pins by equality of every key column.
    #[must_use]
    pub fn pinned_key(&self, table: &Table) -> Option<Vec<Value>> {
        let conjuncts = self.conjuncts();
        let pinned = |index: &usize| {
            conjuncts.iter().find_map(|part| match part {
                Self::Test(test) if test.column == *index && test.operator == Operator::Eq => {
                    Some(test.value.clone())
                }
                _ => None,
            })
        };
        table.key.iter().map(pinned).collect()
    }

    /// The parts of the top level, all of which must hold.
    fn conjuncts(&self) -> Vec<&Self> {
        match self {
            Self::All(parts) => parts.iter().flat_map(Self::conjuncts).collect(),
            other => vec![other],
        }
    }
}

impl Change {
    /// The keys it may touch, cascades aside, if they are known without a database: both the old and the
    /// new one where an update sets key columns.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<Vec<Value>>> {
        match self {
            Self::Insert { table, rows, .. } => rows.iter().map(|row| table.key_of(row)).collect(),
            Self::Update {
                table, filter, set, ..
            } => {
                let keys = filter.pinned_keys(table)?;
                let moved = keys.iter().map(|key| table.moved_key(key, set));
                let all = keys.iter().cloned().chain(moved);
                Some(distinct(table, all))
            }
            Self::Delete { table, filter, .. } | Self::SoftDelete { table, filter, .. } => {
                filter.pinned_keys(table)
            }
        }
    }
}

impl Table {
    /// The key of a row, if the row has all its columns.
    #[must_use]
    pub fn key_of(&self, row: &Row) -> Option<Vec<Value>> {
        self.key_columns()
            .map(|column| row.get(&column.name).cloned())
            .collect()
    }

    /// What a canonical key says of its row.
    #[must_use]
    pub fn row_of_key(&self, key: &Key) -> Row {
        // A canonical key is always a JSON array of the key's values.
        let values: Vec<Value> = serde_json::from_str(&key.0).unwrap_or_default();
        let names = self.key_columns().map(|column| column.name.clone());
        names.zip(values).collect()
    }

    /// The key that a row of this key has after an update.
    #[must_use]
    pub fn moved_key(&self, key: &[Value], set: &Row) -> Vec<Value> {
        let columns = self.key_columns().zip(key);
        columns
            .map(|(column, old)| set.get(&column.name).unwrap_or(old).clone())
            .collect()
    }

    /// Text that is equal for equal keys, however their values are spelled. For matching rows in memory
    /// only: the canonical key is made by SQL.
    #[must_use]
    pub fn key_identity(&self, key: &[Value]) -> String {
        identity(self.key_columns().map(|column| &column.kind).zip(key))
    }
}

/// Text that is equal for equal values of these kinds.
pub(super) fn identity<'a>(values: impl Iterator<Item = (&'a Kind, &'a Value)>) -> String {
    let mut text = String::new();
    for (kind, value) in values {
        let part = value_identity(kind, value);
        // The length keeps parts apart.
        text.push_str(&part.len().to_string());
        text.push(':');
        text.push_str(&part);
    }
    text
}

fn value_identity(kind: &Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Int(_) | Kind::Numeric, Value::Number(number)) => match decimal(number) {
            Some((digits, scale)) => format!("{digits}e{scale}"),
            None => value.to_string(),
        },
        (Kind::Float(_), Value::Number(number)) => match number.as_f64() {
            // Both zeros are equal.
            Some(float) => (float + 0.0).to_string(),
            None => value.to_string(),
        },
        _ => kind.canonical(value).as_ref().unwrap_or(value).to_string(),
    }
}

/// The keys, each once, in order of first appearance.
fn distinct(table: &Table, keys: impl Iterator<Item = Vec<Value>>) -> Vec<Vec<Value>> {
    let mut seen = std::collections::HashSet::new();
    keys.filter(|key| seen.insert(table.key_identity(key)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::fixture::{ID, change, pairs_table};

    const OTHER: &str = "0190a5c8-7d3e-7c3e-8f00-ffffffffffff";

    fn keys(query: Value) -> Option<Value> {
        change(query).keys().map(|keys| json!(keys))
    }

    #[test]
    fn keys_pinned_by_equality_or_in_are_known() {
        let delete =
            |filter| keys(json!({"type": "delete", "table": "campaigns", "where": filter}));
        assert_eq!(delete(json!({"id": ID})), Some(json!([[ID]])));
        assert_eq!(
            delete(json!({"and": [{"name": "x"}, {"and": [{"id": ID}]}]})),
            Some(json!([[ID]]))
        );
        assert_eq!(
            delete(json!({"id": {"in": [ID, OTHER, ID.to_uppercase()]}})),
            Some(json!([[ID], [OTHER]]))
        );
        assert_eq!(
            delete(json!({"or": [{"id": ID}, {"id": OTHER, "name": "x"}]})),
            Some(json!([[ID], [OTHER]]))
        );
        assert_eq!(delete(json!({"or": [{"id": ID}, {"name": "x"}]})), None);
        assert_eq!(delete(json!({"not": {"id": ID}})), None);
        assert_eq!(delete(json!({"id": {"gte": ID}})), None);
    }

    #[test]
    fn a_composite_key_is_pinned_only_whole() {
        let delete = |filter| keys(json!({"type": "delete", "table": "pairs", "where": filter}));
        assert_eq!(
            delete(json!({"b": "x", "a": 1})),
            Some(json!([[1, "x"]])),
            "in key order"
        );
        assert_eq!(delete(json!({"a": 1})), None);
        assert_eq!(delete(json!({"a": 1, "b": {"in": ["x"]}})), None);
        let each = json!({"or": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]});
        assert_eq!(delete(each), Some(json!([[1, "x"], [2, "y"]])));
    }

    #[test]
    fn an_update_of_the_key_touches_both_keys() {
        let update = |data| {
            let filter = json!({"a": 1, "b": "x"});
            keys(json!({"type": "update", "table": "pairs", "where": filter, "data": data}))
        };
        assert_eq!(update(json!({"b": "y"})), Some(json!([[1, "x"], [1, "y"]])));
        assert_eq!(update(json!({"b": "x"})), Some(json!([[1, "x"]])));
        assert_eq!(update(json!({"amount": 2})), Some(json!([[1, "x"]])));
    }

    #[test]
    fn inserted_keys_are_known_once_a_sequence_has_spoken() {
        let insert = |table, data| keys(json!({"type": "insert", "table": table, "data": data}));
        assert_eq!(
            insert("pairs", json!([{"a": 1, "b": "x"}])),
            Some(json!([[1, "x"]]))
        );
        assert_eq!(insert("events", json!({"id": 5})), Some(json!([[5]])));
        assert_eq!(insert("events", json!([{"id": 5}, {}])), None);
    }

    #[test]
    fn equal_keys_have_equal_identities_and_others_do_not() {
        let table = pairs_table();
        let identity = |key: Value| table.key_identity(key.as_array().unwrap());
        let spelled = |text: &str| serde_json::from_str(text).unwrap();
        assert_eq!(
            identity(spelled(r#"[1.0,"x"]"#)),
            identity(spelled(r#"[1,"x"]"#))
        );
        assert_ne!(identity(json!([1, "x"])), identity(json!([1, "y"])));
        assert_ne!(identity(json!([1, "1"])), identity(json!([11, ""])));
    }
}
