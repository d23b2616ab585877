//! The figures that are promised, measured side by side in one run.
//!
//! `tests/run --bench side_by_side`, or `cargo bench` with `CUTOVER_TEST_POSTGRES` and `CUTOVER_TEST_AMQP` as the
//! integration tests have them. Two real proxies in release build, each with its own databases and reference storage
//! service, and a bare handler that is a process of its own too. Only ratios mean something: the machine may be busy.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot measure fails by panicking"
)]

mod bare;
mod rounds;

#[path = "../fixture/mod.rs"]
mod fixture;

use std::net::SocketAddr;
use std::time::Duration;

use fixture::{Database, World, WorldOptions};
use serde_json::json;
use uuid::Uuid;

use bare::Bare;
use rounds::{Measured, Side, header};

/// Rows that point reads choose from, in turn.
const ROWS: u32 = 500;
/// Leaves time for what happens after the answer: paying storage, comparing.
const REQUESTS_PER_SECOND: u32 = 150;
const SHADOW_REQUESTS_PER_SECOND: u32 = 100;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Reads whose answers from both sides were held against each other and are equal.
const MATCHED: &str = r#"cutover_comparisons_total{op="select",result="match""#;
const STILL_WITHIN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(bare::ROLE), Some(url)) = (arguments.next().as_deref(), arguments.next()) {
        bare::serve(&url).await;
        return;
    }
    for name in ["CUTOVER_TEST_POSTGRES", "CUTOVER_TEST_AMQP"] {
        if std::env::var_os(name).is_none() {
            eprintln!("{name} is not set: it is the URL of a server to measure on");
            std::process::exit(2);
        }
    }
    let off = World::build(WorldOptions::default()).await;
    let both = World::build(WorldOptions::default()).await;
    both.advance_to("dual_write").await;
    flushes(&off.legacy).await;
    let like = format!(
        "CREATE TABLE {} (LIKE campaigns INCLUDING ALL)",
        bare::TABLE
    );
    off.legacy.execute(&like).await;
    both.legacy.execute(&like).await;

    let (mut in_off, mut in_both) = (door(&off).await, door(&both).await);
    for number in 0..ROWS {
        in_off.ask(insert(number)).await;
        in_both.ask(insert(number)).await;
    }

    println!("{}", header());
    println!("{}", off_reads(&off, &mut in_off).await.line());
    println!("{}", dual_writes(&both, &mut in_both).await.line());
    println!(
        "{}",
        shadow_reads(&both, &mut in_both, &mut in_off).await.line()
    );
}

/// What is promised holds for commits that are on disk.
async fn flushes(database: &Database) {
    for setting in ["fsync", "synchronous_commit"] {
        let sql = format!("SELECT current_setting('{setting}')");
        let shown = database.texts(&sql).await;
        assert_eq!(shown, ["on"], "{setting} must be on to measure");
    }
}

async fn off_reads(world: &World, door: &mut Side) -> Measured {
    let bare = Bare::start(&world.legacy.url);
    let mut handler = Side::connect(bare.address).await;
    let (_, ours) = door.ask(select(0)).await;
    let (_, theirs) = handler.ask(select(0)).await;
    assert_eq!(ours, theirs, "both sides answer the same");
    Measured::run(
        "off: point read / bare handler",
        1.25,
        REQUESTS_PER_SECOND,
        (door, &mut handler),
        selects(),
    )
    .await
}

async fn dual_writes(world: &World, door: &mut Side) -> Measured {
    let bare = Bare::start(&world.legacy.url);
    let mut handler = Side::connect(bare.address).await;
    let mut number = ROWS;
    let measured = Measured::run(
        "dual_write: insert / bare insert",
        1.6,
        REQUESTS_PER_SECOND,
        (door, &mut handler),
        || {
            number += 1;
            insert(number)
        },
    )
    .await;
    let inserted = format!(
        "SELECT (SELECT count(*) FROM campaigns) + (SELECT count(*) FROM {})",
        bare::TABLE
    );
    let inserted = world.legacy.number(&inserted).await;
    assert_eq!(inserted, i64::from(number), "every insert left a row");
    measured
}

async fn shadow_reads(world: &World, door: &mut Side, in_off: &mut Side) -> Measured {
    world.settles("campaigns", SETTLED_WITHIN).await;
    world.advance_to("shadow").await;
    let measured = Measured::run(
        "shadow: point read / off",
        1.25,
        SHADOW_REQUESTS_PER_SECOND,
        (door, in_off),
        selects(),
    )
    .await;
    // A stage that was left meanwhile was not measured, nor one that compares nothing.
    let proxy = &world.proxies[0];
    proxy.reaches("shadow", STILL_WITHIN).await;
    let metrics = proxy.metrics().await;
    let compared: f64 = metrics
        .lines()
        .filter(|line| line.starts_with(MATCHED))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(compared > 0.0, "shadow compared nothing:\n{metrics}");
    println!("reads that shadow compared and found equal: {compared}");
    measured
}

async fn door(world: &World) -> Side {
    let uri = world.proxies[0].door.base_url();
    let address = uri.trim_start_matches("http://");
    let address: SocketAddr = address.parse().expect("an address");
    Side::connect(address).await
}

fn selects() -> impl FnMut() -> String {
    let mut number = 0;
    move || {
        number = (number + 1) % ROWS;
        select(number)
    }
}

/// A point read, by the primary key. With its limit said, both sides run the very same statement.
fn select(number: u32) -> String {
    let query =
        json!({"type": "select", "table": "campaigns", "where": {"id": key(number)}, "limit": 1});
    json!({"db": "campaign_db", "query": query}).to_string()
}

fn insert(number: u32) -> String {
    let data = json!({
        "id": key(number),
        "name": format!("Campaign {number}"),
        "description": "A campaign as applications have them, with a line or two about it.",
        "theme_data": {"primary": "#336699", "accent": "#ffcc00", "fonts": ["Inter", "Lora"]},
    });
    let query = json!({"type": "insert", "table": "campaigns", "data": data});
    json!({"db": "campaign_db", "query": query}).to_string()
}

fn key(number: u32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes())
}
