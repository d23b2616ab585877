//! Foreign keys between configured tables, as something that can be followed on either side.
//!
//! A reference of which one column is NULL refers to nothing (`MATCH SIMPLE`, PostgreSQL's default). It may point
//! to other columns than the parent's primary key. A parent that is soft-deleted is there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::keys::identity;
use super::{Filter, Kind, OnChange, Read, ReadKind, Reference, Schema, Sort, Table, Test};
use crate::contract::{Operator, Row};

/// Distinct references, by what they are matched by.
pub type References = HashMap<String, Vec<Value>>;

/// A foreign key whose two tables are configured.
#[derive(Clone, Debug)]
pub struct Relation {
    /// The table that refers.
    pub child: Arc<Table>,
    /// Its columns (indexes).
    pub columns: Vec<usize>,
    /// The table that is referred to.
    pub parent: Arc<Table>,
    /// Its columns (indexes), in the order of `columns`.
    pub target: Vec<usize>,
    /// What becomes of a row whose parent goes.
    pub on_delete: OnChange,
}

impl Schema {
    /// The foreign keys of a table that can be followed: those that point to a configured table.
    #[must_use]
    pub fn relations(&self, child: &Arc<Table>) -> Vec<Relation> {
        let references = child.references.iter();
        let followed = references.filter_map(|reference| self.relation(child, reference));
        followed.collect()
    }

    /// The foreign keys that point to a table, of all tables.
    #[must_use]
    pub fn relations_to(&self, parent: &Table) -> Vec<Relation> {
        let mut pointing = Vec::new();
        for child in self.tables.values() {
            let references = child.references.iter();
            let references = references.filter(|reference| reference.table == parent.name);
            pointing.extend(references.filter_map(|reference| self.relation(child, reference)));
        }
        pointing
    }

    /// Whether rows of a table may be taken along, and others may hang on them.
    #[must_use]
    pub fn is_between(&self, table: &Arc<Table>) -> bool {
        let relations = self.relations(table);
        relations.iter().any(Relation::takes_along) && !self.relations_to(table).is_empty()
    }

    /// The tables whose rows may be taken along with rows of this one, however far away; itself among them if it may be.
    #[must_use]
    pub fn carried(&self, table: &Table) -> BTreeSet<String> {
        let mut carried = BTreeSet::new();
        let mut reached = vec![table.name.clone()];
        while let Some(parent) = reached.pop().and_then(|name| self.table(&name)) {
            for relation in self.relations_to(parent) {
                if relation.takes_along() && carried.insert(relation.child.name.clone()) {
                    reached.push(relation.child.name.clone());
                }
            }
        }
        carried
    }

    fn relation(&self, child: &Arc<Table>, reference: &Reference) -> Option<Relation> {
        let parent = self.table(&reference.table)?;
        let target = reference.target.iter().map(|name| parent.column(name));
        Some(Relation {
            child: Arc::clone(child),
            columns: reference.columns.clone(),
            parent: Arc::clone(parent),
            target: target.collect::<Option<_>>()?,
            on_delete: reference.on_delete,
        })
    }
}

impl Relation {
    /// Whether it does something to its rows when their parent goes.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.on_delete != OnChange::Refuse
    }

    /// What a row of the child refers to, in the order of `columns`; none when it refers to nothing.
    #[must_use]
    pub fn reference(&self, row: &Row) -> Option<Vec<Value>> {
        values(&self.child, &self.columns, row)
    }

    /// Names of the referring columns.
    #[must_use]
    pub fn column_names(&self) -> Vec<String> {
        let name = |&column: &usize| self.child.columns[column].name.clone();
        self.columns.iter().map(name).collect()
    }

    /// Text that is equal for equal references, however they are spelled; for matching in memory only.
    #[must_use]
    pub fn reference_identity(&self, reference: &[Value]) -> String {
        let kinds = self
            .target
            .iter()
            .map(|&column| &self.parent.columns[column].kind);
        identity(kinds.zip(reference))
    }

    /// What refers to a row of the parent refers to it by these values, in the order of `columns`; none when the row
    /// does not tell, or nothing can refer to it.
    #[must_use]
    pub fn referred_by(&self, parent: &Row) -> Option<Vec<Value>> {
        values(&self.parent, &self.target, parent)
    }

    /// The same of the parent's row, if the row has the columns.
    #[must_use]
    pub fn parent_identity(&self, row: &Row) -> Option<String> {
        Some(self.reference_identity(&self.referred_by(row)?))
    }

    /// Keeps what a row refers to, and says what it is matched by; none when it refers to nothing.
    pub fn note(&self, row: &Row, references: &mut References) -> Option<String> {
        let reference = self.reference(row)?;
        let identity = self.reference_identity(&reference);
        references.entry(identity.clone()).or_insert(reference);
        Some(identity)
    }

    /// The rows of the child that refer to these values.
    #[must_use]
    pub fn referring(&self, reference: &[Value]) -> Filter {
        equal(&self.columns, reference)
    }

    /// Whether the parent's key says what its row is referred to by.
    #[must_use]
    pub fn is_by_key(&self) -> bool {
        let mut target = self.target.iter();
        target.all(|column| self.parent.key.contains(column))
    }

    /// Whether a row of the child may go, or get another key, because its parent goes or does so.
    #[must_use]
    pub fn takes_along(&self) -> bool {
        let mut columns = self.columns.iter();
        self.on_delete == OnChange::Cascade || columns.any(|column| self.child.key.contains(column))
    }

    /// The name of what a reference points to, the same for all foreign keys to the same columns.
    #[must_use]
    pub fn place(&self, reference: &[Value]) -> String {
        place(&self.parent, self.target.iter().copied().zip(reference))
    }

    /// Reads the parents of these references: their keys and the columns that are referred to.
    #[must_use]
    pub fn parents(&self, references: &[Vec<Value>]) -> Read {
        let mut columns = self.parent.key.clone();
        columns.extend(
            self.target
                .iter()
                .filter(|column| !self.parent.key.contains(column)),
        );
        let in_key_order = |&column: &usize| Sort {
            column,
            descending: false,
        };
        Read {
            table: Arc::clone(&self.parent),
            kind: ReadKind::Rows {
                columns,
                order: self.parent.key.iter().map(in_key_order).collect(),
                limit: None,
                offset: None,
            },
            filter: self.any_of(references),
        }
    }

    /// The rows of the parent that these references lead to.
    #[must_use]
    pub fn any_of(&self, references: &[Vec<Value>]) -> Filter {
        if self.target == self.parent.key {
            return Filter::Keys(references.to_vec());
        }
        match (references, self.target.as_slice()) {
            ([reference], _) => equal(&self.target, reference),
            (_, [column]) => Filter::Test(Test {
                column: *column,
                operator: Operator::In,
                value: references.iter().flatten().cloned().collect(),
            }),
            (_, target) => {
                let each = references.iter().map(|reference| equal(target, reference));
                Filter::Any(each.collect())
            }
        }
    }
}

impl Table {
    /// The name of a row as what others refer to by its key.
    #[must_use]
    pub fn place_of_key(&self, key: &[Value]) -> String {
        place(self, self.key.iter().copied().zip(key))
    }

    /// The name of the table as a whole.
    #[must_use]
    pub fn place(&self) -> String {
        place(self, std::iter::empty())
    }
}

/// A digest, because it may be kept: equal for equal values, however they are spelled. Values whose equality only the
/// database knows are left out, so that more than one row has the name.
fn place<'a>(table: &Table, values: impl Iterator<Item = (usize, &'a Value)>) -> String {
    let mut values: Vec<_> = values.collect();
    values.sort_by_key(|(column, _)| *column);
    let mut name = format!("{:?}", table.name);
    for (column, value) in values {
        let column = &table.columns[column];
        name.push_str(&format!("{:?}", column.name));
        if !matches!(column.kind, Kind::Other) {
            name.push_str(&identity([(&column.kind, value)].into_iter()));
        }
    }
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// These columns have these values.
fn equal(columns: &[usize], values: &[Value]) -> Filter {
    let tests = columns.iter().zip(values).map(|(&column, value)| {
        Filter::Test(Test {
            column,
            operator: Operator::Eq,
            value: value.clone(),
        })
    });
    Filter::All(tests.collect())
}

/// The values of these columns; none when one of them is missing or NULL.
fn values(table: &Table, columns: &[usize], row: &Row) -> Option<Vec<Value>> {
    let value = |&column: &usize| {
        let value = row.get(&table.columns[column].name)?;
        (!value.is_null()).then(|| value.clone())
    };
    columns.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::fixture::pairs_table;
    use crate::schema::{OnChange, Reference};

    /// `pairs` refer to themselves, by the key's columns in another order.
    fn relation() -> Relation {
        let mut table = pairs_table();
        let [a, b] = ["a", "b"].map(|name| table.column(name).unwrap());
        table.references = vec![Reference {
            columns: vec![b, a],
            table: table.name.clone(),
            target: vec!["b".to_owned(), "a".to_owned()],
            clears: vec![],
            on_delete: OnChange::Refuse,
            on_update: OnChange::Refuse,
        }];
        let table = Arc::new(table);
        let mut schema = Schema::default();
        schema.tables.insert(table.name.clone(), Arc::clone(&table));
        schema.relations(&table).remove(0)
    }

    #[test]
    fn a_reference_with_a_null_refers_to_nothing() {
        let relation = relation();
        let refers = |row: Value| relation.reference(row.as_object().unwrap());
        assert_eq!(
            refers(json!({"a": 1, "b": "x"})),
            Some(vec![json!("x"), json!(1)])
        );
        assert_eq!(refers(json!({"a": null, "b": "x"})), None);
    }

    #[test]
    fn a_parent_is_matched_by_value_whatever_the_order_of_its_key() {
        let relation = relation();
        let parent: Value = serde_json::from_str(r#"{"b":"x","a":1.0}"#).unwrap();
        let found = relation.parent_identity(parent.as_object().unwrap());
        let asked = relation.reference_identity(&[json!("x"), json!(1)]);
        assert_eq!(found, Some(asked));
        let read = relation.parents(&[vec![json!("x"), json!(1)]]);
        assert!(matches!(read.filter, Filter::All(ref tests) if tests.len() == 2));
    }

    #[test]
    fn what_a_reference_points_to_has_the_name_of_the_row_with_that_key() {
        let relation = relation();
        let name = relation.parent.place_of_key(&[json!(1), json!("x")]);
        assert_eq!(relation.place(&[json!("x"), json!(1)]), name);
        let spelled: Value = serde_json::from_str("1.0").unwrap();
        assert_eq!(relation.place(&[json!("x"), spelled]), name);
        assert_ne!(relation.place(&[json!("y"), json!(1)]), name);
        assert!(relation.is_by_key() && relation.takes_along());
    }

    #[test]
    fn a_table_that_is_not_configured_is_not_followed() {
        let child = Arc::clone(&relation().child);
        assert!(Schema::default().relations(&child).is_empty());
    }
}
