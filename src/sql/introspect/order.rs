//! Tables in dependency order: a payer pays parents first.

use std::collections::BTreeMap;

use crate::schema::Table;

/// Referenced before referencing; where relations form a circle, its first table by name goes first.
pub(super) fn by_dependency(tables: Vec<Table>) -> Vec<Table> {
    let mut waiting: BTreeMap<String, Table> = tables
        .into_iter()
        .map(|table| (table.name.clone(), table))
        .collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    while let Some(name) = next(&waiting) {
        ordered.extend(waiting.remove(&name));
    }
    ordered
}

fn next(waiting: &BTreeMap<String, Table>) -> Option<String> {
    let is_free = |table: &&Table| {
        table.references.iter().all(|reference| {
            reference.table == table.name || !waiting.contains_key(&reference.table)
        })
    };
    let free = waiting.values().find(is_free);
    free.or_else(|| waiting.values().next())
        .map(|table| table.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{OnChange, Policy, Reference};

    fn table(name: &str, parents: &[&str]) -> Table {
        Table {
            name: name.to_owned(),
            sql_name: name.to_owned(),
            columns: Vec::new(),
            key: Vec::new(),
            unique: Vec::new(),
            references: parents
                .iter()
                .map(|parent| Reference {
                    columns: Vec::new(),
                    table: (*parent).to_owned(),
                    target: Vec::new(),
                    on_delete: OnChange::Refuse,
                    on_update: OnChange::Refuse,
                    clears: Vec::new(),
                })
                .collect(),
            policy: Policy::default(),
            row_sql: Default::default(),
        }
    }

    fn names(tables: Vec<Table>) -> Vec<String> {
        let ordered = by_dependency(tables);
        ordered.into_iter().map(|table| table.name).collect()
    }

    #[test]
    fn parents_come_before_children() {
        let tables = vec![
            table("a", &["b", "elsewhere"]),
            table("b", &["b", "c"]),
            table("c", &[]),
        ];
        assert_eq!(names(tables), ["c", "b", "a"]);
    }

    #[test]
    fn a_circle_is_broken_by_name() {
        let tables = vec![table("b", &["a"]), table("a", &["b"]), table("c", &["a"])];
        assert_eq!(names(tables), ["a", "b", "c"]);
    }
}
