//! Rows that are read: by key, in key order, and no more at once than a reply may hold.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::refusal::{self, Failure};
use crate::contract::{Code, Error, Range, Reply};
use crate::schema::{BindLimits, Filter, Read, ReadKind, Schema, Table, bind_keys, bind_range};
use crate::sql::{Db, Fault};

/// Runs a read whose result must not be larger than the largest `limit`.
///
/// # Errors
/// `too_large` for a select without `limit` that finds more.
pub(super) async fn whole(db: &Db, mut read: Read) -> Result<Reply, Failure> {
    let rows_max = BindLimits::default().select_limit_max;
    let ReadKind::Rows {
        limit: limit @ None,
        ..
    } = &mut read.kind
    else {
        return db.read(&read).await.map_err(refusal::of_read);
    };
    *limit = Some(rows_max + 1);
    let reply = db.read(&read).await.map_err(refusal::of_read)?;
    let rows: Vec<&RawValue> = serde_json::from_str(reply.as_json())
        .map_err(|_| Failure::Shape(Fault::Unexpected("rows that are not JSON".to_owned())))?;
    if rows.len() as u64 > rows_max {
        let message = format!("more than {rows_max} rows match; give a `limit`");
        return Err(Failure::Refused(Error::new(Code::TooLarge, message)));
    }
    Ok(reply)
}

/// The rows of these keys, soft-deleted ones too, in key order.
///
/// # Errors
/// `unknown_table`; as `bind_keys` for a key that is not the table's.
pub(super) fn rows_by_key(
    schema: &Schema,
    table: &str,
    keys: &[Vec<Value>],
) -> Result<Read, Error> {
    let table = schema
        .table(table)
        .ok_or_else(|| Error::new(Code::UnknownTable, format!("there is no table {table:?}")))?;
    let filter = Filter::Keys(bind_keys(table, keys)?);
    Ok(Read::whole_rows(table, filter, None))
}

/// One page of rows after a key, soft-deleted ones too.
///
/// # Errors
/// As `bind_range`.
pub(super) fn after_key(schema: &Schema, range: &Range) -> Result<Read, Error> {
    bind_range(range, schema, BindLimits::default().select_limit_max)
}

/// `{"rows": …, "next": …}`: a full page names its last key, a short one ends the table.
///
/// # Errors
/// `internal` when the rows are not what was asked for.
pub(super) fn framed(table: &Table, limit: u64, rows: &Reply) -> Result<Reply, Error> {
    let broken = || refusal::internal(&Fault::Unexpected("a page without its key".to_owned()));
    let parsed = rows.parse().map_err(|_| broken())?;
    let page = parsed.as_array().ok_or_else(broken)?;
    let next = match page.last() {
        Some(last) if page.len() as u64 >= limit => {
            let key: Option<Vec<_>> = table.key_columns().map(|c| last.get(&c.name)).collect();
            json!(key.ok_or_else(broken)?)
        }
        _ => Value::Null,
    };
    let json = format!("{{\"rows\":{},\"next\":{next}}}", rows.as_json());
    Ok(Reply::from_json(json))
}
