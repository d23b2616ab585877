//! Rows that storage's foreign keys took along in `ramp_down` and that callers create again before legacy's journal
//! knows of the removal: what hung on them goes from legacy all the same.

use serde_json::{Value, json};

use crate::cascades::{SOON, comes_back, fill, locked, paid, ramp_down, set, two_replicas, upsert};
use crate::fixture::{World, eventually};
use crate::relations::{insert, remove};

/// What callers' writes owe of the tables in `holds` is not written down meanwhile.
const HOLDS: &str = "
CREATE TABLE holds (tbl text);
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  WHILE EXISTS (SELECT 1 FROM public.holds WHERE tbl = NEW.tbl) LOOP PERFORM pg_sleep(0.01); END LOOP;
  RETURN NEW;
END $$;
CREATE TRIGGER hold BEFORE INSERT ON cutover.journal FOR EACH ROW
  WHEN (NEW.op_id IS NOT NULL) EXECUTE FUNCTION hold();
";

#[tokio::test(flavor = "multi_thread")]
async fn at_any_replica_and_at_any_depth() {
    let world = filled().await;
    hold(&world, "accounts").await;
    write(&world, 0, remove("accounts", json!({"id": 1}))).await;
    let project = |id| json!({"id": id, "account": 2, "name": "again"});
    write(&world, 0, upsert("projects", project(10))).await;
    write(&world, 1, insert("projects", project(11))).await;
    let task = json!({"project": 10, "number": 2, "title": "again"});
    write(&world, 1, insert("tasks", task)).await;
    let again = "SELECT (SELECT count(*) FROM projects WHERE name = 'again') \
                 + (SELECT count(*) FROM tasks WHERE title = 'again')";
    legacy_has(&world, again, 3).await;
    let stale = "SELECT count(*) FROM tasks WHERE project IN (10, 11)";
    assert_eq!(world.legacy.number(stale).await, 3, "nobody looked yet");
    release(&world).await;
    paid(&world).await;
    comes_back(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn though_they_refer_to_what_legacy_knew_before() {
    let world = filled().await;
    hold(&world, "accounts").await;
    let lock = locked(&world, "projects IN SHARE MODE", 1.0).await;
    moves_is_taken_along_and_comes_back(&world).await;
    lock.await.expect("no panic");
    let owed = "SELECT count(*) FROM cutover.journal WHERE tbl = 'projects'";
    legacy_has(&world, owed, 0).await;
    release(&world).await;
    paid(&world).await;
    comes_back(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn though_they_are_written_down_after_the_removal_was_followed() {
    let world = filled().await;
    hold(&world, "projects").await;
    moves_is_taken_along_and_comes_back(&world).await;
    legacy_has(&world, "SELECT count(*) FROM accounts WHERE id = 3", 0).await;
    release(&world).await;
    paid(&world).await;
    comes_back(&world).await;
}

/// A project of an account by way of another one, of which legacy learns nothing.
async fn moves_is_taken_along_and_comes_back(world: &World) {
    let moved = set("projects", json!({"id": 20}), json!({"account": 3}));
    write(world, 0, moved).await;
    write(world, 0, remove("accounts", json!({"id": 3}))).await;
    let project = json!({"id": 20, "account": 2, "name": "again"});
    write(world, 1, insert("projects", project)).await;
}

async fn filled() -> World {
    let world = ramp_down(two_replicas()).await;
    fill(&world).await;
    paid(&world).await;
    world.legacy.execute(HOLDS).await;
    world
}

async fn hold(world: &World, table: &str) {
    let held = format!("INSERT INTO holds VALUES ('{table}')");
    world.legacy.execute(&held).await;
}

async fn release(world: &World) {
    world.legacy.execute("DELETE FROM holds").await;
}

async fn write(world: &World, replica: usize, query: Value) {
    world.proxies[replica].query(query).await.ok();
}

async fn legacy_has(world: &World, count: &str, wanted: i64) {
    eventually("legacy was paid", SOON, async || {
        let found = world.legacy.number(count).await;
        (found == wanted).then_some(()).ok_or(found)
    })
    .await;
}
