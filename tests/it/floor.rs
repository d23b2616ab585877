//! The floor of the journal: what is below it is never read again, so it must never be too high; and while somebody
//! keeps PostgreSQL from clearing away what was settled, it is what keeps the journal quick.

use std::time::Duration;

use cutover::contract::Key;
use cutover::journal::{FLOOR, Sounding, is_owed};
use cutover::sql::{Db, PoolOptions};
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::fixture::campaigns::{insert, key};
use crate::fixture::{Stranger, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
/// Rows written at once: more than a floor is raised by at least.
const ROWS: usize = 150;
/// The last number that was given to an entry.
const LAST: &str = "SELECT last_value FROM cutover.journal_seq_seq";

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_committed_late_is_paid_though_all_after_it_were_settled() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    world.settles("campaigns", SOON).await;

    let mut stranger = Stranger::begin(&world.legacy.url, "0").await;
    let late = format!(
        "UPDATE campaigns SET name = 'late' WHERE id = '{}'",
        key("one")
    );
    stranger.run(&late).await;
    let number: i64 = sqlx::query("SELECT max(seq) FROM cutover.journal")
        .fetch_one(&mut stranger.session)
        .await
        .expect("its own entry")
        .get(0);
    let (db, mut sounding) = (open(&world), Sounding::default());
    for _ in 0..3 {
        write_and_settle(&world).await;
        sounding.look(&db).await.expect("a look");
    }
    assert!(floor(&world).await <= number, "its entry may yet turn up");

    stranger.run("COMMIT").await;
    world.settles("campaigns", SOON).await;
    rises_above(&world, number, &db, &mut sounding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_stranger_keeps_locked_does_not_keep_the_floor_down() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    let mut stranger = Stranger::begin(&world.legacy.url, "0").await;
    stranger.run("SELECT 1 FROM campaigns FOR UPDATE").await;
    write_and_settle(&world).await;
    let last = world.legacy.number(LAST).await;
    rises_above(&world, last, &open(&world), &mut Sounding::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_whose_numbers_somebody_set_back_are_paid() {
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    // What is written after that does not reach it.
    let reached = 2 * i64::try_from(ROWS).expect("a few");
    rises_above(&world, reached, &open(&world), &mut Sounding::default()).await;
    let restart = "ALTER SEQUENCE cutover.journal_seq_seq RESTART";
    world.legacy.execute(restart).await;
    write_and_settle(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_by_key_does_not_step_over_what_was_settled_of_the_key_below_the_floor() {
    const WRITES: i64 = 500;
    const LOOKS: i64 = 50;
    let world = World::build(WorldOptions::default()).await;
    world.advance_to("dual_write").await;
    for name in ["one", "two"] {
        world.proxies[0].query(insert(name, "Spring")).await.ok();
    }
    let (written, locked) = (key("one"), key("two"));
    let mut stranger = Stranger::begin(&world.legacy.url, "0").await;
    let lock = format!("SELECT 1 FROM campaigns WHERE id = '{locked}' FOR UPDATE");
    stranger.run(&lock).await;
    let write = format!(
        "DO $$ BEGIN FOR i IN 1..{WRITES} LOOP \
         UPDATE campaigns SET name = 'name ' || i WHERE id = '{written}'; END LOOP; END $$"
    );
    world.legacy.execute(&write).await;
    world.settles("campaigns", SOON).await;
    let db = open(&world);
    let last = world.legacy.number(LAST).await;
    rises_above(&world, last, &db, &mut Sounding::default()).await;

    let written = Key(json!([written]).to_string());
    let before = read_by_key(&db).await;
    for _ in 0..LOOKS {
        let owed = is_owed(&db, "campaigns", Some(&written)).await;
        assert!(!owed.expect("a look"));
    }
    let read = read_by_key(&db).await - before;
    // The proxy's own looks while the rows were written may be counted late.
    assert!(read < LOOKS * WRITES / 2, "{read} entries were read");
    drop(stranger);
}

/// How many entries were read by the index of keys; what this session read is counted at once.
async fn read_by_key(db: &Db) -> i64 {
    let flush = "SELECT pg_stat_force_next_flush()::text";
    db.fetch(flush, vec![]).await.expect("PostgreSQL 15");
    let read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'journal_key'";
    let rows = db.fetch(read, vec![]).await.expect("statistics");
    rows[0].some_int(0).expect("a number")
}

/// Writes rows and waits until they are paid.
async fn write_and_settle(world: &World) {
    let rows: Vec<Value> = (0..ROWS)
        .map(|number| json!({"id": uuid::Uuid::new_v4().to_string(), "name": format!("row {number}")}))
        .collect();
    let insert = json!({"type": "insert", "table": "campaigns", "data": rows});
    world.proxies[0].query(insert).await.ok();
    world.settles("campaigns", SOON).await;
}

/// Looks until the floor is above this number, while more is written.
async fn rises_above(world: &World, number: i64, db: &Db, sounding: &mut Sounding) {
    eventually("the floor is above it", SOON, async || {
        write_and_settle(world).await;
        sounding.look(db).await.expect("a look");
        let floor = floor(world).await;
        (floor > number).then_some(()).ok_or(floor)
    })
    .await;
}

async fn floor(world: &World) -> i64 {
    world.legacy.number(&format!("SELECT {FLOOR}")).await
}

fn open(world: &World) -> Db {
    let options = PoolOptions {
        connections_max: 1,
        ..PoolOptions::default()
    };
    Db::open(&world.legacy.url, &options).expect("a URL")
}
