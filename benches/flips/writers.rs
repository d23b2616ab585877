//! Writers at a fixed pace, each with a row of its own, that note the longest time one write took.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::fixture::campaigns::{insert, rename};
use crate::fixture::{HttpClient, World};

/// Of all writers together.
pub(crate) const REQUESTS_PER_SECOND: u32 = 300;
const WRITERS: u32 = 30;
const PAUSE_BETWEEN_REPEATS: Duration = Duration::from_millis(20);
const DEFINITE_WITHIN: Duration = Duration::from_secs(120);

/// Writers, until they are stopped.
pub(crate) struct Writers {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Written>>,
    started: Instant,
}

/// What writers met.
#[derive(Clone, Copy, Default)]
pub(crate) struct Written {
    /// How long the slowest write took, from its first sending to its acknowledgement.
    pub(crate) slowest: Duration,
    /// Acknowledged writes a second.
    pub(crate) per_second: f64,
}

impl Writers {
    /// Starts them, spread over the replicas' doors.
    pub(crate) fn start(world: &World, rate: u32) -> Self {
        let stop = CancellationToken::new();
        let tasks = (0..WRITERS).map(|number| {
            let door = world.proxies[number as usize % world.proxies.len()]
                .door
                .clone();
            tokio::spawn(write_until(stop.clone(), door, rate))
        });
        Self {
            tasks: tasks.collect(),
            stop,
            started: Instant::now(),
        }
    }

    /// Stops them.
    pub(crate) async fn stop(self) -> Written {
        let took = self.started.elapsed().as_secs_f64();
        self.stop.cancel();
        let mut all = Written::default();
        for task in self.tasks {
            let written = task.await.expect("a writer ends well");
            all.slowest = all.slowest.max(written.slowest);
            all.per_second += written.per_second / took;
        }
        all
    }
}

/// One writer; `per_second` is how many it wrote in all.
async fn write_until(stop: CancellationToken, door: HttpClient, rate: u32) -> Written {
    let row = uuid::Uuid::new_v4().to_string();
    let mut pace = interval(Duration::from_secs(1) * WRITERS / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    definite(&door, insert(&row, "first")).await;
    let mut written = Written::default();
    for turn in 0_usize.. {
        if stop.is_cancelled() {
            break;
        }
        pace.tick().await;
        let took = definite(&door, rename(&row, &format!("turn {turn}"))).await;
        written.slowest = written.slowest.max(took);
        written.per_second += 1.0;
    }
    written
}

/// Renames one row, however long somebody else holds it.
pub(crate) async fn insist(door: HttpClient, row: &'static str) {
    definite(&door, rename(row, "at last")).await;
}

/// Sends one write under one operation id until it is acknowledged.
async fn definite(door: &HttpClient, query: serde_json::Value) -> Duration {
    let op_id = uuid::Uuid::now_v7().to_string();
    let body = json!({"db": "campaign_db", "query": query, "op_id": op_id});
    let started = Instant::now();
    loop {
        let answer = door
            .post("/v1/query", &body)
            .await
            .expect("the proxy answers");
        if answer.status.is_success() {
            return started.elapsed();
        }
        assert!(started.elapsed() < DEFINITE_WITHIN, "{}", answer.body);
        sleep(PAUSE_BETWEEN_REPEATS).await;
    }
}
