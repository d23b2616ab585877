//! Binding, from the wire form on.

use serde_json::{Value, json};

use super::*;
use crate::schema::fixture::{ID, bound, change, read, schema, write};

fn refused(query: Value) -> (Code, String) {
    let error = bound(query).unwrap_err();
    (error.code, error.message)
}

fn code(query: Value) -> Code {
    refused(query).0
}

fn select(filter: Value) -> Value {
    json!({"type": "select", "table": "campaigns", "where": filter})
}

fn insert(table: &str, data: Value) -> Value {
    json!({"type": "insert", "table": table, "data": data})
}

fn update(filter: Value, data: Value) -> Value {
    json!({"type": "update", "table": "campaigns", "where": filter, "data": data})
}

fn delete(filter: Value) -> Value {
    json!({"type": "delete", "table": "campaigns", "where": filter})
}

/// The rows of an insert.
fn rows(change: Change) -> Vec<crate::contract::Row> {
    match change {
        Change::Insert { rows, .. } => rows,
        other => panic!("not an insert: {other:?}"),
    }
}

fn test(column: usize, operator: Operator, value: Value) -> Filter {
    Filter::Test(Test {
        column,
        operator,
        value,
    })
}

fn not_deleted() -> Filter {
    test(3, Operator::IsNull, json!(true))
}

#[test]
fn names_that_do_not_exist_are_refused_whatever_they_spell() {
    for name in [
        "nope",
        "campaigns; DROP TABLE campaigns",
        "\"campaigns\"",
        "public.campaigns",
        "",
    ] {
        let query = json!({"type": "count", "table": name});
        assert_eq!(code(query), Code::UnknownTable, "{name}");
    }
    for query in [
        select(json!({"id\" OR 1=1 --": 1})),
        json!({"type": "select", "table": "campaigns", "columns": ["nope"]}),
        json!({"type": "select", "table": "campaigns", "order_by": "-nope"}),
        insert("campaigns", json!({"nope": 1})),
        update(json!({"id": ID}), json!({"nope": 1})),
    ] {
        let (code, message) = refused(query);
        assert_eq!(code, Code::UnknownColumn);
        assert!(message.contains("it has id, name, budget"), "{message}");
    }
}

#[test]
fn sql_in_a_value_stays_a_value() {
    let text = "'; DROP TABLE campaigns; --";
    assert_eq!(
        read(select(json!({"name": text}))).filter,
        Filter::All(vec![test(1, Operator::Eq, json!(text)), not_deleted()])
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused_without_being_repeated() {
    for query in [
        select(json!({"id": "secret"})),
        select(json!({"name": {"in": ["a", 5551234]}})),
        select(json!({"budget": {"lt": "secret"}})),
        insert("campaigns", json!({"name": 5551234})),
        insert("campaigns", json!({"name": "n", "starts_at": "secret"})),
        update(json!({"id": ID}), json!({"active": "secret"})),
    ] {
        let (code, message) = refused(query);
        assert_eq!(code, Code::TypeMismatch);
        assert!(message.contains("of \"campaigns\" must be"), "{message}");
        assert!(!message.contains("secret") && !message.contains("555"));
    }
}

#[test]
fn operators_must_suit_the_kind() {
    for filter in [
        json!({"active": {"lt": true}}),
        json!({"meta": {"gt": 1}}),
        json!({"tags": {"lte": []}}),
        json!({"budget": {"like": "1%"}}),
        json!({"raw": 1}),
        json!({"raw": {"in": [1]}}),
        json!({"name": {"lt": null}}),
        json!({"name": {"in": ["a", null]}}),
        json!({"name": {"like": "a%"}, "id": {"like": "a%"}}),
    ] {
        assert_eq!(code(select(filter.clone())), Code::TypeMismatch, "{filter}");
    }
    read(select(
        json!({"raw": null, "tags": ["a"], "meta": {"eq": {"a": 1}}, "active": true}),
    ));
    let order_by = json!({"type": "select", "table": "campaigns", "order_by": ["active", "meta"]});
    assert_eq!(code(order_by), Code::TypeMismatch);
}

#[test]
fn comparisons_with_null_become_is_null() {
    assert_eq!(
        read(select(json!({"note": null, "slug": {"ne": null}}))).filter,
        Filter::All(vec![
            test(5, Operator::IsNull, json!(true)),
            test(6, Operator::IsNull, json!(false)),
            not_deleted(),
        ])
    );
}

#[test]
fn soft_deleted_rows_are_skipped_unless_asked_for() {
    let count = json!({"type": "count", "table": "campaigns"});
    assert_eq!(read(count).filter, Filter::All(vec![not_deleted()]));
    let count = json!({"type": "count", "table": "campaigns", "include_deleted": true});
    assert_eq!(read(count).filter, Filter::All(vec![]));
    let either = read(select(json!({"or": [{"name": "a"}, {"name": "b"}]})));
    assert!(matches!(either.filter, Filter::All(parts) if parts[1] == not_deleted()));
}

#[test]
fn an_order_always_ends_with_the_key() {
    let order = |table: &str, order_by: Value| match read(
        json!({"type": "select", "table": table, "order_by": order_by}),
    )
    .kind
    {
        ReadKind::Rows { order, .. } => order
            .iter()
            .map(|sort| (sort.column, sort.descending))
            .collect::<Vec<_>>(),
        ReadKind::Count => panic!("a count"),
    };
    assert_eq!(
        order("campaigns", json!(["-name", "name"])),
        [(1, true), (0, false)]
    );
    assert_eq!(order("pairs", json!("-b")), [(0, true), (1, false)]);
    assert_eq!(order("pairs", Value::Null), [(1, false), (0, false)]);
}

#[test]
fn columns_keep_their_order_and_come_once() {
    let columns = |names: Value| json!({"type": "select", "table": "campaigns", "columns": names});
    match read(columns(json!(["name", "id"]))).kind {
        ReadKind::Rows { columns, .. } => assert_eq!(columns, [1, 0]),
        ReadKind::Count => panic!("a count"),
    }
    assert_eq!(code(columns(json!(["id", "id"]))), Code::InvalidRequest);
}

#[test]
fn a_write_that_can_match_everything_must_say_so() {
    let everything = [
        json!({}),
        json!({"or": []}),
        json!({"and": []}),
        json!({"and": [{}, {"or": []}]}),
        json!({"or": [{"id": ID}, {}]}),
        json!({"or": [{"id": ID}, {"or": []}]}),
        json!({"not": {"or": []}}),
        json!({"not": {"or": [{"or": []}, {"id": {"in": []}}]}}),
        json!({"not": {"id": {"in": []}}}),
        json!({"not": {"not": {}}}),
        json!({"id": {"is_null": false}}),
        json!({"name": {"ne": null}}),
        json!({"not": {"id": null}}),
        json!({"name": {"like": "%"}}),
        json!({"or": [{"note": null}, {"note": {"ne": null}}]}),
        json!({"or": [{"name": "a"}, {"name": {"ne": "a"}}]}),
        json!({"or": [{"budget": {"lt": 1}}, {"budget": {"gte": 1}}]}),
        json!({"not": {"name": "a", "not": {"name": "a"}}}),
    ];
    for filter in everything {
        assert_eq!(
            code(delete(filter.clone())),
            Code::UnboundedWrite,
            "{filter}"
        );
        let mut meant = update(filter.clone(), json!({"note": "x"}));
        assert_eq!(code(meant.clone()), Code::UnboundedWrite, "{filter}");
        meant["all"] = json!(true);
        assert!(bound(meant).is_ok());
    }
    let missing = json!({"type": "delete", "table": "campaigns"});
    assert_eq!(code(missing), Code::UnboundedWrite);
}

#[test]
fn a_write_with_a_real_condition_is_bounded() {
    for filter in [
        json!({"id": ID}),
        json!({"name": "a", "or": []}),
        json!({"not": {"id": ID}}),
        json!({"note": null}),
        json!({"note": {"ne": null}}),
        json!({"id": {"in": []}}),
        json!({"name": {"like": "a%"}}),
        json!({"not": {}}),
        json!({"or": [{"name": "a"}, {"name": {"ne": "b"}}]}),
    ] {
        assert!(bound(delete(filter.clone())).is_ok(), "{filter}");
    }
}

#[test]
fn a_reply_is_single_when_the_whole_key_is_pinned_by_equality() {
    assert!(change(delete(json!({"id": ID}))).is_single());
    assert!(change(delete(json!({"name": "a", "and": [{"id": {"eq": ID}}]}))).is_single());
    assert!(!change(delete(json!({"id": {"in": [ID]}}))).is_single());
    assert!(!change(delete(json!({"or": [{"id": ID}]}))).is_single());
    let pairs = |filter| change(json!({"type": "delete", "table": "pairs", "where": filter}));
    assert!(pairs(json!({"a": 1, "b": "x"})).is_single());
    assert!(!pairs(json!({"a": 1})).is_single());
}

#[test]
fn a_delete_is_soft_where_the_table_says_so() {
    assert!(matches!(
        change(delete(json!({"id": ID}))),
        Change::SoftDelete { .. }
    ));
    let mut hard = delete(json!({"id": ID}));
    hard["hard"] = json!(true);
    assert!(matches!(change(hard), Change::Delete { .. }));
    let items = json!({"type": "delete", "table": "items", "where": {"id": ID}});
    assert!(matches!(change(items), Change::Delete { .. }));
}

#[test]
fn missing_keys_are_made_counted_or_required() {
    let made = rows(change(insert(
        "campaigns",
        json!([{"name": "a"}, {"name": "b"}]),
    )));
    let ids: Vec<uuid::Uuid> = made
        .iter()
        .map(|row| row["id"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(ids[0] < ids[1] && ids[0].get_version_num() == 7);
    let counted = rows(change(insert("events", json!({"payload": 1}))));
    assert!(!counted[0].contains_key("id"));
    let (code, message) = refused(insert("pairs", json!({"a": 1})));
    assert_eq!(code, Code::KeyRequired);
    assert!(message.contains("\"b\" of \"pairs\""));
}

#[test]
fn a_uuid_key_that_points_to_another_row_is_not_made_up() {
    let mut schema = schema();
    let mut items = schema.tables["items"].as_ref().clone();
    items.key = vec![1, 0];
    schema.tables.insert("items".to_owned(), Arc::new(items));
    let query = Query::from_value(insert("items", json!({"id": ID}))).unwrap();
    let error = bind(&query, &schema, &BindLimits::default()).unwrap_err();
    assert_eq!(error.code, Code::KeyRequired);
}

#[test]
fn values_are_spelled_canonically() {
    let row = json!({"id": ID.to_uppercase(), "name": "a", "budget": 1.50,
        "starts_at": "2026-01-02T03:04:05+01:00", "note": null});
    let bound = rows(change(insert("campaigns", row)));
    assert_eq!(
        json!(bound),
        json!([{"id": ID, "name": "a", "budget": 1.50,
            "starts_at": "2026-01-02T02:04:05.000000Z", "note": null}])
    );
}

#[test]
fn null_and_generated_columns_are_refused_where_they_cannot_be() {
    assert_eq!(
        code(insert("campaigns", json!({"name": null}))),
        Code::Constraint
    );
    assert_eq!(
        code(insert("campaigns", json!({"id": null, "name": "a"}))),
        Code::Constraint
    );
    assert_eq!(
        code(update(json!({"id": ID}), json!({"name": null}))),
        Code::Constraint
    );
    assert_eq!(
        code(insert("campaigns", json!({"slug": "x"}))),
        Code::InvalidRequest
    );
    assert_eq!(
        code(update(json!({"id": ID}), json!({"slug": "x"}))),
        Code::InvalidRequest
    );
    let identity =
        json!({"type": "update", "table": "events", "where": {"id": 1}, "data": {"id": 2}});
    assert_eq!(code(identity), Code::InvalidRequest);
    change(insert("events", json!({"id": 7})));
}

#[test]
fn one_upsert_does_not_set_a_row_twice() {
    let upsert = |rows: Value| json!({"type": "upsert", "table": "campaigns", "data": rows});
    let twice = json!([{"id": ID, "name": "a"}, {"id": ID.to_uppercase(), "name": "b"}]);
    assert_eq!(code(upsert(twice)), Code::InvalidRequest);
    assert!(matches!(
        change(upsert(json!({"id": ID, "name": "a"}))),
        Change::Insert {
            upsert: true,
            single: true,
            ..
        }
    ));
}

#[test]
fn what_is_too_large_is_refused() {
    let many = |count: usize| vec![json!({"name": "a"}); count];
    assert!(bound(insert("campaigns", json!(many(1_000)))).is_ok());
    assert_eq!(
        code(insert("campaigns", json!(many(1_001)))),
        Code::TooLarge
    );
    assert_eq!(
        code(select(json!({"name": {"in": vec!["a"; 10_001]}}))),
        Code::TooLarge
    );
    assert_eq!(
        code(select(json!({"or": vec![json!({"name": "a"}); 256]}))),
        Code::TooLarge
    );
    let page = |limit: u64, offset: u64| json!({"type": "select", "table": "campaigns", "limit": limit, "offset": offset});
    assert!(bound(page(10_000, 0)).is_ok());
    assert_eq!(code(page(10_001, 0)), Code::TooLarge);
    assert_eq!(code(page(1, u64::MAX)), Code::TooLarge);
    let deep = (0..17).fold(json!({"name": "a"}), |inner, _| json!({"not": inner}));
    assert_eq!(code(select(deep)), Code::TooLarge);
    let members = vec![json!({"type": "count", "table": "campaigns"}); 101];
    assert_eq!(
        code(json!({"type": "transaction", "queries": members})),
        Code::TooLarge
    );
}

#[test]
fn a_transaction_keeps_its_members_in_order() {
    let write = write(json!({"type": "transaction", "queries": [
        {"type": "count", "table": "campaigns"},
        insert("campaigns", json!({"id": ID, "name": "a"})),
        select(json!({"id": ID})),
    ]}));
    assert!(write.transaction);
    assert_eq!((write.steps.len(), write.changes().count()), (3, 1));
}

#[test]
fn a_member_may_not_depend_on_what_an_earlier_one_wrote() {
    let after = |first: Value, second: Value| {
        bound(json!({"type": "transaction", "queries": [first, second]}))
            .map_err(|error| error.code)
    };
    let insert = || insert("campaigns", json!({"id": ID, "name": "a"}));
    let by_name = || json!({"name": "a"});
    for second in [
        select(by_name()),
        json!({"type": "count", "table": "campaigns"}),
        update(by_name(), json!({"note": "x"})),
        delete(by_name()),
    ] {
        assert_eq!(
            after(insert(), second.clone()).err(),
            Some(Code::Unsupported)
        );
        assert!(after(second, insert()).is_ok());
    }
    assert!(after(insert(), delete(json!({"id": {"in": [ID]}, "name": "a"}))).is_ok());
    assert!(after(insert(), json!({"type": "count", "table": "items"})).is_ok());
}

#[test]
fn a_cascade_counts_as_written() {
    let mut hard = delete(json!({"id": ID}));
    let count = json!({"type": "count", "table": "items"});
    let soft = json!({"type": "transaction", "queries": [hard.clone(), count.clone()]});
    assert!(bound(soft).is_ok());
    hard["hard"] = json!(true);
    let (code, message) = refused(json!({"type": "transaction", "queries": [hard, count]}));
    assert_eq!(code, Code::Unsupported);
    assert!(message.starts_with("queries[1]: \"items\" was written"));
}

#[test]
fn what_only_storage_understands_is_unsupported() {
    for query in [
        json!({"type": "range", "table": "campaigns", "limit": 1}),
        json!({"type": "resolve", "table": "campaigns", "keys": [[ID]], "attempt_id": ID}),
        json!({"type": "batch", "items": [{"query": {"type": "count", "table": "campaigns"},
            "attempt_id": ID, "deadline": 1}]}),
    ] {
        assert_eq!(code(query), Code::Unsupported);
    }
}

#[test]
fn a_range_is_bound_in_key_order_with_deleted_rows() {
    let range = |after: Value, limit: u64| {
        let value = json!({"type": "range", "table": "pairs", "after": after, "limit": limit});
        match Query::from_value(value).unwrap() {
            Query::Range(range) => bind_range(&range, &schema(), 500),
            other => panic!("{other:?}"),
        }
    };
    let page = range(json!([1.0, "x"]), 500).unwrap();
    assert_eq!(page.filter, Filter::After(vec![json!(1), json!("x")]));
    assert!(
        matches!(page.kind, ReadKind::Rows { limit: Some(500), ref order, .. } if order.len() == 2)
    );
    assert_eq!(range(Value::Null, 1).unwrap().filter, Filter::All(vec![]));
    assert_eq!(range(Value::Null, 501).unwrap_err().code, Code::TooLarge);
    assert_eq!(range(json!([1]), 1).unwrap_err().code, Code::KeyRequired);
    assert_eq!(
        range(json!(["x", 1]), 1).unwrap_err().code,
        Code::TypeMismatch
    );
}

#[test]
fn keys_are_checked_and_spelled_canonically() {
    let schema = schema();
    let table = schema.table("campaigns").unwrap();
    let keys = [vec![json!(ID.to_uppercase())]];
    assert_eq!(bind_keys(table, &keys).unwrap(), [vec![json!(ID)]]);
    assert_eq!(
        bind_keys(table, &[vec![]]).unwrap_err().code,
        Code::KeyRequired
    );
    assert_eq!(
        bind_keys(table, &[vec![Value::Null]]).unwrap_err().code,
        Code::TypeMismatch
    );
}
