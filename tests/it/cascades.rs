//! What storage's own foreign keys do in `ramp_down`: no reply tells of it, and legacy ends with the same rows,
//! without a verify.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fixture::{Answer, LegacyKind, World, WorldOptions, eventually};
use crate::relations::{self, insert, live, nothing_is_owed, remove};
use crate::storm::{Storm, assert_no_orphan, assert_told};

pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Every action, a foreign key of two columns, and one that does not point to a primary key.
const MORE: &str = "
CREATE TABLE comments (id integer PRIMARY KEY, project integer, number integer, body text,
  FOREIGN KEY (project, number) REFERENCES tasks ON DELETE CASCADE);
CREATE TABLE bills (id integer PRIMARY KEY, account integer DEFAULT 0 REFERENCES accounts ON DELETE SET DEFAULT);
CREATE TABLE teams (id integer PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE members (id integer PRIMARY KEY,
  team text REFERENCES teams (name) ON DELETE SET NULL ON UPDATE CASCADE);
";
const MORE_TABLES: [&str; 4] = ["comments", "bills", "teams", "members"];
/// Rows of one parent, more than are owed in one statement.
const MANY: u64 = 1_200;

fn options() -> WorldOptions {
    let more = MORE_TABLES.map(|table| format!("[[tables]]\nname = \"{table}\"\n"));
    let related = relations::options();
    WorldOptions {
        ddl: related.ddl.clone() + MORE,
        tables: related.tables.clone() + &more.concat(),
        ..related
    }
}

pub(crate) fn two_replicas() -> WorldOptions {
    WorldOptions {
        replicas: 2,
        ..options()
    }
}

pub(crate) async fn ramp_down(options: WorldOptions) -> World {
    let world = live(options, true).await;
    world.advance_to("ramp_down").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_a_removed_row_goes_from_legacy_at_any_depth() {
    let world = ramp_down(options()).await;
    goes_at_any_depth(&world).await;
    comes_back(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_whose_own_foreign_keys_fire_ends_with_the_same_rows() {
    let world = ramp_down(WorldOptions {
        legacy: LegacyKind::PlainRole,
        ..options()
    })
    .await;
    goes_at_any_depth(&world).await;
    follows_keys(&world).await;
    comes_back(&world).await;
}

async fn goes_at_any_depth(world: &World) {
    fill(world).await;
    paid(world).await;
    write(world, remove("accounts", json!({"id": 1}))).await;
    write(world, remove("folders", json!({"id": 1}))).await;
    write(world, remove("teams", json!({"id": 1}))).await;
    paid(world).await;
    let left = |sql: &'static str| world.legacy.texts(sql);
    assert_eq!(left("SELECT id::text FROM comments").await, ["2"]);
    assert_eq!(
        left("SELECT DISTINCT project::text FROM tasks").await,
        ["20"]
    );
    let bills = "SELECT concat_ws(' ', id, account) FROM bills ORDER BY id";
    assert_eq!(left(bills).await, ["1 0", "2 2"]);
    let notes = "SELECT concat_ws(' ', id, account, project) FROM notes ORDER BY id";
    assert_eq!(left(notes).await, ["1", "2 2 20"]);
    assert_eq!(left("SELECT id::text FROM folders").await, ["9"]);
    assert_eq!(
        left("SELECT id::text FROM members WHERE team IS NULL").await,
        ["1"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_of_sqlite_is_owed_what_goes_as_well() {
    let (world, legacy) = relations::live_on_sqlite().await;
    world.proxies[0].stage("ramp_down", true).await.ok();
    world.proxies[0].reaches("ramp_down", SOON).await;
    fill_related(&world).await;
    let as_in_storage = async || {
        for rows in relations::ROWS {
            eventually("legacy has what storage has", SOON, async || {
                let (held, stored) = relations::rows_beside_sqlite(&world, &legacy, rows).await;
                let same = held == stored;
                same.then_some(())
                    .ok_or(format!("{rows}: {held:?} {stored:?}"))
            })
            .await;
        }
    };
    as_in_storage().await;
    write(&world, remove("accounts", json!({"id": 1}))).await;
    write(&world, remove("projects", json!({"id": 20}))).await;
    as_in_storage().await;
    let left = "SELECT count(*) FROM tasks";
    assert_eq!(world.storage_database.number(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_changed_key_or_another_column_follows_it_in_legacy() {
    let world = ramp_down(options()).await;
    fill(&world).await;
    paid(&world).await;
    follows_keys(&world).await;
    comes_back(&world).await;
}

async fn follows_keys(world: &World) {
    write(world, insert("tags", json!({"code": "a", "name": "A"}))).await;
    write(
        world,
        insert(
            "labels",
            json!([{"id": 1, "tag": "a"}, {"id": 2, "tag": null}]),
        ),
    )
    .await;
    paid(world).await;
    write(
        world,
        set("tags", json!({"code": "a"}), json!({"code": "b"})),
    )
    .await;
    write(
        world,
        set("teams", json!({"id": 2}), json!({"name": "azure"})),
    )
    .await;
    paid(world).await;
    let labels = "SELECT concat_ws(' ', id, tag) FROM labels ORDER BY id";
    assert_eq!(world.legacy.texts(labels).await, ["1 b", "2"]);
    let teams = "SELECT team FROM members WHERE id = 2";
    assert_eq!(world.legacy.texts(teams).await, ["azure"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_with_a_row_that_is_there_again_goes_though_all_is_paid_at_once() {
    let world = ramp_down(options()).await;
    fill(&world).await;
    paid(&world).await;
    let paused = legacy_is_not_written(&world, 3.0).await;
    // The parent is taken along by another account than legacy knows of, and all of them are there again.
    write(
        &world,
        set("projects", json!({"id": 20}), json!({"account": 3})),
    )
    .await;
    for account in [1, 3] {
        write(&world, remove("accounts", json!({"id": account}))).await;
        let row = json!({"id": account, "name": "again"});
        write(&world, insert("accounts", row)).await;
    }
    for (id, account) in [(10, 1), (20, 2)] {
        write(
            &world,
            upsert(
                "projects",
                json!({"id": id, "account": account, "name": "project"}),
            ),
        )
        .await;
    }
    // Never in legacy before it was taken along.
    let folders = [(30, None), (31, Some(30)), (32, Some(31))];
    for (id, parent) in folders {
        folder(&world, id, parent).await;
    }
    write(&world, remove("folders", json!({"id": 30}))).await;
    for &(id, parent) in &folders[..2] {
        folder(&world, id, parent).await;
    }
    paused.await.expect("no panic");
    paid(&world).await;
    assert_eq!(world.legacy.number("SELECT count(*) FROM tasks").await, 0);
    comes_back(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_was_read_before_its_parent_went_and_came_back_is_read_again() {
    let world = ramp_down(options()).await;
    fill(&world).await;
    paid(&world).await;
    // For less than a claim lasts: else another one reads it anew anyway.
    let lock = locked(&world, "comments IN ACCESS EXCLUSIVE MODE", 1.2).await;
    lock_is(
        &world,
        "granted AND mode = 'AccessExclusiveLock' AND relation = 'comments'::regclass",
    )
    .await;
    // Its payment has read it, and is kept from looking at what hangs on a row that may have left before.
    let task = json!({"project": 10, "number": 9, "title": "late"});
    let members = [
        insert("tasks", task.clone()),
        remove("tasks", json!({"project": 10, "number": 9})),
        insert("tasks", task),
    ];
    write(&world, json!({"type": "transaction", "queries": members})).await;
    lock_is(&world, "NOT granted AND relation = 'comments'::regclass").await;
    write(&world, remove("projects", json!({"id": 10}))).await;
    let project = json!({"id": 10, "account": 1, "name": "again"});
    write(&world, insert("projects", project)).await;
    lock.await.expect("no panic");
    paid(&world).await;
    let left = "SELECT count(*) FROM tasks WHERE project = 10";
    assert_eq!(world.legacy.number(left).await, 0);
    comes_back(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn circles_end_and_a_removal_of_a_row_that_very_many_hang_on_is_paid() {
    let world = ramp_down(options()).await;
    for (id, parent) in [(1, None), (2, Some(1)), (3, Some(2)), (6, Some(6))] {
        folder(&world, id, parent).await;
    }
    write(
        &world,
        set("folders", json!({"id": 1}), json!({"parent": 3})),
    )
    .await;
    write(&world, insert("accounts", json!({"id": 1, "name": "one"}))).await;
    let projects: Vec<Value> = (0..MANY)
        .map(|id| json!({"id": id, "account": 1, "name": "many"}))
        .collect();
    for some in projects.chunks(600) {
        write(&world, insert("projects", json!(some))).await;
    }
    paid(&world).await;
    write(&world, remove("folders", json!({"id": 2}))).await;
    write(&world, remove("folders", json!({"id": 6}))).await;
    write(&world, remove("accounts", json!({"id": 1}))).await;
    // A circle that is there again as it was is looked at once.
    for (id, parent) in [(1, None), (2, Some(1)), (3, Some(2))] {
        folder(&world, id, parent).await;
    }
    write(
        &world,
        set("folders", json!({"id": 1}), json!({"parent": 3})),
    )
    .await;
    paid(&world).await;
    assert_eq!(
        world.legacy.number("SELECT count(*) FROM projects").await,
        0
    );
    comes_back(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_where_no_key_of_legacy_leads_make_it_stale() {
    let world = ramp_down(options()).await;
    write(&world, insert("tags", json!({"code": "a", "name": "A"}))).await;
    write(
        &world,
        set("tags", json!({"name": "A"}), json!({"code": "b"})),
    )
    .await;
    eventually("legacy is known to be stale", SOON, async || {
        let status = world.proxies[0].status().await;
        let blockers = status["rollback"]["blockers"].to_string();
        blockers
            .contains("legacy_stale")
            .then_some(())
            .ok_or(blockers)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_come_beside_removals_of_their_parents_end_alike_on_both_sides() {
    let world = ramp_down(two_replicas()).await;
    let storm = Storm::start(&world, &world.proxies).await;
    storm.goes_on().await;
    // What was put off is paid as one.
    legacy_is_not_written(&world, 3.0)
        .await
        .await
        .expect("no panic");
    storm.goes_on().await;
    let told = storm.stop().await;
    paid(&world).await;
    assert_told(&world, &told).await;
    comes_back(&world).await;
    assert_no_orphan(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_while_it_pays_leaves_nothing_unpaid() {
    let mut world = ramp_down(two_replicas()).await;
    // It only pays: what a replica took and did not write down dies with it, and makes legacy stale.
    let storm = Storm::start(&world, &world.proxies[1..]).await;
    for _ in 0..2 {
        storm.goes_on().await;
        world.proxies[0].process.kill();
        storm.goes_on().await;
        world.proxies[0].restart().await;
    }
    let told = storm.stop().await;
    paid(&world).await;
    assert_told(&world, &told).await;
    assert_no_orphan(&world).await;
}

/// Accounts with all that may hang on them, of which the first is for removing.
async fn fill_related(world: &World) {
    let accounts = [(0, "none"), (1, "one"), (2, "two"), (3, "three")];
    let accounts = accounts.map(|(id, name)| json!({"id": id, "name": name}));
    write(world, insert("accounts", json!(accounts))).await;
    let projects = [(10, 1), (11, 1), (20, 2)];
    let projects =
        projects.map(|(id, account)| json!({"id": id, "account": account, "name": "project"}));
    write(world, insert("projects", json!(projects))).await;
    let tasks = [(10, 1), (10, 2), (11, 1), (20, 1)];
    let tasks = tasks
        .map(|(project, number)| json!({"project": project, "number": number, "title": "task"}));
    write(world, insert("tasks", json!(tasks))).await;
    let notes =
        json!([{"id": 1, "account": 1, "project": 10}, {"id": 2, "account": 2, "project": 20}]);
    write(world, insert("notes", notes)).await;
    for (id, parent) in [(1, None), (2, Some(1)), (3, Some(2)), (9, None)] {
        folder(world, id, parent).await;
    }
}

pub(crate) async fn fill(world: &World) {
    fill_related(world).await;
    let comments = [(1, 10, 2), (2, 20, 1)];
    let comments = comments.map(|(id, project, number)| json!({"id": id, "project": project, "number": number, "body": "comment"}));
    write(world, insert("comments", json!(comments))).await;
    let bills = json!([{"id": 1, "account": 1}, {"id": 2, "account": 2}]);
    write(world, insert("bills", bills)).await;
    let teams = json!([{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]);
    write(world, insert("teams", teams)).await;
    let members = json!([{"id": 1, "team": "red"}, {"id": 2, "team": "blue"}]);
    write(world, insert("members", members)).await;
}

pub(crate) fn set(table: &str, filter: Value, data: Value) -> Value {
    json!({"type": "update", "table": table, "where": filter, "data": data})
}

pub(crate) fn upsert(table: &str, data: Value) -> Value {
    json!({"type": "upsert", "table": table, "data": data})
}

async fn folder(world: &World, id: u64, parent: Option<u64>) {
    let row = json!({"id": id, "parent": parent, "name": "folder"});
    write(world, insert("folders", row)).await;
}

async fn write(world: &World, query: Value) {
    let answer: Answer = world.proxies[0].query(query).await;
    answer.ok();
}

/// Keeps what is owed from being paid for so many seconds, once it does.
async fn legacy_is_not_written(world: &World, seconds: f64) -> JoinHandle<()> {
    let tables = "accounts, projects, tasks, notes, folders IN SHARE MODE";
    let lock = locked(world, tables, seconds).await;
    lock_is(
        world,
        "granted AND mode = 'ShareLock' AND relation = 'folders'::regclass",
    )
    .await;
    lock
}

pub(crate) async fn locked(world: &World, tables: &str, seconds: f64) -> JoinHandle<()> {
    let sql = format!("BEGIN; LOCK TABLE {tables}; SELECT pg_sleep({seconds}); COMMIT");
    let legacy = world.legacy.clone();
    tokio::spawn(async move { legacy.execute(&sql).await })
}

async fn lock_is(world: &World, which: &str) {
    let sql = format!("SELECT count(*) FROM pg_locks WHERE {which}");
    eventually("there is such a lock", SOON, async || {
        let found = world.legacy.number(&sql).await;
        (found > 0).then_some(()).ok_or(found)
    })
    .await;
}

/// Waits until legacy has all that storage has: what is owed may not be written down yet.
pub(crate) async fn paid(world: &World) {
    for table in relations::TABLES.iter().chain(&MORE_TABLES) {
        world.settles(table, SOON).await;
    }
    nothing_is_owed(world).await;
}

async fn same(world: &World) {
    for table in relations::TABLES.iter().chain(&MORE_TABLES) {
        world.assert_same_rows(table).await;
    }
}

/// Legacy is the authority again, and has what storage had.
pub(crate) async fn comes_back(world: &World) {
    eventually("the way back is drained", SOON, async || {
        let back = world.proxies[0].rollback().await;
        back.status.is_success().then_some(()).ok_or(back.body)
    })
    .await;
    nothing_is_owed(world).await;
    same(world).await;
}
