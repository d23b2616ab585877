//! Verifies that go on beside everything else: by themselves, on one replica of several, and under writers that
//! never stop.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::campaigns::key;
use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::load::Load;
use crate::fixture::{Database, HttpClient, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(60);
/// Verifies of one run under writers.
const VERIFIES: u32 = 12;
/// Of the writers that do more than the load does: they are to be met, not to be the load.
const BETWEEN_WRITES: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread")]
async fn one_that_begins_by_itself_is_seen_on_all_replicas_makes_way_and_outlives_its_replica() {
    let mut world = World::build(WorldOptions {
        replicas: 2,
        config: "[verify]\ninterval = \"1s\"\nrate = 200\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    filled(&world, 1_500).await;

    let (walks, job) = walking(&world, "cutover", &Value::Null).await;
    let looks = 1 - walks;
    let (_, page) = world.proxies[looks].operate(&["status"]).await;
    assert!(page.contains("under way on"), "{page}");

    // Whoever asks for one, anywhere, need not wait for it; a second person is told where the first one's is.
    let asked = [0, 1].map(|_| ["verify", "--reason", "asked for"]);
    let first = world.proxies[looks].operate(&asked[0]);
    let second = async {
        walking(&world, "operator", &Value::Null).await;
        world.proxies[walks].operate(&asked[1]).await
    };
    let ((first, said), (second, refusal)) = tokio::join!(first, second);
    assert!(first.success(), "{said}");
    assert_eq!(second.code(), Some(1), "{refusal}");
    assert!(refusal.contains("is under way on replica"), "{refusal}");
    let path = format!("/admin/jobs/{}", job["id"].as_str().expect("an id"));
    let made_way = world.proxies[walks].admin().get(&path).await;
    assert_eq!(made_way.expect("an answer").ok()["state"], "cancelled");

    let (walks, job) = walking(&world, "cutover", &job["id"]).await;
    world.proxies[walks].process.kill();
    let left = &world.proxies[1 - walks];
    let successor = eventually("another takes over", SOON, async || {
        let verify = left.status().await["verify"].take();
        let another = verify["state"] == "running" && verify["id"] != job["id"];
        another.then_some(verify.clone()).ok_or(verify)
    })
    .await;
    assert_eq!(successor["replica"], left.status().await["replica"]);
    eventually("its verdict is on record", SOON, async || {
        let verified = left.status().await["verified"].take();
        let by_itself = verified["actor"] == "cutover" && verified["clean"] == true;
        by_itself.then_some(()).ok_or(verified)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_after_verify_under_writers_of_every_kind_finds_no_false_difference() {
    let world = World::build(WorldOptions {
        config: "[compare]\nrecheck_delay = \"20ms\"\n".to_owned(),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("dual_write").await;
    filled(&world, 1_200).await;
    world.advance_to("shadow").await;

    let load = Load::start(&world, true).await;
    let mut writers = Writers::start(&world, 0);
    writers.start_bypass(&world.legacy);
    let stop = CancellationToken::new();
    let odd = tokio::spawn(odd_writes(world.proxies[0].door.clone(), stop.clone()));
    let old = tokio::spawn(old_rows_change(world.legacy.clone(), stop.clone()));
    for number in 0..VERIFIES {
        let (status, said) = world.proxies[0]
            .operate(&["verify", "--reason", "again"])
            .await;
        assert!(status.success(), "the {number}th: {said}");
    }
    stop.cancel();
    let odd_writes = odd.await.expect("a writer ends well");
    old.await.expect("a writer ends well");
    let told = load.stop().await;
    let histories = writers.stop().await;
    println!("{} and {odd_writes} writes meanwhile", told.writes());
    assert!(odd_writes > 10 && told.writes() > 100);
    world.settles("campaigns", SOON).await;
    let all: Vec<_> = histories.into_iter().chain(told.histories).collect();
    let others = "DELETE FROM campaigns WHERE name LIKE 'odd %' OR name LIKE 'old%'";
    world.legacy.execute(others).await;
    assert_holds(&world.legacy, &all).await;
    let diverged = "SELECT count(*) FROM cutover.divergences";
    assert_eq!(world.legacy.number(diverged).await, 0);
}

/// So many rows on both sides, which is then said in the state.
async fn filled(world: &World, rows: u32) {
    let fill = format!(
        "INSERT INTO campaigns (id, name) SELECT gen_random_uuid(), 'old' FROM generate_series(1, {rows})"
    );
    world.legacy.execute(&fill).await;
    world.settles("campaigns", SOON).await;
    world.verified().await;
}

/// The replica that walks because of `actor`, and its job, once both replicas show that it is under way.
async fn walking(world: &World, actor: &str, not: &Value) -> (usize, Value) {
    eventually("both replicas show a verify", SOON, async || {
        let [one, two] = [
            world.proxies[0].status().await,
            world.proxies[1].status().await,
        ];
        let (mine, its) = (&one["verify"], &two["verify"]);
        let under_way = |job: &Value| {
            job["state"] == "running"
                && job["actor"] == actor
                && job["rows"] != 0
                && job["id"] != *not
        };
        if under_way(mine) && under_way(its) && mine["id"] == its["id"] {
            let walks = usize::from(mine["replica"] != one["replica"]);
            return Ok((walks, mine.clone()));
        }
        Err(format!("{mine} and {its}"))
    })
    .await
}

/// Rows that are on both sides change past the proxy, go, and change their keys.
async fn old_rows_change(legacy: Database, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let some = |rows: u32| {
            format!(
                "SELECT id FROM campaigns WHERE name LIKE 'old%' ORDER BY random() LIMIT {rows}"
            )
        };
        let sql = format!(
            "UPDATE campaigns SET name = 'old but changed' WHERE id IN ({}); \
             UPDATE campaigns SET deleted_at = now() WHERE id IN ({}); \
             UPDATE campaigns SET id = gen_random_uuid() WHERE id IN ({}); \
             DELETE FROM campaigns WHERE id IN ({})",
            some(10),
            some(1),
            some(1),
            some(1)
        );
        legacy.execute(&sql).await;
        tokio::time::sleep(BETWEEN_WRITES).await;
    }
}

/// The writes that the load leaves out: upserts, several rows, predicates, soft deletes, transactions.
async fn odd_writes(door: HttpClient, stop: CancellationToken) -> u32 {
    let mut written = 0;
    for turn in 0_u32.. {
        if stop.is_cancelled() {
            break;
        }
        let ids = [0, 1, 2].map(|row| key(&format!("odd {}", (turn + row) % 7)));
        let rows = ids
            .clone()
            .map(|id| json!({"id": id, "name": format!("odd {turn}"), "deleted_at": null}));
        let upsert = json!({"type": "upsert", "table": "campaigns", "data": rows});
        let where_id = json!({"id": ids[0]});
        let queries = [
            upsert.clone(),
            json!({"type": "update", "table": "campaigns", "where": {"name": {"like": "odd %"}},
                "data": {"description": format!("turn {turn}")}}),
            json!({"type": "delete", "table": "campaigns", "where": where_id}),
            json!({"type": "transaction", "queries": [
                upsert,
                {"type": "delete", "table": "campaigns", "where": {"id": ids[1]}, "hard": true},
            ]}),
        ];
        for query in queries {
            let body = json!({"db": "campaign_db", "query": query});
            let answer = door.post("/v1/query", &body).await.expect("an answer");
            answer.ok();
            written += 1;
            tokio::time::sleep(BETWEEN_WRITES).await;
        }
    }
    written
}
