//! The gate: who holds it up, who must not, and a rollback that does not give up because of it.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row as _;

use crate::fixture::campaigns::{insert, key, rename, select};
use crate::fixture::{HttpClient, Stranger, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
/// Longer than a transition that does not insist tries for, and than one of the proxy's sessions may rest.
const ENDED_BY_THE_DATABASE: &str = "7s";

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_names_the_session_that_holds_the_gate_and_happens_once_that_is_gone() {
    let world = World::build(WorldOptions::default()).await;
    rolls_back_in_the_end(&world, &["rollback", "--reason", "test"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_in_the_database_itself_insists_as_well() {
    let world = World::build(WorldOptions::default()).await;
    let url = world.legacy.url.clone();
    let args = ["rollback", "--reason", "test", "--database", &url];
    rolls_back_in_the_end(&world, &args).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_stranger_keeps_locked_holds_up_no_transition() {
    kept_locked("one write", |name| rename("one", name)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_waits_for_a_locked_row_after_it_wrote_another_holds_up_no_transition() {
    // The second step waits; the first has been through the trigger by then.
    kept_locked("a transaction", |name| {
        json!({"type": "transaction", "queries": [rename("two", name), rename("one", name)]})
    })
    .await;
}

/// Somebody holds the gate in a transaction that rests until PostgreSQL ends it, as it ends that of a replica
/// that froze in the middle of a commit.
async fn rolls_back_in_the_end(world: &World, args: &[&str]) {
    world.advance_to("live").await;
    let proxy = &world.proxies[0];
    proxy.query(insert("one", "Spring")).await.ok();
    let mut holder = Stranger::begin(&world.legacy.url, ENDED_BY_THE_DATABASE).await;
    let pid: i32 = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT pg_backend_pid() FROM pg_advisory_xact_lock_shared({})",
        cutover::journal::GATE_LOCK
    )))
    .fetch_one(&mut holder.session)
    .await
    .expect("the gate is open")
    .get(0);

    let (status, said) = proxy.operate(args).await;
    assert!(status.success(), "{said}");
    let named =
        format!("waiting for the gate, which is held by pid {pid} (nightly report, idle in");
    assert!(said.contains(&named), "{said}");
    proxy.reaches("dual_write", SOON).await;
    let read = proxy.query(select("one")).await;
    assert_eq!(read.ok()[0]["name"], "Spring");
    let status = proxy.status().await;
    assert_eq!(status["gate_held_by"], json!([]), "{status}");
}

/// An advance and a rollback while a stranger keeps a row locked that a writer waits for: neither waits for
/// him, and the writer's change is done in the end.
async fn kept_locked(what: &str, change: fn(&str) -> Value) {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("shadow").await;
    let proxy = &world.proxies[0];
    for row in ["one", "two"] {
        proxy.query(insert(row, "Spring")).await.ok();
    }
    world.settles("campaigns", SOON).await;
    world.verified().await;
    let mut stranger = Stranger::begin(&world.legacy.url, "0").await;
    let lock = format!(
        "SELECT 1 FROM campaigns WHERE id = '{}' FOR UPDATE",
        key("one")
    );
    stranger.run(&lock).await;

    let writer = tokio::spawn(write_until_done(proxy.door.clone(), change("Summer")));
    waits_for_the_row(&world).await;
    let advanced = proxy.stage("live", true).await.ok();
    println!(
        "{what}: an advance paused writers for {}",
        advanced["pause_ms"]
    );
    // Storage has taken it, and step 5 waits for the stranger.
    eventually("an intent is open", SOON, async || {
        let open = "SELECT count(*) FROM cutover.journal WHERE kind = 'intent'";
        let open = world.legacy.number(open).await;
        (open > 0).then_some(()).ok_or(open)
    })
    .await;
    waits_for_the_row(&world).await;
    let back = proxy.rollback().await.ok();
    println!("{what}: a rollback paused writers for {}", back["pause_ms"]);
    assert!(!writer.is_finished(), "the stranger still holds the row");

    stranger.run("COMMIT").await;
    let written = tokio::time::timeout(SOON, writer).await;
    written.expect("in time").expect("a writer ends well");
    let read = proxy.query(select("one")).await;
    assert_eq!(read.ok()[0]["name"], "Summer");
    world.settles("campaigns", SOON).await;
}

/// Waits until a session of the proxy's waits for a lock on a row, and not for the gate.
async fn waits_for_the_row(world: &World) {
    eventually("the writer waits for the row", SOON, async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cutover'
            AND datname = current_database() AND wait_event_type = 'Lock' AND wait_event <> 'advisory'";
        let waiting = world.legacy.number(waiting).await;
        (waiting > 0).then_some(()).ok_or(waiting)
    })
    .await;
}

/// Repeats a write under one operation id until it is acknowledged.
async fn write_until_done(door: HttpClient, query: Value) {
    let op_id = uuid::Uuid::new_v4().to_string();
    let body = json!({"db": "campaign_db", "query": query, "op_id": op_id});
    loop {
        match door.post("/v1/query", &body).await {
            Ok(answer) if answer.status.is_success() => return,
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
