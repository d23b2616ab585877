//! A rehearsed rollback is a real one, and the service it is rehearsed against never notices.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::fixture::campaigns::rename;
use crate::fixture::history::{Writers, assert_holds};
use crate::fixture::{World, WorldOptions, eventually};

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
    watched(&world, "unavailable").await;
    let (status, said) = operator.operate(&drill("unavailable")).await;
    assert_eq!(status.code(), Some(0), "{said}");
    // Whichever trigger is first: a share of failed calls may be told sooner than an outage.
    assert!(said.contains("dual_write, by "), "{said}");
    for proxy in &world.proxies {
        let status = proxy.reaches("dual_write", SOON).await;
        assert_eq!(status["latched"], true, "{status}");
    }
    let report = report(&world).await;
    assert_eq!(report["outcome"], "rolled_back", "{report}");
    let seen: Vec<i64> = events(&report).iter().filter_map(Value::as_i64).collect();
    assert_eq!(seen.len(), 6, "everything happened: {report}");
    assert!(seen[..4].is_sorted(), "{report}");
    let evidence = "SELECT count(*) FROM cutover.transitions WHERE kind = 'guard' \
        AND evidence LIKE '%\"drill\":1%'";
    assert_eq!(world.legacy.number(evidence).await, 1);
    let histories = writers.stop().await;
    assert_holds(&world.legacy, &histories).await;
    world.settles("campaigns", SOON).await;
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
    let body = serde_json::json!({"trigger": "inconsistency", "reason": "test"});
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
