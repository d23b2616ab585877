//! From JSON to queries.

use serde_json::Value;

use super::super::members::{Members, invalid, shown};
use super::super::{
    AttemptId, BatchItem, Count, Delete, Describe, Error, Insert, JsonLimits, Key, OpId, Order,
    Query, Range, Request, Resolve, Select, Update, Where, parse_json,
};

const TYPES: &str = "select, count, insert, upsert, update, delete, transaction (and range, batch, resolve, describe)";

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// `invalid_request` or `too_large`; see [`parse_json`].
    pub fn parse(bytes: &[u8], limits: &JsonLimits) -> Result<Self, Error> {
        let value = parse_json(bytes, limits)?;
        let mut members = Members::open("the request", value, &["db", "query", "op_id"])?;
        Ok(Self {
            db: members.text("db")?,
            op_id: members.uuid("op_id")?.map(OpId),
            query: Query::from_value(members.required("query")?)?,
        })
    }
}

impl Query {
    /// Reads the wire form.
    ///
    /// # Errors
    /// `invalid_request`, naming the member that is wrong.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let Some(kind) = value.get("type").filter(|kind| !kind.is_null()) else {
            return Err(match value {
                Value::Object(_) => invalid(format!("query needs a member type: one of {TYPES}")),
                _ => invalid("query must be an object"),
            });
        };
        match kind.as_str() {
            Some("select") => read_select(value).map(Self::Select),
            Some("count") => read_count(value).map(Self::Count),
            Some("insert") => read_insert("insert", value).map(Self::Insert),
            Some("upsert") => read_insert("upsert", value).map(Self::Upsert),
            Some("update") => read_update(value).map(Self::Update),
            Some("delete") => read_delete(value).map(Self::Delete),
            Some("transaction") => read_transaction(value).map(Self::Transaction),
            Some("range") => read_range(value).map(Self::Range),
            Some("batch") => read_batch(value).map(Self::Batch),
            Some("resolve") => read_resolve(value).map(Self::Resolve),
            Some("describe") => read_describe(value).map(Self::Describe),
            Some(other) => {
                let message = format!("no query type {}; types are {TYPES}", shown(other));
                Err(invalid(message))
            }
            None => Err(invalid(format!("query: type must be one of {TYPES}"))),
        }
    }
}

fn read_where(members: &mut Members) -> Result<Option<Where>, Error> {
    members.take("where").map(Where::from_value).transpose()
}

fn read_select(value: Value) -> Result<Select, Error> {
    let allowed = [
        "type",
        "table",
        "where",
        "columns",
        "order_by",
        "limit",
        "offset",
        "include_deleted",
    ];
    let mut members = Members::open("select", value, &allowed)?;
    Ok(Select {
        table: members.text("table")?,
        filter: read_where(&mut members)?,
        columns: members.take("columns").map(read_columns).transpose()?,
        order_by: read_order(members.take("order_by"))?,
        limit: members.count("limit")?,
        offset: members.count("offset")?,
        include_deleted: members.flag("include_deleted")?,
    })
}

fn read_columns(value: Value) -> Result<Vec<String>, Error> {
    let wrong = || invalid("select: columns must be a non-empty array of column names");
    match value {
        Value::Array(names) if !names.is_empty() => names
            .into_iter()
            .map(|name| match name {
                Value::String(name) => Ok(name),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// `"column"`, `"-column"`, or an array of these.
fn read_order(value: Option<Value>) -> Result<Vec<Order>, Error> {
    let terms = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(terms)) => terms,
        Some(term) => vec![term],
    };
    let read_term = |term: Value| {
        let text = term.as_str().unwrap_or_default();
        let (column, descending) = match text.strip_prefix('-') {
            Some(column) => (column, true),
            None => (text, false),
        };
        if column.is_empty() {
            let message = "select: order_by must be \"column\", \"-column\" or an array of these";
            return Err(invalid(message));
        }
        Ok(Order {
            column: column.to_owned(),
            descending,
        })
    };
    terms.into_iter().map(read_term).collect()
}

fn read_count(value: Value) -> Result<Count, Error> {
    let allowed = ["type", "table", "where", "include_deleted"];
    let mut members = Members::open("count", value, &allowed)?;
    Ok(Count {
        table: members.text("table")?,
        filter: read_where(&mut members)?,
        include_deleted: members.flag("include_deleted")?,
    })
}

fn read_insert(what: &'static str, value: Value) -> Result<Insert, Error> {
    let mut members = Members::open(what, value, &["type", "table", "data"])?;
    let table = members.text("table")?;
    let wrong = || {
        invalid(format!(
            "{what}: data must be a row or a non-empty array of rows"
        ))
    };
    match members.required("data")? {
        Value::Object(row) => Ok(Insert {
            table,
            rows: vec![row],
            single: true,
        }),
        Value::Array(rows) if !rows.is_empty() => {
            let read_row = |row| match row {
                Value::Object(row) => Ok(row),
                _ => Err(wrong()),
            };
            Ok(Insert {
                table,
                rows: rows.into_iter().map(read_row).collect::<Result<_, _>>()?,
                single: false,
            })
        }
        _ => Err(wrong()),
    }
}

fn read_update(value: Value) -> Result<Update, Error> {
    let allowed = ["type", "table", "where", "data", "all", "include_deleted"];
    let mut members = Members::open("update", value, &allowed)?;
    Ok(Update {
        table: members.text("table")?,
        filter: read_where(&mut members)?,
        data: match members.required("data")? {
            Value::Object(data) if !data.is_empty() => data,
            _ => return Err(members.must_be("data", "an object with at least one column")),
        },
        all: members.flag("all")?,
        include_deleted: members.flag("include_deleted")?,
    })
}

fn read_delete(value: Value) -> Result<Delete, Error> {
    let allowed = ["type", "table", "where", "hard", "all", "include_deleted"];
    let mut members = Members::open("delete", value, &allowed)?;
    Ok(Delete {
        table: members.text("table")?,
        filter: read_where(&mut members)?,
        hard: members.flag("hard")?,
        all: members.flag("all")?,
        include_deleted: members.flag("include_deleted")?,
    })
}

fn read_transaction(value: Value) -> Result<Vec<Query>, Error> {
    let mut members = Members::open("transaction", value, &["type", "queries"])?;
    let read_member = |(index, value)| {
        let query = Query::from_value(value)
            .map_err(|error| invalid(format!("queries[{index}]: {}", error.message)))?;
        match query {
            Query::Transaction(_)
            | Query::Range(_)
            | Query::Batch(_)
            | Query::Resolve(_)
            | Query::Describe(_) => Err(invalid(format!(
                "queries[{index}]: a transaction cannot hold a {}",
                query.op()
            ))),
            _ => Ok(query),
        }
    };
    let queries = members.array("queries")?;
    queries.into_iter().enumerate().map(read_member).collect()
}

/// A key: the key's column values, in key order.
fn read_key(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(key) if !key.is_empty() => Some(key),
        _ => None,
    }
}

fn read_range(value: Value) -> Result<Range, Error> {
    let mut members = Members::open("range", value, &["type", "table", "after", "limit"])?;
    let table = members.text("table")?;
    let after = match members.take("after").map(read_key) {
        None => None,
        Some(Some(key)) => Some(key),
        Some(None) => return Err(members.must_be("after", "a key: an array of values, or null")),
    };
    let limit = members.required("limit")?;
    match limit.as_u64() {
        Some(limit) if limit > 0 => Ok(Range {
            table,
            after,
            limit,
        }),
        _ => Err(members.must_be("limit", "a positive integer")),
    }
}

fn read_batch(value: Value) -> Result<Vec<BatchItem>, Error> {
    let mut members = Members::open("batch", value, &["type", "items"])?;
    let items = members.array("items")?;
    let read = |(index, value)| {
        read_item(value).map_err(|error| invalid(format!("items[{index}]: {}", error.message)))
    };
    items.into_iter().enumerate().map(read).collect()
}

fn read_item(value: Value) -> Result<BatchItem, Error> {
    let allowed = ["query", "attempt_id", "deadline", "fences"];
    let mut members = Members::open("a batch item", value, &allowed)?;
    let query = Query::from_value(members.required("query")?)?;
    if matches!(
        query,
        Query::Range(_) | Query::Batch(_) | Query::Resolve(_) | Query::Describe(_)
    ) {
        return Err(invalid(format!("a batch cannot hold a {}", query.op())));
    }
    let Some(attempt_id) = members.uuid("attempt_id")? else {
        return Err(invalid("a batch item needs a member attempt_id"));
    };
    let deadline = members.required("deadline")?;
    let Some(deadline_ms) = deadline.as_i64() else {
        return Err(members.must_be("deadline", "unix milliseconds"));
    };
    let fences = match members.take("fences") {
        None => Vec::new(),
        Some(Value::Object(fences)) => {
            let wrong = || members.must_be("fences", "an object of key to integer token");
            let read_fence = |(key, token): (String, Value)| {
                let token = token.as_i64().ok_or_else(wrong)?;
                Ok::<_, Error>((Key(key), token))
            };
            fences
                .into_iter()
                .map(read_fence)
                .collect::<Result<_, _>>()?
        }
        Some(_) => return Err(members.must_be("fences", "an object of key to integer token")),
    };
    Ok(BatchItem {
        query,
        attempt_id: AttemptId(attempt_id),
        deadline_ms,
        fences,
    })
}

fn read_resolve(value: Value) -> Result<Resolve, Error> {
    let allowed = ["type", "table", "keys", "attempt_id"];
    let mut members = Members::open("resolve", value, &allowed)?;
    let table = members.text("table")?;
    let Some(attempt_id) = members.uuid("attempt_id")? else {
        return Err(invalid("resolve needs a member attempt_id"));
    };
    let keys = members.array("keys")?.into_iter().map(read_key);
    let Some(keys) = keys.collect::<Option<Vec<_>>>() else {
        return Err(members.must_be("keys", "an array of keys, each an array of values"));
    };
    Ok(Resolve {
        table,
        keys,
        attempt_id: AttemptId(attempt_id),
    })
}

fn read_describe(value: Value) -> Result<Describe, Error> {
    let mut members = Members::open("describe", value, &["type", "table"])?;
    let table = members.text("table")?;
    Ok(Describe { table })
}
