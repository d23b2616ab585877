//! A removal and a child of its row at the same time, each stopped at the moment that matters: legacy's tables are
//! locked, so that a removal cannot finish reading, or a child that storage has cannot come to legacy.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fixture::{Answer, World, eventually};
use crate::relations::{assert_same, insert, live, nothing_is_owed, options, remove};

const SOON: Duration = Duration::from_secs(30);
/// A removal that reads this table waits, within its deadline.
const STOPS_READERS: (&str, &str, f64) = ("notes", "ACCESS EXCLUSIVE", 1.0);

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_comes_while_its_parent_goes_waits_and_finds_it_gone() {
    let world = family().await;
    let reader = locked(&world, STOPS_READERS).await;
    let writer = locked(&world, ("projects", "SHARE", 2.5)).await;
    let removal = ask(&world, remove("accounts", json!({"id": 2})));
    is_marked(&world, "accounts").await;
    let child = json!({"id": 20, "account": 2, "name": "late"});
    let child = ask(&world, insert("projects", child));
    removal.await.expect("no panic").ok();
    assert_eq!(child.await.expect("no panic").code(), "constraint");
    for lock in [reader, writer] {
        lock.await.expect("no panic");
    }
    ends_with(&world, &["10"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_storage_has_and_legacy_not_yet_is_waited_for_and_goes() {
    let world = family().await;
    let writer = locked(&world, ("projects", "SHARE", 1.0)).await;
    let child = json!({"id": 20, "account": 2, "name": "early"});
    let child = ask(&world, insert("projects", child));
    storage_has(&world, "projects WHERE id = 20").await;
    let removal = ask(&world, remove("accounts", json!({"id": 2})));
    child.await.expect("no panic").ok();
    removal.await.expect("no panic").ok();
    writer.await.expect("no panic");
    ends_with(&world, &["10"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grandchild_that_came_before_its_parent_was_marked_is_waited_for_and_goes() {
    let world = family().await;
    let reader = locked(&world, STOPS_READERS).await;
    let writer = locked(&world, ("tasks", "SHARE", 1.8)).await;
    let removal = ask(&world, remove("accounts", json!({"id": 1})));
    is_marked(&world, "accounts").await;
    let grandchild = json!({"project": 10, "number": 1, "title": "early"});
    let grandchild = ask(&world, insert("tasks", grandchild));
    storage_has(&world, "tasks").await;
    grandchild.await.expect("no panic").ok();
    removal.await.expect("no panic").ok();
    for lock in [reader, writer] {
        lock.await.expect("no panic");
    }
    ends_with(&world, &[]).await;
    assert_eq!(world.legacy.number("SELECT count(*) FROM tasks").await, 0);
}

/// Two accounts, of which the first has a project.
async fn family() -> World {
    let world = live(options(), true).await;
    for row in [
        json!({"id": 1, "name": "one"}),
        json!({"id": 2, "name": "two"}),
    ] {
        world.proxies[0].query(insert("accounts", row)).await.ok();
    }
    let project = json!({"id": 10, "account": 1, "name": "ten"});
    world.proxies[0]
        .query(insert("projects", project))
        .await
        .ok();
    world
}

fn ask(world: &World, query: Value) -> JoinHandle<Answer> {
    let door = world.proxies[0].door.clone();
    let body = json!({"db": "campaign_db", "query": query});
    tokio::spawn(async move { door.post("/v1/query", &body).await.expect("an answer") })
}

/// Locks a table of legacy for so many seconds, once it has the lock.
async fn locked(world: &World, (table, mode, seconds): (&str, &str, f64)) -> JoinHandle<()> {
    let sql =
        format!("BEGIN; LOCK TABLE {table} IN {mode} MODE; SELECT pg_sleep({seconds}); COMMIT");
    let legacy = world.legacy.clone();
    let lock = tokio::spawn(async move { legacy.execute(&sql).await });
    let held = format!(
        "SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND granted \
         AND mode = replace(initcap('{mode}'), ' ', '') || 'Lock'"
    );
    eventually("the table is locked", SOON, async || {
        let held = world.legacy.number(&held).await;
        (held > 0).then_some(()).ok_or(held)
    })
    .await;
    lock
}

async fn is_marked(world: &World, table: &str) {
    let marked = format!("SELECT count(*) FROM cutover.journal WHERE leaves AND tbl = '{table}'");
    eventually("the removal has begun", SOON, async || {
        let marked = world.legacy.number(&marked).await;
        (marked > 0).then_some(()).ok_or(marked)
    })
    .await;
}

async fn storage_has(world: &World, rows: &str) {
    let sql = format!("SELECT count(*) FROM {rows}");
    eventually("storage has it", SOON, async || {
        let rows = world.storage_database.number(&sql).await;
        (rows > 0).then_some(()).ok_or(rows)
    })
    .await;
}

/// Both sides are equal, and these projects are left.
async fn ends_with(world: &World, projects: &[&str]) {
    nothing_is_owed(world).await;
    assert_same(world).await;
    let left = world.legacy.texts("SELECT id::text FROM projects");
    assert_eq!(left.await, projects);
}
