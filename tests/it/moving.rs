//! Moving old rows: a schema that was not made for us, under traffic, with replicas that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Database, World, WorldOptions, eventually, shop};

const LONG: Duration = Duration::from_secs(180);
/// Orders in the shop, and ten events for each, unless `CUTOVER_TEST_ORDERS` says how many.
const ORDERS: u32 = 400;
/// As many take [`LONG`] at most.
const ORDERS_IN_LONG: u32 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn eighteen_tables_are_moved_under_traffic_though_replicas_are_killed_three_times() {
    let orders = std::env::var("CUTOVER_TEST_ORDERS");
    let orders = orders.map_or(ORDERS, |orders| orders.parse().unwrap());
    let long = LONG * orders.div_ceil(ORDERS_IN_LONG);
    // Few rows are moved slowly, so that a replica can be killed on the way.
    let slowly = "[backfill]\nwindow = 500\nrate = 2000\n[applier]\nbatch = 20\nconcurrency = 2\n";
    let mut world = World::build(WorldOptions {
        replicas: 2,
        ddl: format!("{}\n{}", shop::DDL, shop::rows(orders)),
        tables: shop::config(),
        config: match orders {
            ORDERS => slowly.to_owned(),
            _ => String::new(),
        },
        ..WorldOptions::default()
    })
    .await;
    let (status, said) = world.proxies[0].operate(&["schema", "--diff"]).await;
    assert!(status.success(), "what `schema` prints is no drift: {said}");
    world.advance_to("dual_write").await;
    let (stop, writing) = write_meanwhile(&world.legacy);

    let path = first_fill(&world).await;
    for round in 1..=3 {
        eventually("the next quarter is owed", long, async || {
            let job = job(&world, &path, 0).await;
            let (owed, total) = (count(&job, "rows"), count(&job, "total"));
            let on = total > 0 && 4 * owed >= round * total;
            on.then_some(()).ok_or(job)
        })
        .await;
        // Whichever works on it.
        let proxy = &mut world.proxies[usize::from(round % 2 == 1)];
        proxy.process.kill();
        proxy.restart().await;
    }
    eventually("the backfill is done", long, async || {
        filled(&world, &path, 1).await
    })
    .await;
    let meanwhile = verify(&world, false, long).await;
    assert_eq!(meanwhile["clean"], true, "{meanwhile:#}");
    stop.store(true, Ordering::Relaxed);
    let writes = writing.await.unwrap();
    assert!(writes > 100, "{writes} writes meanwhile");
    for table in shop::TABLES {
        world.settles(table, long).await;
    }
    let report = verify(&world, false, long).await;
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["recorded"], true, "{report:#}");

    keys_are_made_on_both_sides(&world, long).await;
}

/// Written before the row that it refers to was filled, and more hangs on it than a cycle may take along.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_parent_is_yet_to_be_filled_is_not_given_up_however_much_hangs_on_it() {
    let ddl = "CREATE TABLE a (id int PRIMARY KEY);
        CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a, note text);
        CREATE TABLE c (id int PRIMARY KEY, b int NOT NULL REFERENCES b ON DELETE CASCADE);";
    let rows = "INSERT INTO a SELECT generate_series(1, 300);
        INSERT INTO b VALUES (1, 300, 'old');
        INSERT INTO c SELECT i, 1 FROM generate_series(1, 1200) i;";
    let world = World::build(WorldOptions {
        ddl: format!("{ddl}\n{rows}"),
        tables: "[[tables]]\nname = \"a\"\n[[tables]]\nname = \"b\"\n[[tables]]\nname = \"c\"\n"
            .to_owned(),
        config: "[backfill]\nrate = 100\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    let write = "UPDATE b SET note = note || '!'";
    world.legacy.execute(write).await;
    let tried = "SELECT coalesce(max(attempts), 0) FROM cutover.journal WHERE tbl = 'b'";
    eventually("it is tried again and again", LONG, async || {
        let tried = world.legacy.number(tried).await;
        (tried > 3).then_some(()).ok_or(tried)
    })
    .await;
    let path = first_fill(&world).await;
    let given_up = "SELECT count(*) FROM cutover.journal WHERE parked = 'quarantined'";
    eventually("the backfill is done", LONG, async || {
        assert_eq!(world.legacy.number(given_up).await, 0);
        world.legacy.execute(write).await;
        filled(&world, &path, 0).await
    })
    .await;
    let report = verify(&world, false, LONG).await;
    assert_eq!(report["clean"], true, "{report:#}");
}

/// They are tried again and again until their parents are filled; no round of that may go on for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_drains_though_it_owes_thousands_of_rows_that_nobody_can_pay_yet() {
    let ddl = "CREATE TABLE a (id int PRIMARY KEY);
        CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a);
        INSERT INTO a VALUES (1);";
    let mut world = World::build(WorldOptions {
        ddl: ddl.to_owned(),
        tables: "[[tables]]\nname = \"a\"\n[[tables]]\nname = \"b\"\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    let write = "INSERT INTO b SELECT i, 1 FROM generate_series(1, 2000) i";
    world.legacy.execute(write).await;
    let once = "SELECT count(*) FROM cutover.journal WHERE attempts < 2";
    eventually("each was tried more than once", LONG, async || {
        let once = world.legacy.number(once).await;
        (once == 0).then_some(()).ok_or(once)
    })
    .await;
    let drained = world.proxies[0].process.terminate(LONG).await;
    assert!(drained.success(), "{drained}");
    assert_eq!(
        world
            .legacy
            .number("SELECT count(*) FROM cutover.journal")
            .await,
        2000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_storage_will_never_take_are_given_up_however_many_they_are() {
    let world = World::build(WorldOptions {
        ddl: "CREATE TABLE a (id int PRIMARY KEY, n int NOT NULL);".to_owned(),
        tables: "[[tables]]\nname = \"a\"\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    let path = first_fill(&world).await;
    eventually("the backfill is done", LONG, async || {
        filled(&world, &path, 0).await
    })
    .await;
    let stricter = "ALTER TABLE a ADD CHECK (n > 0)";
    world.storage_database.execute(stricter).await;
    let write = "INSERT INTO a SELECT i, 0 FROM generate_series(1, 1500) i";
    world.legacy.execute(write).await;
    let given_up = "SELECT count(*) FROM cutover.journal WHERE parked = 'quarantined'";
    eventually("all are given up", LONG, async || {
        let given_up = world.legacy.number(given_up).await;
        (given_up == 1500).then_some(()).ok_or(given_up)
    })
    .await;
}

/// After an advance and a rollback, inserts without a key go on.
async fn keys_are_made_on_both_sides(world: &World, long: Duration) {
    world.advance_to("live").await;
    // Keys that nobody gives, of a serial and of an identity.
    let keyless = [
        json!({"type": "insert", "table": "events", "data": {"kind": "by the door"}}),
        json!({"type": "insert", "table": "products", "data": {"name": "by the door", "price": 1}}),
    ];
    for query in &keyless {
        world.proxies[0].query(query.clone()).await.ok();
    }
    world.proxies[0].rollback().await.ok();
    for query in keyless {
        world.proxies[0].query(query).await.ok();
    }
    let past_the_proxy = "INSERT INTO events (kind) VALUES ('past the proxy'); \
                          INSERT INTO products (name, price) VALUES ('past the proxy', 1)";
    world.legacy.execute(past_the_proxy).await;
    for table in ["events", "products"] {
        world.settles(table, long).await;
    }
}

/// Bystanders that insert, change and delete the same rows as the backfill owes, until they are stopped.
fn write_meanwhile(legacy: &Database) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u32>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, legacy) = (Arc::clone(&stop), legacy.clone());
    let writing = tokio::spawn(async move {
        let mut round = 0;
        while !stopped.load(Ordering::Relaxed) {
            round += 1;
            let i = round % 300;
            // Refused where the other statements left nothing to act on: that is as good a bystander.
            for sql in [
                format!(
                    "UPDATE events SET kind = 'changed {round}' WHERE id BETWEEN {i} * 10 AND {i} * 10 + 3"
                ),
                format!("DELETE FROM events WHERE id = {i} * 7"),
                format!("INSERT INTO events (id, kind) VALUES ({i} * 7, 'again {round}')"),
                "INSERT INTO events (kind) VALUES ('new')".to_owned(),
                format!("UPDATE products SET price = price + 1 WHERE id = 1000 + 5 * ({i} % 100)"),
                format!(
                    "UPDATE stock SET pieces = {round} WHERE shelf = 'ä' AND product = 1000 + 5 * ({i} % 100)"
                ),
                format!(
                    "UPDATE customers SET deleted_at = now(), version = version + 1 WHERE mail LIKE 'c{i}@%'"
                ),
                format!("DELETE FROM shipment_lines WHERE shipment = {i}"),
                format!("DELETE FROM payments WHERE invoice = {i}"),
            ] {
                legacy.try_execute(&sql).await.ok();
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        round * 9
    });
    (stop, writing)
}

async fn verify(world: &World, repair: bool, long: Duration) -> Value {
    let admin = world.proxies[0].admin();
    let body = json!({"repair": repair, "reason": "a look"});
    let started = admin.post("/admin/verify", &body).await.unwrap().ok();
    let path = format!("/admin/jobs/{}", started["id"].as_str().unwrap());
    let mut ended = Value::Null;
    eventually("the verify ends", long, async || {
        let job = job(world, &path, 0).await;
        let running = job["state"] == "running";
        ended = job;
        (!running).then_some(()).ok_or("it runs")
    })
    .await;
    assert_eq!(ended["state"], "done", "{ended:#}");
    ended["result"].take()
}

/// Begins to fill storage; returns the job's path.
async fn first_fill(world: &World) -> String {
    let admin = world.proxies[0].admin();
    let body = json!({"reason": "first fill"});
    let begun = admin.post("/admin/backfill", &body).await.unwrap().ok();
    format!("/admin/jobs/{}", begun["id"].as_str().unwrap())
}

async fn filled(world: &World, path: &str, proxy: usize) -> Result<(), Value> {
    let job = job(world, path, proxy).await;
    (job["state"] == "done").then_some(()).ok_or(job)
}

async fn job(world: &World, path: &str, proxy: usize) -> Value {
    let answer = world.proxies[proxy].admin().get(path).await;
    answer.expect("the proxy answers").ok()
}

fn count(job: &Value, of: &str) -> u64 {
    job[of].as_u64().unwrap_or(0)
}
