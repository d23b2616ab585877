//! A rollback costs no caller an error: with a storage that is gone for good in `live`, and a rollback two
//! seconds later, every read is answered and every write acknowledged, and none is lost.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fixture::campaigns::{insert, select};
use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::{HttpClient, Signal, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);
/// As long as an operator, or a guard, may take to see that storage is gone.
const NOTICED_AFTER: Duration = Duration::from_secs(2);
const ENOUGH_WRITES: i64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_refuses_everything_costs_no_caller_an_error() {
    no_caller_sees_an_error("amqp", Gone::Faults(json!({"refuse": true}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_closes_every_connection_costs_no_caller_an_error() {
    no_caller_sees_an_error("http", Gone::Faults(json!({"refuse": true}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_loses_every_reply_costs_no_caller_an_error() {
    no_caller_sees_an_error("amqp", Gone::Faults(json!({"lost_reply_rate": 1.0}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_storage_costs_no_caller_an_error_over_amqp() {
    no_caller_sees_an_error("amqp", Gone::Frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_storage_costs_no_caller_an_error_over_http() {
    no_caller_sees_an_error("http", Gone::Frozen).await;
}

/// How storage goes.
enum Gone {
    Faults(Value),
    Frozen,
}

async fn no_caller_sees_an_error(transport: &'static str, gone: Gone) {
    let options = WorldOptions {
        replicas: 2,
        transport,
        ..WorldOptions::default()
    };
    let world = World::build(options).await;
    world.advance_to("live").await;
    world.proxies[0].query(insert("one", "Spring")).await.ok();
    let writers = Writers::start(&world, 4);
    let readers = Readers::start(&world);
    writes_come(&world).await;

    match &gone {
        Gone::Faults(faults) => world.storage.fault(faults).await,
        Gone::Frozen => world.storage.process.signal(Signal::STOP),
    }
    tokio::time::sleep(NOTICED_AFTER).await;
    let args = ["rollback", "--reason", "storage is gone"];
    let (status, said) = world.proxies[1].operate(&args).await;
    assert!(status.success(), "{said}");
    for proxy in &world.proxies {
        proxy.reaches("dual_write", SOON).await;
    }
    writes_come(&world).await;

    let failed = readers.stop().await;
    assert!(failed.is_empty(), "reads failed: {failed:?}");
    let histories = writers.stop().await;
    for history in &histories {
        assert!(history.repeated.is_empty(), "writes failed: {history:?}");
    }
    assert_holds(&world.legacy, &told(histories)).await;
    match gone {
        Gone::Faults(_) => world.storage.heal().await,
        Gone::Frozen => world.storage.process.signal(Signal::CONT),
    }
    world.settles("campaigns", SOON).await;
}

/// Readers of one row, one at each replica, that remember what was no answer.
struct Readers {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Readers {
    fn start(world: &World) -> Self {
        let stop = CancellationToken::new();
        let tasks = world.proxies.iter();
        let tasks = tasks
            .map(|proxy| tokio::spawn(read_until(stop.clone(), proxy.door.clone())))
            .collect();
        Self { stop, tasks }
    }

    async fn stop(self) -> Vec<String> {
        self.stop.cancel();
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await.expect("a reader ends well"));
        }
        failed
    }
}

async fn read_until(stop: CancellationToken, door: HttpClient) -> Vec<String> {
    let body = json!({"db": "campaign_db", "query": select("one")});
    let mut failed = Vec::new();
    while !stop.is_cancelled() {
        match door.post("/v1/query", &body).await {
            Ok(answer) if answer.body[0]["name"] == "Spring" => {}
            Ok(answer) => failed.push(format!("{} {}", answer.status, answer.body)),
            Err(why) => failed.push(why),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    failed
}

/// What the writers were told, and the test itself of the row that is read.
fn told(
    mut histories: Vec<crate::fixture::history::History>,
) -> Vec<crate::fixture::history::History> {
    let key = crate::fixture::campaigns::key("one");
    histories[0].rows.insert(key, Some("Spring".to_owned()));
    histories
}

/// Waits until callers have written some more.
async fn writes_come(world: &World) {
    let written = "SELECT count(*) FROM cutover.operations WHERE state = 'done'";
    let before = world.legacy.number(written).await;
    eventually("more writes", SOON, async || {
        let more = world.legacy.number(written).await - before;
        (more >= ENOUGH_WRITES).then_some(()).ok_or(more)
    })
    .await;
}
