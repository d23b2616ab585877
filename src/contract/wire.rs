//! Requests and queries in their wire form, both ways.
//!
//! Written by hand, not derived: an unknown member, a wrong type or a missing member is answered with the
//! name of the member and of those that exist, and never with a value.

use serde_json::{Map, Value, json};

use super::members::{Members, invalid, shown};
use super::{
    AttemptId, BatchItem, Count, Delete, Error, Insert, JsonLimits, Key, OpId, Order, Query, Range,
    Request, Resolve, Row, Select, Update, Where, parse_json,
};

const TYPES: &str =
    "select, count, insert, upsert, update, delete, transaction (and range, batch, resolve)";

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
            Some(other) => {
                let message = format!("no query type {}; types are {TYPES}", shown(other));
                Err(invalid(message))
            }
            None => Err(invalid(format!("query: type must be one of {TYPES}"))),
        }
    }

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
            Self::Resolve(resolve) => {
                map.insert("table".to_owned(), json!(resolve.table));
                map.insert("keys".to_owned(), json!(resolve.keys));
                map.insert("attempt_id".to_owned(), json!(resolve.attempt_id));
            }
        }
        Value::Object(map)
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
            Query::Transaction(_) | Query::Range(_) | Query::Batch(_) | Query::Resolve(_) => {
                Err(invalid(format!(
                    "queries[{index}]: a transaction cannot hold a {}",
                    query.op()
                )))
            }
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
    if matches!(query, Query::Range(_) | Query::Batch(_) | Query::Resolve(_)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Code;

    const ID: &str = "0190a5c8-7d3e-7c3e-8f00-0123456789ab";

    fn read(value: Value) -> Result<Query, Error> {
        Query::from_value(value)
    }

    fn parse(text: &str) -> Result<Request, Error> {
        Request::parse(text.as_bytes(), &JsonLimits::default())
    }

    #[test]
    fn a_request_is_read_back_as_it_is_written() {
        let text = format!(
            r#"{{"db":"campaign_db","query":{{"type":"select","table":"campaigns","where":{{"id":"{ID}"}}}},"op_id":"{ID}"}}"#
        );
        let request = parse(&text).unwrap();
        assert_eq!(request.to_json(), text);
        assert_eq!(parse(&request.to_json()).unwrap(), request);
    }

    #[test]
    fn every_kind_of_query_round_trips_with_the_same_text() {
        let item = json!({"query": {"type": "count", "table": "t"}, "attempt_id": ID,
            "deadline": 1_700_000_000_000_i64, "fences": {"[1]": 7}});
        for value in [
            json!({"type": "select", "table": "t", "where": {"a": {"in": [1, 2]}}, "columns": ["a"],
                "order_by": ["-a", "b"], "limit": 5, "offset": 0, "include_deleted": true}),
            json!({"type": "select", "table": "t", "order_by": "-a"}),
            json!({"type": "count", "table": "t", "where": {}}),
            json!({"type": "insert", "table": "t", "data": {"a": 1}}),
            json!({"type": "insert", "table": "t", "data": [{"a": 1}]}),
            json!({"type": "upsert", "table": "t", "data": [{"a": 1}, {"b": null}]}),
            json!({"type": "update", "table": "t", "where": {"a": 1}, "data": {"b": [1]}, "all": true,
                "include_deleted": true}),
            json!({"type": "delete", "table": "t", "where": {"a": 1}, "hard": true, "all": true,
                "include_deleted": true}),
            json!({"type": "transaction", "queries": [{"type": "count", "table": "t"},
                {"type": "delete", "table": "t", "where": {"a": 1}}]}),
            json!({"type": "range", "table": "t", "after": null, "limit": 10}),
            json!({"type": "range", "table": "t", "after": [1, "x"], "limit": 10}),
            json!({"type": "batch", "items": [item]}),
            json!({"type": "resolve", "table": "t", "keys": [[1], [2]], "attempt_id": ID}),
        ] {
            let query = read(value.clone()).unwrap();
            assert_eq!(query.to_value(), value);
            assert_eq!(Some(query.op()), value["type"].as_str());
        }
    }

    #[test]
    fn unknown_members_are_named_wherever_they_are() {
        for (value, message) in [
            (
                json!({"type": "select", "table": "t", "wher": {}}),
                "select has no member \"wher\"; it has type, table, where",
            ),
            (
                json!({"type": "update", "table": "t", "data": {"a": 1}, "hard": true}),
                "update has no member \"hard\"",
            ),
            (
                json!({"type": "transaction", "queries": [{"type": "count", "table": "t", "limit": 1}]}),
                "queries[0]: count has no member \"limit\"",
            ),
        ] {
            let error = read(value).unwrap_err();
            assert_eq!(error.code, Code::InvalidRequest);
            assert!(error.message.contains(message), "{}", error.message);
        }
        let error = parse(r#"{"db":"d","query":{"type":"count","table":"t"},"opid":1}"#);
        assert!(error.unwrap_err().message.contains("db, query, op_id"));
    }

    #[test]
    fn members_of_the_wrong_type_are_named() {
        for (value, message) in [
            (json!([]), "query must be an object"),
            (json!({"table": "t"}), "needs a member type"),
            (json!({"type": 1}), "type must be one of"),
            (json!({"type": "DROP TABLE", "table": "t"}), "no query type"),
            (json!({"type": "select"}), "needs a member table"),
            (json!({"type": "select", "table": 1}), "table must be text"),
            (
                json!({"type": "select", "table": "t", "limit": -1}),
                "limit must be",
            ),
            (
                json!({"type": "select", "table": "t", "limit": 1.5}),
                "limit must be",
            ),
            (
                json!({"type": "select", "table": "t", "offset": "1"}),
                "offset must be",
            ),
            (
                json!({"type": "select", "table": "t", "columns": []}),
                "columns must be",
            ),
            (
                json!({"type": "select", "table": "t", "columns": [1]}),
                "columns must be",
            ),
            (
                json!({"type": "select", "table": "t", "order_by": "-"}),
                "order_by must be",
            ),
            (
                json!({"type": "select", "table": "t", "order_by": [1]}),
                "order_by must be",
            ),
            (
                json!({"type": "select", "table": "t", "include_deleted": 1}),
                "true or false",
            ),
            (
                json!({"type": "insert", "table": "t"}),
                "needs a member data",
            ),
            (
                json!({"type": "insert", "table": "t", "data": []}),
                "data must be",
            ),
            (
                json!({"type": "insert", "table": "t", "data": [1]}),
                "data must be",
            ),
            (
                json!({"type": "update", "table": "t", "data": {}}),
                "data must be",
            ),
            (
                json!({"type": "update", "table": "t", "data": [{}]}),
                "data must be",
            ),
            (
                json!({"type": "transaction", "queries": []}),
                "non-empty array",
            ),
            (
                json!({"type": "range", "table": "t", "limit": 0}),
                "limit must be",
            ),
            (
                json!({"type": "range", "table": "t", "after": 1, "limit": 1}),
                "after must be",
            ),
            (
                json!({"type": "resolve", "table": "t", "keys": [1], "attempt_id": ID}),
                "keys must be",
            ),
            (
                json!({"type": "resolve", "table": "t", "keys": [[1]]}),
                "attempt_id",
            ),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.message.contains(message), "{}", error.message);
        }
    }

    #[test]
    fn transactions_and_batches_do_not_nest() {
        let count = json!({"type": "count", "table": "t"});
        let transaction = json!({"type": "transaction", "queries": [count]});
        let nested = json!({"type": "transaction", "queries": [transaction]});
        assert!(read(nested).unwrap_err().message.contains("cannot hold"));
        let item = |query| json!({"query": query, "attempt_id": ID, "deadline": 1});
        let batch = json!({"type": "batch", "items": [item(transaction)]});
        assert!(read(batch.clone()).is_ok());
        let nested = json!({"type": "batch", "items": [item(batch)]});
        assert!(read(nested).unwrap_err().message.contains("cannot hold"));
    }

    #[test]
    fn an_op_id_must_be_a_uuid() {
        let text = r#"{"db":"d","query":{"type":"count","table":"t"},"op_id":"x"}"#;
        assert!(
            parse(text)
                .unwrap_err()
                .message
                .contains("op_id must be a UUID")
        );
    }

    #[test]
    fn a_long_name_is_cut_in_messages() {
        let error = read(json!({"type": "x".repeat(10_000)})).unwrap_err();
        assert!(error.message.len() < 300);
    }
}
