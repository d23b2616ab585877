//! Relations that act, in `live`: what storage and legacy hold after a removal or a change of a key, whether
//! storage has the relations or not.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Answer, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
const OP: &str = "0190b5a0-0000-7000-8000-0000000000aa";

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

/// Storage without the relations.
const UNRELATED: &str = "
ALTER TABLE projects DROP CONSTRAINT projects_account_fkey;
ALTER TABLE tasks DROP CONSTRAINT tasks_project_fkey;
ALTER TABLE notes DROP CONSTRAINT notes_account_fkey, DROP CONSTRAINT notes_project_fkey;
ALTER TABLE folders DROP CONSTRAINT folders_parent_fkey;
ALTER TABLE labels DROP CONSTRAINT labels_tag_fkey;
";

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
    if !related {
        world.storage_database.execute(UNRELATED).await;
    }
    world.advance_to("live").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_takes_two_levels_along_and_clears_what_only_points() {
    for related in [true, false] {
        let world = live(options(), related).await;
        fill(&world).await;
        let gone = ask(&world, remove("accounts", json!({"id": 1})), OP)
            .await
            .ok();
        assert_eq!(gone, json!({"id": 1, "name": "one"}));
        assert_same(&world).await;
        let left = |sql: &'static str| world.legacy.texts(sql);
        assert_eq!(
            left("SELECT id::text FROM projects ORDER BY id").await,
            ["20"]
        );
        assert_eq!(left("SELECT title FROM tasks").await, ["other"]);
        let notes = "SELECT concat_ws(' ', id, account, project) FROM notes ORDER BY id";
        assert_eq!(left(notes).await, ["1", "2", "3 2 20"]);
        let again = ask(&world, remove("accounts", json!({"id": 1})), OP)
            .await
            .ok();
        assert_eq!(again, gone, "the first answer");
        nothing_is_owed(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_hangs_on_itself_loses_whole_trees_and_circles() {
    for related in [true, false] {
        let world = live(options(), related).await;
        for (id, parent) in [
            (1, None),
            (2, Some(1)),
            (3, Some(2)),
            (4, None),
            (5, Some(4)),
        ] {
            let row = json!({"id": id, "parent": parent, "name": "folder"});
            write(&world, insert("folders", row)).await.ok();
        }
        let circle = json!({"type": "update", "table": "folders", "where": {"id": 4}, "data": {"parent": 5}});
        write(&world, circle).await.ok();
        let itself = json!({"id": 6, "parent": 6, "name": "itself"});
        write(&world, insert("folders", itself)).await.ok();

        let gone = write(&world, remove("folders", json!({"id": 1})))
            .await
            .ok();
        assert_eq!(gone["id"], 1);
        let gone = write(&world, remove("folders", json!({"id": 4})))
            .await
            .ok();
        assert_eq!(gone, json!({"id": 4, "parent": 5, "name": "folder"}));
        let gone = write(&world, remove("folders", json!({"id": {"gte": 5}})))
            .await
            .ok();
        assert_eq!(gone.as_array().expect("an array").len(), 1);
        let left = "SELECT count(*) FROM folders";
        assert_eq!(world.legacy.number(left).await, 0);
        assert_same(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_unless_rows_follow_it() {
    let world = live(options(), true).await;
    for code in ["a", "b", "c"] {
        write(&world, insert("tags", json!({"code": code, "name": code})))
            .await
            .ok();
    }
    write(&world, insert("labels", json!({"id": 1, "tag": "c"})))
        .await
        .ok();
    let moved = ask(&world, rekey("a", "z"), OP).await.ok();
    assert_eq!(moved, json!({"code": "z", "name": "a"}));
    assert_eq!(ask(&world, rekey("a", "z"), OP).await.ok(), moved);
    assert_eq!(write(&world, rekey("z", "b")).await.code(), "conflict");
    assert_eq!(write(&world, rekey("c", "d")).await.code(), "unsupported");
    assert_eq!(write(&world, rekey("z", "z")).await.ok()["code"], "z");
    let by_name = json!({"type": "update", "table": "tags", "where": {"name": "b"}, "data": {"code": "y", "name": "B"}});
    assert_eq!(
        write(&world, by_name).await.ok(),
        json!([{"code": "y", "name": "B"}])
    );
    let several = json!({"type": "update", "table": "tags", "where": {"code": {"in": ["y", "z"]}}, "data": {"code": "x"}});
    assert_eq!(write(&world, several).await.code(), "unsupported");
    let codes = "SELECT code FROM tags ORDER BY code";
    assert_eq!(world.legacy.texts(codes).await, ["c", "y", "z"]);
    assert_same(&world).await;
    nothing_is_owed(&world).await;
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
    world.storage.fault(&json!({"lost_reply_rate": 1.0})).await;
    let lost = ask(&world, remove("accounts", json!({"id": 1})), OP).await;
    assert_eq!(lost.code(), "outcome_unknown", "{}", lost.body);
    world.storage.heal().await;
    let found = eventually("its outcome is known", SOON, async || {
        let again = ask(&world, remove("accounts", json!({"id": 1})), OP).await;
        match again.status.is_success() {
            true => Ok(again.body),
            false => Err(again.body.to_string()),
        }
    })
    .await;
    assert_eq!(found, json!({"id": 1, "name": "one"}));
    assert_same(&world).await;
    nothing_is_owed(&world).await;

    write(&world, insert("tags", json!({"code": "a", "name": "A"})))
        .await
        .ok();
    world.storage.fault(&json!({"lost_reply_rate": 1.0})).await;
    let op = "0190b5a0-0000-7000-8000-0000000000ab";
    assert_eq!(
        ask(&world, rekey("a", "b"), op).await.code(),
        "outcome_unknown"
    );
    world.storage.heal().await;
    let found = eventually("its outcome is known", SOON, async || {
        let again = ask(&world, rekey("a", "b"), op).await;
        match again.status.is_success() {
            true => Ok(again.body),
            false => Err(again.body.to_string()),
        }
    })
    .await;
    assert_eq!(found, json!({"code": "b", "name": "A"}));
    assert_same(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_silences_no_trigger_ends_with_the_same_rows() {
    let world = World::build(options()).await;
    let plain = format!(
        "CREATE ROLE {role} LOGIN; DO $$ DECLARE t text; BEGIN \
         EXECUTE format('ALTER DATABASE %I OWNER TO {role}', current_database()); \
         FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP \
         EXECUTE format('ALTER TABLE %I OWNER TO {role}', t); END LOOP; END $$",
        role = "nobody_special"
    );
    world.legacy.execute(&plain).await;
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
    let tasks = json!([
        {"project": 10, "number": 1, "title": "first"},
        {"project": 10, "number": 2, "title": "second"},
        {"project": 11, "number": 1, "title": "third"},
        {"project": 20, "number": 1, "title": "other"},
    ]);
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
