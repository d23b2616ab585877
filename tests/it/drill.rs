//! A rehearsed rollback is a real one, and the service it is rehearsed against never notices.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::fixture::campaigns::rename;
use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::{Proxy, World, WorldOptions, eventually};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_of_an_outage_brings_the_authority_back_and_costs_no_write() {
    let world = World::build(two_replicas()).await;
    world.advance_to("dual_write").await;
    let operator = &world.proxies[0];
    let (status, said) = operator.operate(&drill("unavailable")).await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the stage is dual_write"), "{said}");
    world.advance_to("live").await;
    let writers = Writers::start(&world, 2);
    // Whichever trigger is first: a share of failed calls may be told sooner than an outage.
    rolled_back_by_a_drill_of(&world, "unavailable").await;
    let evidence = "SELECT count(*) FROM cutover.transitions WHERE kind = 'guard' \
        AND evidence LIKE '%\"drill\":1%'";
    assert_eq!(world.legacy.number(evidence).await, 1);
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    world.settles("campaigns", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_of_a_share_of_failed_calls_brings_the_authority_back_and_costs_no_write() {
    rehearsed_alone("failure_rate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_of_a_slow_storage_brings_the_authority_back_and_costs_no_write() {
    rehearsed_alone("latency_delta").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_of_an_inconsistency_plants_nothing_and_both_sides_end_equal() {
    let world = World::build(two_replicas()).await;
    world.advance_to("live").await;
    let writers = Writers::start(&world, 2);
    watched(&world, "inconsistency").await;
    let (status, said) = world.proxies[1].operate(&drill("inconsistency")).await;
    assert_eq!(status.code(), Some(0), "{said}");
    for proxy in &world.proxies {
        proxy.reaches("dual_write", SOON).await;
    }
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    world.settles("campaigns", SOON).await;
    let planted = "SELECT count(*) FROM cutover.divergences WHERE seen = 1";
    assert_eq!(world.legacy.number(planted).await, 0);
    let altered = "SELECT count(*) FROM cutover.operations WHERE reply LIKE '%cutover_drill%'";
    assert_eq!(world.legacy.number(altered).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_is_cancelled_moves_nothing_and_storage_is_called_again() {
    let world = World::build(two_replicas()).await;
    world.advance_to("live").await;
    watched(&world, "unavailable").await;
    let admin = world.proxies[0].admin();
    // Nobody writes: nothing comes whose reply could be altered.
    let body = json!({"trigger": "inconsistency", "reason": "test"});
    let begun = admin.post("/admin/drill", &body).await;
    begun.expect("the admin plane answers").ok();
    let again = admin.post("/admin/drill", &body).await;
    let again = again.expect("the admin plane answers");
    assert_eq!(again.status.as_u16(), 412, "{}", again.body);
    eventually("every replica takes part", SOON, async || {
        let marks = "SELECT count(*) FROM cutover.drill_marks WHERE moment = 'fault'";
        let parts = world.legacy.number(marks).await;
        (parts == 2).then_some(()).ok_or(parts)
    })
    .await;
    let json = [("content-type", "application/json")];
    let cancelled = admin
        .send(Method::DELETE, "/admin/drill", None, &json)
        .await;
    cancelled.expect("the admin plane answers").ok();
    let report = report(&world).await;
    assert_eq!(report["outcome"], "cancelled", "{report}");
    eventually("replicas hear of the end", SOON, async || {
        let answer = world.proxies[1].query(rename("none", "still live")).await;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(answer.body),
        }
    })
    .await;
    let status = world.proxies[1].status().await;
    assert_eq!(
        (&status["stage"], &status["latched"]),
        (&"live".into(), &false.into())
    );
    eventually("nobody is told of it any more", SOON, async || {
        let status = world.proxies[1].status().await;
        status["drill"].is_null().then_some(()).ok_or(status)
    })
    .await;
    world.proxies[1]
        .shows(&gauge("inconsistency", 0), SOON)
        .await;
}

/// A drill in which only the trigger that it provokes may act, under load through the doors.
async fn rehearsed_alone(trigger: &str) {
    let world = World::build(WorldOptions {
        replicas: 2,
        guard: only(trigger),
        ..WorldOptions::default()
    })
    .await;
    world.advance_to("live").await;
    let writers = Writers::start(&world, 4);
    let report = rolled_back_by_a_drill_of(&world, trigger).await;
    assert_eq!(report["transition"]["actor"], trigger, "{report}");
    assert_eq!(report["notes"], json!([]), "{report}");
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    world.settles("campaigns", SOON).await;
    let differing = "SELECT count(*) FROM cutover.divergences";
    assert_eq!(world.legacy.number(differing).await, 0);
}

/// Windows of seconds, and no other trigger that could be faster.
fn only(trigger: &str) -> String {
    let action = |one: &str| match one == trigger {
        true => "rollback",
        false => "observe",
    };
    let window = "window = \"2s\", min_samples = 20";
    format!(
        "[guard]\nfailure_rate = {{ action = \"{}\", {window} }}\n\
         latency_delta = {{ action = \"{}\", {window} }}\n\
         unavailable = {{ action = \"observe\" }}\ninconsistency = {{ action = \"observe\" }}\n",
        action("failure_rate"),
        action("latency_delta"),
    )
}

/// Runs a drill to its end, and holds what it tells against what there is: in the report, in `status` and in
/// the metric of either replica.
async fn rolled_back_by_a_drill_of(world: &World, trigger: &str) -> Value {
    watched(world, trigger).await;
    let [operator, other] = &world.proxies[..] else {
        panic!("two replicas");
    };
    let args = drill(trigger);
    let ((status, said), ()) = tokio::join!(operator.operate(&args), shows_it(other, trigger));
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("dual_write, by "), "{said}");
    let report = report(world).await;
    assert_eq!(report["outcome"], "rolled_back", "{report}");
    let seen: Vec<i64> = events(&report).iter().filter_map(Value::as_i64).collect();
    assert_eq!(seen.len(), 6, "everything happened: {report}");
    assert!(seen[..4].is_sorted(), "{report}");
    assert!(seen[4..].iter().all(|later| *later >= seen[3]), "{report}");
    for proxy in &world.proxies {
        let status = proxy.reaches("dual_write", SOON).await;
        assert_eq!(status["latched"], true, "{status}");
        eventually("the drill is over, and its latch holds", SOON, async || {
            let drill = proxy.status().await["drill"].take();
            match drill["outcome"] == "rolled_back" {
                true => Ok(()),
                false => Err(drill),
            }
        })
        .await;
        proxy.shows(&gauge(trigger, 1), SOON).await;
    }
    report
}

/// Waits until a replica shows the drill that is under way to whoever looks.
async fn shows_it(proxy: &Proxy, trigger: &str) {
    eventually("status shows a drill under way", SOON, async || {
        let drill = proxy.status().await["drill"].take();
        let shown = drill["trigger"] == trigger && drill["outcome"].is_null();
        shown.then_some(()).ok_or(drill)
    })
    .await;
    proxy.shows(&gauge(trigger, 1), SOON).await;
}

fn gauge(trigger: &str, value: u8) -> String {
    format!("cutover_drill{{trigger=\"{trigger}\"}} {value}")
}

fn drill(trigger: &str) -> [&str; 4] {
    ["drill", trigger, "--reason", "rehearsal"]
}

/// The report as every replica gives it.
async fn report(world: &World) -> Value {
    let answer = world.proxies[1].admin().get("/admin/drill").await;
    answer.expect("the admin plane answers").ok()
}

fn events(report: &Value) -> Vec<Value> {
    let events = report["timeline"].as_array().expect("a list");
    events.iter().map(|event| event["ms"].clone()).collect()
}

/// Waits until the guard of every replica looks at a trigger.
async fn watched(world: &World, trigger: &str) {
    for proxy in &world.proxies {
        eventually("the guard looks", SOON, async || {
            let status = proxy.status().await;
            let triggers = status["guard"].as_array().cloned().unwrap_or_default();
            let found = triggers.iter().any(|one| {
                one["trigger"] == trigger
                    && ["ok", "near"].contains(&one["state"].as_str().unwrap_or(""))
            });
            found.then_some(()).ok_or(status["guard"].to_string())
        })
        .await;
    }
}

fn two_replicas() -> WorldOptions {
    WorldOptions {
        replicas: 2,
        guard: "[guard]\nlatency_delta = { action = \"observe\" }\n".to_owned(),
        ..WorldOptions::default()
    }
}
