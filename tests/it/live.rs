//! Writes in `live` that end otherwise than asked: legacy refuses what storage took, or storage's reply is
//! not the row that was written.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fixture::campaigns::{insert, key, rename, select};
use crate::fixture::{Answer, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
const OP: &str = "0190b5a0-0000-7000-8000-000000000001";
/// Legacy is stricter than storage: what storage takes, legacy may refuse.
const STRICTER: &str = "ALTER TABLE campaigns ADD CONSTRAINT short CHECK (length(name) < 10)";
const TOO_LONG: &str = "longer than ten";
const OPEN: &str = "SELECT count(*) FROM cutover.journal";

#[tokio::test(flavor = "multi_thread")]
async fn what_legacy_refuses_in_live_is_taken_back_from_storage_and_the_caller_hears_of_it() {
    let world = live(STRICTER).await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    let renamed = proxy.query(rename("one", TOO_LONG)).await;
    assert_eq!(renamed.code(), "constraint", "{}", renamed.body);
    assert_eq!(renamed.body["error"]["details"]["constraint"], "short");
    // Storage has legacy's row again by the time of the answer.
    world.assert_same_rows("campaigns").await;
    let row = proxy.query(select("one")).await.ok();
    assert_eq!(row[0]["name"], "Spring");

    let inserted = proxy.try_query(insert("two", TOO_LONG), Some(OP)).await;
    assert_eq!(inserted.unwrap().code(), "constraint");
    world.assert_same_rows("campaigns").await;
    let again = proxy.try_query(insert("two", TOO_LONG), Some(OP)).await;
    assert_eq!(again.unwrap().code(), "constraint");

    assert_eq!(world.legacy.number(OPEN).await, 0);
    let found = "SELECT count(*) FROM cutover.divergences WHERE kind = 'refused'";
    assert_eq!(world.legacy.number(found).await, 2);
    // The keys are free again.
    proxy.query(insert("two", "Autumn")).await.ok();
    world.assert_same_rows("campaigns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_whose_reply_was_lost_is_taken_back_by_the_resolver() {
    let world = live(STRICTER).await;
    let lost = json!({"lost_reply_rate": 1.0});
    world.storage.fault(&lost).await;
    let asked = ask(&world, insert("one", TOO_LONG));
    let in_storage = "SELECT count(*) FROM campaigns";
    eventually("storage has taken it", SOON, async || {
        let rows = world.storage_database.number(in_storage).await;
        (rows == 1).then_some(()).ok_or(rows)
    })
    .await;
    world.storage.heal().await;
    let answer = asked.await.expect("no panic");
    let codes = ["constraint", "outcome_unknown"];
    assert!(codes.contains(&answer.code()), "{}", answer.body);
    eventually("its outcome is known", SOON, async || {
        let again = world.proxies[0].try_query(insert("one", TOO_LONG), Some(OP));
        let again = again.await?;
        (again.code() == "constraint")
            .then_some(())
            .ok_or(again.body.to_string())
    })
    .await;
    world.assert_same_rows("campaigns").await;
    assert_eq!(world.storage_database.number(in_storage).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_value_that_another_write_is_about_to_let_go_of_is_not_refused() {
    let world = World::build(WorldOptions::default()).await;
    let unique = "CREATE UNIQUE INDEX names ON campaigns (name)";
    world.legacy.execute(unique).await;
    world.storage_database.execute(unique).await;
    world.advance_to("live").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();

    // The first write has left storage and hangs in legacy, before its step 5.
    let lock = format!(
        "BEGIN; SELECT 1 FROM campaigns WHERE id = '{}' FOR UPDATE; SELECT pg_sleep(1.0); COMMIT",
        key("one")
    );
    let legacy = world.legacy.clone();
    let lock = tokio::spawn(async move { legacy.execute(&lock).await });
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.0)%' \
                  AND wait_event = 'PgSleep' AND datname = current_database()";
    eventually("the row is locked", SOON, async || {
        let locked = world.legacy.number(locked).await;
        (locked >= 1).then_some(()).ok_or(locked)
    })
    .await;
    let first = ask_as(&world, rename("one", "Summer"), None);
    let renamed = "SELECT count(*) FROM campaigns WHERE name = 'Summer'";
    eventually("storage has let go of the name", SOON, async || {
        let renamed = world.storage_database.number(renamed).await;
        (renamed == 1).then_some(()).ok_or(renamed)
    })
    .await;
    let second = ask_as(&world, insert("two", "Spring"), None);
    second.await.expect("no panic").ok();
    first.await.expect("no panic").ok();
    lock.await.expect("no panic");
    world.assert_same_rows("campaigns").await;
    let found = "SELECT count(*) FROM cutover.divergences";
    assert_eq!(world.legacy.number(found).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_not_the_row_that_was_written_never_reaches_legacy() {
    let world = live("SELECT 1").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    let asked = lied_to(&world, rename("one", "Summer")).await;
    // Whatever storage says from now on, nobody asks it about this row any more.
    world.storage.heal().await;
    passed_over(&world).await;
    let names = "SELECT name FROM campaigns";
    assert_eq!(world.legacy.texts(names).await, ["Spring"]);
    world.proxies[0].rollback().await;
    world.proxies[0].reaches("dual_write", SOON).await;
    asked.await.expect("no panic");
    let again = world.proxies[0].try_query(rename("one", "Summer"), Some(OP));
    assert_eq!(again.await.unwrap().ok()["name"], "Summer");
    world.settles("campaigns", SOON).await;
    assert_eq!(world.storage_database.texts(names).await, ["Summer"]);
    let found = "SELECT count(*) FROM cutover.divergences WHERE kind = 'echo_mismatch'";
    assert_eq!(world.legacy.number(found).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_a_mismatch_by_believing_storage_or_by_letting_it_be() {
    for (act, name, outcome) in [
        ("retry", "Summer", ""),
        ("accept", "Spring", "outcome_unknown"),
    ] {
        let world = live("SELECT 1").await;
        world.proxies[0].query(insert("one", "Spring")).await.ok();
        let asked = lied_to(&world, rename("one", "Summer")).await;
        world.storage.heal().await;
        let seq = "SELECT seq FROM cutover.journal WHERE parked = 'mismatched'";
        let path = format!("/admin/journal/{}/{act}", world.legacy.number(seq).await);
        let reason = json!({"reason": "looked at it"});
        let done = world.proxies[0].admin().post(&path, &reason).await;
        done.unwrap().ok();
        asked.await.expect("no panic");
        eventually("it is over", SOON, async || {
            let open = world.legacy.number(OPEN).await;
            (open == 0).then_some(()).ok_or(open)
        })
        .await;
        let names = "SELECT name FROM campaigns";
        assert_eq!(world.legacy.texts(names).await, [name]);
        let again = world.proxies[0].try_query(rename("one", "Summer"), Some(OP));
        assert_eq!(again.await.unwrap().code(), outcome);
    }
}

/// A world in `live`, after `ddl` on legacy alone.
async fn live(ddl: &str) -> World {
    let world = World::build(WorldOptions::default()).await;
    world.legacy.execute(ddl).await;
    world.advance_to("live").await;
    world
}

/// Sends a query in the background, as the operation `OP`.
fn ask(world: &World, query: Value) -> JoinHandle<Answer> {
    ask_as(world, query, Some(OP))
}

fn ask_as(world: &World, query: Value, op_id: Option<&str>) -> JoinHandle<Answer> {
    let door = world.proxies[0].door.clone();
    let mut body = json!({"db": "campaign_db", "query": query});
    if let Some(op_id) = op_id {
        body["op_id"] = json!(op_id);
    }
    tokio::spawn(async move { door.post("/v1/query", &body).await.expect("an answer") })
}

/// Sends a query to which storage answers with another row, until that is noticed.
async fn lied_to(world: &World, query: Value) -> JoinHandle<Answer> {
    world.storage.fault(&json!({"corrupt_rate": 1.0})).await;
    let asked = ask(world, query);
    let marked = "SELECT count(*) FROM cutover.journal WHERE parked = 'mismatched'";
    eventually("the lie is noticed", SOON, async || {
        let marked = world.legacy.number(marked).await;
        (marked == 1).then_some(()).ok_or(marked)
    })
    .await;
    asked
}

/// Waits until the resolver would have taken the intent over, were it like any other.
async fn passed_over(world: &World) {
    let over =
        "SELECT count(*) FROM cutover.journal WHERE deadline_us + 1500000 < cutover.now_us()";
    eventually("its time is over", SOON, async || {
        let over = world.legacy.number(over).await;
        (over == 1).then_some(()).ok_or(over)
    })
    .await;
}
