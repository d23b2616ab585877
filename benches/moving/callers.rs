//! What callers notice of a throttled backfill.
//!
//! Requests go out at a fixed pace through the HTTP door, half of them reading a row and half changing one, in turns of
//! three windows: without a backfill, beside one, and without again. The windows without are both the measure and, held
//! against each other, what the machine's noise alone does to a 99th percentile.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::figures::{self, Spread, at_most};
use super::fixture::Proxy;
use super::{Work, begin, end_of, name};

const TURNS: u64 = 8;
const REQUESTS_PER_WINDOW: u64 = 1000;
const REQUESTS_PER_SECOND: u32 = 100;
/// Rows a second of the backfill.
const RATE: u32 = 500;
/// The most that the 99th percentile may grow by.
const RATIO_MAX: f64 = 1.3;
/// How often somebody looks how far the backfill is, as the command line does.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The lines of the figure.
pub(crate) async fn during_a_backfill(proxy: &Proxy) -> String {
    requests(proxy).await;
    let (mut ratios, mut noise) = (Vec::new(), Vec::new());
    let (mut all_without, mut all_beside) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut before = requests(proxy).await;
        let mut beside = requests_beside_a_backfill(proxy).await;
        let mut after = requests(proxy).await;
        noise.push(ratio(p99(&mut after), p99(&mut before)));
        let mut without = [before, after].concat();
        ratios.push(ratio(p99(&mut beside), p99(&mut without)));
        all_without.append(&mut without);
        all_beside.append(&mut beside);
    }
    let (without, beside) = (p99(&mut all_without), p99(&mut all_beside));
    format!(
        "{}\n{}\ncallers' p99 over all: {without:?} without, {beside:?} beside a backfill of {RATE} rows/s",
        at_most(
            "callers' p99: with / without",
            RATIO_MAX,
            &Spread::of(ratios)
        ),
        figures::noise("  noise: without, after / before", &Spread::of(noise)),
    )
}

/// A backfill of a table that callers leave alone, begun again as often as it ends.
async fn requests_beside_a_backfill(proxy: &Proxy) -> Vec<Duration> {
    let body = json!({"tables": [name(1)], "rate": RATE, "reason": "measured"});
    let mut path = begin(proxy, Work::Backfill, &body).await;
    let filling = async {
        loop {
            end_of(proxy, &path, LOOK_EVERY).await;
            path = begin(proxy, Work::Backfill, &body).await;
        }
    };
    let times = tokio::select! {
        never = filling => never,
        times = requests(proxy) => times,
    };
    let cancelled = proxy.admin().send(Method::DELETE, &path, None, &[]).await;
    cancelled.expect("the proxy answers");
    end_of(proxy, &path, LOOK_EVERY).await;
    while proxy.status().await["journal"]["owed"] != 0 {
        sleep(LOOK_EVERY).await;
    }
    times
}

/// How long each request of a window took.
async fn requests(proxy: &Proxy) -> Vec<Duration> {
    let mut pace = interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::new();
    for number in 0..REQUESTS_PER_WINDOW {
        pace.tick().await;
        let started = Instant::now();
        proxy.query(request(number)).await.ok();
        times.push(started.elapsed());
    }
    times
}

/// A read or a change of one of a few rows.
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

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}
