//! Whether a token allows a query.

use crate::config::{Access, DoorToken};
use crate::contract::{Code, Error, Query};

/// Refuses what the token does not allow.
pub(super) fn allow(token: &DoorToken, query: &Query) -> Result<(), Error> {
    if writes(query) && token.access < Access::Write {
        return Err(Error::new(
            Code::Forbidden,
            format!("this token may only read, not {}", query.op()),
        ));
    }
    let Some(allowed) = &token.tables else {
        return Ok(());
    };
    match tables(query)
        .into_iter()
        .find(|table| !allowed.iter().any(|known| known == table))
    {
        Some(_) => Err(Error::new(
            Code::Forbidden,
            "this token does not allow a table that the query names",
        )),
        None => Ok(()),
    }
}

/// Whether the query can change rows.
pub(super) fn writes(query: &Query) -> bool {
    match query {
        Query::Select(_) | Query::Count(_) | Query::Range(_) | Query::Describe(_) => false,
        Query::Insert(_) | Query::Upsert(_) | Query::Update(_) | Query::Delete(_) => true,
        // It makes an attempt refused, which changes what a later write does.
        Query::Resolve(_) => true,
        Query::Transaction(members) => members.iter().any(writes),
        Query::Batch(items) => items.iter().any(|item| writes(&item.query)),
    }
}

/// The one table of the query, if it is only one.
pub(super) fn single_table(query: &Query) -> Option<&str> {
    let mut tables = tables(query).into_iter();
    let first = tables.next()?;
    tables.all(|table| table == first).then_some(first)
}

fn tables(query: &Query) -> Vec<&str> {
    match query {
        Query::Select(select) => vec![&select.table],
        Query::Count(count) => vec![&count.table],
        Query::Insert(insert) | Query::Upsert(insert) => vec![&insert.table],
        Query::Update(update) => vec![&update.table],
        Query::Delete(delete) => vec![&delete.table],
        Query::Range(range) => vec![&range.table],
        Query::Resolve(resolve) => vec![&resolve.table],
        Query::Describe(describe) => vec![&describe.table],
        Query::Transaction(members) => members.iter().flat_map(tables).collect(),
        Query::Batch(items) => items.iter().flat_map(|item| tables(&item.query)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TokenHash;
    use crate::contract::{Insert, Select};

    fn select(table: &str) -> Query {
        Query::Select(Select {
            table: table.to_owned(),
            ..Select::default()
        })
    }

    fn insert(table: &str) -> Query {
        Query::Insert(Insert {
            table: table.to_owned(),
            ..Insert::default()
        })
    }

    fn token(access: Access, tables: Option<&[&str]>) -> DoorToken {
        DoorToken {
            name: "t".to_owned(),
            hash: TokenHash::of("t"),
            tables: tables.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            access,
        }
    }

    #[test]
    fn a_reader_may_not_write_not_even_inside_a_transaction() {
        let reader = token(Access::Read, None);
        assert!(allow(&reader, &select("a")).is_ok());
        let transaction = Query::Transaction(vec![select("a"), insert("a")]);
        assert_eq!(
            allow(&reader, &transaction).unwrap_err().code,
            Code::Forbidden
        );
    }

    #[test]
    fn every_table_of_a_transaction_must_be_allowed() {
        let writer = token(Access::Write, Some(&["a"]));
        assert!(allow(&writer, &insert("a")).is_ok());
        let transaction = Query::Transaction(vec![insert("a"), select("b")]);
        assert_eq!(
            allow(&writer, &transaction).unwrap_err().code,
            Code::Forbidden
        );
    }

    #[test]
    fn a_query_over_two_tables_has_no_single_table() {
        assert_eq!(single_table(&select("a")), Some("a"));
        let transaction = Query::Transaction(vec![insert("a"), select("b")]);
        assert_eq!(single_table(&transaction), None);
    }
}
