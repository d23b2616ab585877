//! What is addressed by key alone: pages in key order and lists of keys. Only the storage service speaks
//! these; callers of the proxy are answered `unsupported`.

use serde_json::Value;

use super::{find_table, mismatch};
use crate::contract::{Code, Error, Range};
use crate::schema::{Filter, Read, Schema, Table};

/// Binds one page in key order: whole rows, soft-deleted ones too.
///
/// # Errors
/// `unknown_table`; `too_large` for a limit above `limit_max`; as [`bind_keys`] for `after`.
pub fn bind_range(range: &Range, schema: &Schema, limit_max: u64) -> Result<Read, Error> {
    let table = find_table(&range.table, schema)?;
    if range.limit > limit_max {
        let message = format!("limit is at most {limit_max}");
        return Err(Error::new(Code::TooLarge, message));
    }
    let filter = match &range.after {
        Some(key) => Filter::After(bind_key(table, key)?),
        None => Filter::All(Vec::new()),
    };
    Ok(Read::whole_rows(table, filter, Some(range.limit)))
}

/// Checks keys (each the key's column values, in key order) and spells them canonically.
///
/// # Errors
/// `type_mismatch` for a value that does not fit, `key_required` for a key of the wrong length.
pub fn bind_keys(table: &Table, keys: &[Vec<Value>]) -> Result<Vec<Vec<Value>>, Error> {
    keys.iter().map(|key| bind_key(table, key)).collect()
}

fn bind_key(table: &Table, key: &[Value]) -> Result<Vec<Value>, Error> {
    if key.len() != table.key.len() {
        let message = format!("a key of {:?} has {} values", table.name, table.key.len());
        return Err(Error::new(Code::KeyRequired, message));
    }
    let bind_value = |(&index, value): (&usize, &Value)| {
        let kind = &table.columns[index].kind;
        let canonical = kind.canonical(value).filter(|_| !value.is_null());
        canonical.ok_or_else(|| mismatch(table, index, kind.expected()))
    };
    table.key.iter().zip(key).map(bind_value).collect()
}
