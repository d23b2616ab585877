//! What callers notice of a throttled backfill.
//!
//! Requests go out at a fixed pace through the HTTP door, in turns without and with a backfill under way; half of them
//! read a row and half of them change one.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::figures::at_most;
use super::fixture::Proxy;
use super::{begin, end_of, name};

const TURNS: u64 = 4;
const REQUESTS_PER_TURN: u64 = 1_000;
const REQUESTS_PER_SECOND: u32 = 100;
/// Rows a second of the backfill.
const RATE: u32 = 500;
/// The most that the 99th percentile may grow by.
const RATIO_MAX: f64 = 1.3;

/// The line of the figure.
pub(crate) async fn during_a_backfill(proxy: &Proxy) -> String {
    requests(proxy, REQUESTS_PER_TURN).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        without.append(&mut requests(proxy, REQUESTS_PER_TURN).await);
        // As often as it ends, it begins again: a table may be done sooner than the turn is.
        let filling = async {
            loop {
                let body = json!({"tables": [name(1)], "rate": RATE, "reason": "measured"});
                let path = begin(proxy, "backfill", &body).await;
                end_of(proxy, &path).await;
            }
        };
        tokio::select! {
            () = filling => {}
            mut times = requests(proxy, REQUESTS_PER_TURN) => with.append(&mut times),
        }
        let body = json!({"tables": [name(1)], "rate": 0, "reason": "measured"});
        let path = begin(proxy, "backfill", &body).await;
        end_of(proxy, &path).await;
    }
    let (without, with) = (p99(&mut without), p99(&mut with));
    println!("callers' p99: {without:?} without, {with:?} with a backfill of {RATE} rows/s");
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    at_most("callers' p99: with / without", RATIO_MAX, ratio)
}

async fn requests(proxy: &Proxy, count: u64) -> Vec<Duration> {
    let mut pace = interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::new();
    for number in 0..count {
        pace.tick().await;
        let started = Instant::now();
        proxy.query(request(number)).await.ok();
        times.push(started.elapsed());
    }
    times
}

/// A read or a change of one of a few rows, of a table that the backfill leaves alone.
fn request(number: u64) -> Value {
    let table = name(0);
    let id = uuid::Uuid::new_v5(
        &uuid::Uuid::NAMESPACE_OID,
        &(number / 2 % 100).to_be_bytes(),
    );
    match number % 2 {
        0 => {
            json!({"type": "upsert", "table": table, "data": {"id": id, "name": format!("Caller {number}")}})
        }
        _ => json!({"type": "select", "table": table, "where": {"id": id}}),
    }
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
