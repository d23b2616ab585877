//! Relations that act, in `live`: what storage and legacy hold after a removal or a change of a key, whether
//! storage has the relations or not.

use std::time::Duration;

use cutover::sql::{Db, PoolOptions};
use serde_json::{Value, json};

use crate::fixture::{Answer, LegacyKind, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
const OP: &str = "0190b5a0-0000-7000-8000-0000000000aa";
const OP_2: &str = "0190b5a0-0000-7000-8000-0000000000ab";

/// Two levels that go, rows that are cleared, a table that hangs on itself, keys that are followed.
pub(crate) const DDL: &str = "
CREATE TABLE accounts (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE projects (id integer PRIMARY KEY, account integer NOT NULL REFERENCES accounts ON DELETE CASCADE, name text);
CREATE TABLE tasks (project integer REFERENCES projects ON DELETE CASCADE, number integer, title text, PRIMARY KEY (project, number));
CREATE TABLE notes (id integer PRIMARY KEY, account integer REFERENCES accounts ON DELETE SET NULL,
  project integer REFERENCES projects ON DELETE SET NULL, body text);
CREATE TABLE folders (id integer PRIMARY KEY, parent integer REFERENCES folders ON DELETE CASCADE, name text);
CREATE TABLE tags (code text PRIMARY KEY, name text);
CREATE TABLE labels (id integer PRIMARY KEY, tag text REFERENCES tags ON UPDATE CASCADE);
";
pub(crate) const TABLES: [&str; 7] = [
    "accounts", "projects", "tasks", "notes", "folders", "tags", "labels",
];

/// What the DDL for storage leaves to be added in `live`.
const CIRCLE: &str =
    "ALTER TABLE folders ADD FOREIGN KEY (parent) REFERENCES folders ON DELETE CASCADE";
/// Storage without the relations.
const UNRELATED: &str = "
ALTER TABLE projects DROP CONSTRAINT projects_account_fkey;
ALTER TABLE tasks DROP CONSTRAINT tasks_project_fkey;
ALTER TABLE notes DROP CONSTRAINT notes_account_fkey, DROP CONSTRAINT notes_project_fkey;
ALTER TABLE labels DROP CONSTRAINT labels_tag_fkey;
";

/// The rows of each table, as one text on either database.
pub(crate) const ROWS: [&str; 7] = [
    "SELECT concat(id, name) FROM accounts",
    "SELECT concat(id, account, name) FROM projects",
    "SELECT concat(project, number, title) FROM tasks",
    "SELECT concat(id, '/', account, '/', project, body) FROM notes",
    "SELECT concat(id, parent) FROM folders",
    "SELECT concat(code, name) FROM tags",
    "SELECT concat(id, tag) FROM labels",
];

/// The options of a world with these tables.
pub(crate) fn options() -> WorldOptions {
    let tables = TABLES.map(|table| format!("[[tables]]\nname = \"{table}\"\n"));
    WorldOptions {
        ddl: DDL.to_owned(),
        tables: tables.concat(),
        ..WorldOptions::default()
    }
}

/// A world in `live`, whose storage has the relations or not.
pub(crate) async fn live(options: WorldOptions, related: bool) -> World {
    let world = World::build(options).await;
    let ddl = if related { CIRCLE } else { UNRELATED };
    world.storage_database.execute(ddl).await;
    world.advance_to("live").await;
    world
}

/// A world in `live` on a legacy of SQLite, and that.
pub(crate) async fn live_on_sqlite() -> (World, Db) {
    let world = World::build(WorldOptions {
        legacy: LegacyKind::Sqlite,
        ..options()
    })
    .await;
    let legacy = Db::open(&world.legacy_url, &PoolOptions::default()).expect("a file");
    for stage in ["dual_write", "shadow"] {
        world.proxies[0].stage(stage, true).await.ok();
    }
    let verified = "UPDATE cutover_state SET storage_stale = 0";
    legacy.batch(verified).await.expect("the state is there");
    eventually("live", SOON, async || {
        let answer = world.proxies[0].stage("live", true).await;
        answer.status.is_success().then_some(()).ok_or(answer.body)
    })
    .await;
    (world, legacy)
}

/// What a statement gives on a legacy of SQLite and on storage.
pub(crate) async fn rows_beside_sqlite(
    world: &World,
    legacy: &Db,
    rows: &str,
) -> (Vec<String>, Vec<String>) {
    let sql = format!("{rows} ORDER BY 1");
    let held = legacy.fetch(&sql, vec![]).await.expect("it answers");
    let held = held.iter().map(|row| row.some_text(0).expect("text"));
    (held.collect(), world.storage_database.texts(&sql).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_takes_two_levels_along_and_clears_what_only_points() {
    for related in [true, false] {
        let world = live(options(), related).await;
        fill(&world).await;
        removes_two_levels(&world).await;
        assert_same(&world).await;
        let left = |sql: &'static str| world.legacy.texts(sql);
        assert_eq!(
            left("SELECT id::text FROM projects ORDER BY id").await,
            ["20"]
        );
        assert_eq!(left("SELECT title FROM tasks").await, ["other"]);
        let notes = "SELECT concat_ws(' ', id, account, project) FROM notes ORDER BY id";
        assert_eq!(left(notes).await, ["1", "2", "3 2 20"]);
        nothing_is_owed(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_hangs_on_itself_loses_whole_trees_and_circles() {
    for related in [true, false] {
        let world = live(options(), related).await;
        removes_trees_and_circles(&world).await;
        assert_same(&world).await;
        let left = "SELECT count(*) FROM folders";
        assert_eq!(world.legacy.number(left).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_unless_rows_follow_it() {
    let world = live(options(), true).await;
    changes_keys(&world).await;
    let codes = "SELECT code FROM tags ORDER BY code";
    assert_eq!(world.legacy.texts(codes).await, ["c", "y", "z"]);
    assert_same(&world).await;
    nothing_is_owed(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_silences_no_trigger_ends_with_the_same_rows() {
    let options = WorldOptions {
        legacy: LegacyKind::PlainRole,
        ..options()
    };
    let world = live(options, true).await;
    fill(&world).await;
    removes_two_levels(&world).await;
    removes_trees_and_circles(&world).await;
    changes_keys(&world).await;
    assert_same(&world).await;
    nothing_is_owed(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_of_sqlite_ends_with_the_same_rows() {
    let (world, legacy) = live_on_sqlite().await;
    fill(&world).await;
    removes_two_levels(&world).await;
    removes_trees_and_circles(&world).await;
    changes_keys(&world).await;
    for rows in ROWS {
        let (held, stored) = rows_beside_sqlite(&world, &legacy, rows).await;
        assert_eq!(held, stored, "{rows}");
    }
}

/// Removes an account with all that hangs on it, twice under one operation id.
async fn removes_two_levels(world: &World) {
    let query = remove("accounts", json!({"id": 1}));
    let gone = ask(world, query.clone(), OP).await.ok();
    assert_eq!(gone, json!({"id": 1, "name": "one"}));
    assert_eq!(ask(world, query, OP).await.ok(), gone, "the first answer");
}

/// Makes a tree, a circle and a row that points at itself, and removes them.
async fn removes_trees_and_circles(world: &World) {
    for (id, parent) in [
        (1, None),
        (2, Some(1)),
        (3, Some(2)),
        (4, None),
        (5, Some(4)),
    ] {
        let row = json!({"id": id, "parent": parent, "name": "folder"});
        write(world, insert("folders", row)).await.ok();
    }
    let circle =
        json!({"type": "update", "table": "folders", "where": {"id": 4}, "data": {"parent": 5}});
    write(world, circle).await.ok();
    let itself = json!({"id": 6, "parent": 6, "name": "itself"});
    write(world, insert("folders", itself.clone())).await.ok();

    let gone = write(world, remove("folders", json!({"id": 1}))).await.ok();
    assert_eq!(gone["id"], 1);
    let gone = write(world, remove("folders", json!({"id": 4}))).await.ok();
    assert_eq!(gone, json!({"id": 4, "parent": 5, "name": "folder"}));
    let gone = write(world, remove("folders", json!({"id": {"gte": 5}})))
        .await
        .ok();
    assert_eq!(gone, json!([itself]));
}

async fn changes_keys(world: &World) {
    for code in ["a", "b", "c"] {
        let row = json!({"code": code, "name": code});
        write(world, insert("tags", row)).await.ok();
    }
    let follower = json!({"id": 1, "tag": "c"});
    write(world, insert("labels", follower)).await.ok();
    let moved = ask(world, rekey("a", "z"), OP_2).await.ok();
    assert_eq!(moved, json!({"code": "z", "name": "a"}));
    assert_eq!(ask(world, rekey("a", "z"), OP_2).await.ok(), moved);
    assert_eq!(write(world, rekey("z", "b")).await.code(), "conflict");
    assert_eq!(write(world, rekey("c", "d")).await.code(), "unsupported");
    assert_eq!(write(world, rekey("z", "z")).await.ok()["code"], "z");
    let data = json!({"code": "y", "name": "B"});
    let by_name = json!({"type": "update", "table": "tags", "where": {"name": "b"}, "data": data});
    assert_eq!(write(world, by_name).await.ok(), json!([data]));
    let several = json!({"code": {"in": ["y", "z"]}});
    let several =
        json!({"type": "update", "table": "tags", "where": several, "data": {"code": "x"}});
    assert_eq!(write(world, several).await.code(), "unsupported");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_removes_children_and_parent_and_is_refused_what_it_cannot_tell() {
    let world = live(options(), true).await;
    fill(&world).await;
    let all = |members: Value| json!({"type": "transaction", "queries": members});
    let done = all(json!([
        insert("accounts", json!({"id": 3, "name": "three"})),
        remove("projects", json!({"id": 10})),
        remove("accounts", json!({"id": 1})),
        insert(
            "projects",
            json!({"id": 30, "account": 3, "name": "thirty"})
        ),
    ]));
    let replies = write(&world, done).await.ok();
    assert_eq!(replies.as_array().expect("an array").len(), 4);
    assert_eq!(replies[1]["id"], 10);
    assert_eq!(replies[2]["name"], "one");
    assert_same(&world).await;
    let left = "SELECT id::text FROM projects ORDER BY id";
    assert_eq!(world.legacy.texts(left).await, ["20", "30"]);

    let points = all(json!([
        insert("projects", json!({"id": 31, "account": 3, "name": "late"})),
        remove("accounts", json!({"id": 3})),
    ]));
    assert_eq!(write(&world, points).await.code(), "unsupported");
    let rescue =
        json!({"type": "update", "table": "projects", "where": {"id": 30}, "data": {"account": 2}});
    let rescues = all(json!([rescue, remove("accounts", json!({"id": 3}))]));
    assert_eq!(write(&world, rescues).await.code(), "unsupported");
    let twice = all(json!([
        {"type": "update", "table": "accounts", "where": {"id": 2}, "data": {"name": "II"}},
        {"type": "upsert", "table": "accounts", "data": {"id": 2}},
    ]));
    assert_eq!(write(&world, twice).await.ok()[1]["name"], "II");
    assert_same(&world).await;
    nothing_is_owed(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_whose_reply_was_lost_is_found_out_with_all_that_went() {
    let world = live(options(), true).await;
    fill(&world).await;
    let query = remove("accounts", json!({"id": 1}));
    let found = found_out(&world, query, OP).await;
    assert_eq!(found, json!({"id": 1, "name": "one"}));
    let tag = json!({"code": "a", "name": "A"});
    write(&world, insert("tags", tag)).await.ok();
    let found = found_out(&world, rekey("a", "b"), OP_2).await;
    assert_eq!(found, json!({"code": "b", "name": "A"}));
    assert_same(&world).await;
    nothing_is_owed(&world).await;
}

/// Sends a write whose reply is lost, and returns the answer of its repeat.
async fn found_out(world: &World, query: Value, op: &str) -> Value {
    world.storage.fault(&json!({"lost_reply_rate": 1.0})).await;
    let lost = ask(world, query.clone(), op).await;
    assert_eq!(lost.code(), "outcome_unknown", "{}", lost.body);
    world.storage.heal().await;
    eventually("its outcome is known", SOON, async || {
        let again = ask(world, query.clone(), op).await;
        match again.status.is_success() {
            true => Ok(again.body),
            false => Err(again.body.to_string()),
        }
    })
    .await
}

async fn fill(world: &World) {
    for (id, name) in [(1, "one"), (2, "two")] {
        write(world, insert("accounts", json!({"id": id, "name": name})))
            .await
            .ok();
    }
    for (id, account) in [(10, 1), (11, 1), (20, 2)] {
        let row = json!({"id": id, "account": account, "name": "project"});
        write(world, insert("projects", row)).await.ok();
    }
    // More than one statement removes.
    let tasks = (1..=70).map(|number| json!({"project": 10, "number": number, "title": "many"}));
    let others = [
        json!({"project": 11, "number": 1, "title": "one"}),
        json!({"project": 20, "number": 1, "title": "other"}),
    ];
    let tasks: Value = tasks.chain(others).collect();
    write(world, insert("tasks", tasks)).await.ok();
    let notes = json!([
        {"id": 1, "account": 1, "project": 10, "body": "both"},
        {"id": 2, "account": null, "project": 11, "body": "one"},
        {"id": 3, "account": 2, "project": 20, "body": "neither"},
    ]);
    write(world, insert("notes", notes)).await.ok();
}

pub(crate) fn insert(table: &str, data: Value) -> Value {
    json!({"type": "insert", "table": table, "data": data})
}

pub(crate) fn remove(table: &str, filter: Value) -> Value {
    json!({"type": "delete", "table": table, "where": filter})
}

fn rekey(from: &str, to: &str) -> Value {
    json!({"type": "update", "table": "tags", "where": {"code": from}, "data": {"code": to}})
}

async fn write(world: &World, query: Value) -> Answer {
    world.proxies[0].query(query).await
}

async fn ask(world: &World, query: Value, op: &str) -> Answer {
    let asked = world.proxies[0].try_query(query, Some(op));
    asked.await.expect("the proxy answers")
}

/// Fails unless both sides hold the same rows.
pub(crate) async fn assert_same(world: &World) {
    for table in TABLES {
        world.assert_same_rows(table).await;
    }
}

/// Waits until the journal is empty.
pub(crate) async fn nothing_is_owed(world: &World) {
    eventually("nothing is owed", SOON, async || {
        let owed = world
            .legacy
            .number("SELECT count(*) FROM cutover.journal")
            .await;
        (owed == 0).then_some(()).ok_or(owed)
    })
    .await;
}
