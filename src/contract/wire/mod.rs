//! Requests and queries in their wire form, both ways.
//!
//! Written by hand, not derived: an unknown member, a wrong type or a missing member is answered with the
//! name of the member and of those that exist, and never with a value. What is written is read back as it
//! was, which the tests of this folder hold both halves to.

mod read;
mod write;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::contract::{Code, Error, JsonLimits, Query, Request};

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

    fn assert_refused(cases: &[(Value, &str)]) {
        for (value, message) in cases {
            let error = read(value.clone()).unwrap_err();
            assert_eq!(error.code, Code::InvalidRequest);
            assert!(error.message.contains(message), "{}", error.message);
        }
    }

    #[test]
    fn members_of_the_wrong_type_are_named() {
        assert_refused(&[
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
        ]);
    }

    #[test]
    fn members_of_writes_and_storage_queries_are_checked_too() {
        assert_refused(&[
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
        ]);
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
