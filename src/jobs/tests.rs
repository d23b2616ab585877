//! Backfill and verify between two running sides.

mod bench;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::backfill::{self, Asked, RunState};
use crate::contract::Epoch;
use crate::control::Verdict;
use crate::stage::{Backend, Stage};
use crate::storage::{Capabilities, Capability};
use crate::verify::VerifyOptions;
use crate::{divergence, evidence, journal, verify};
use bench::{Bench, Under, asked};

/// Runs a property with legacy on either database.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
            super::$name(super::Under::Sqlite).await;
        })* }
        mod on_postgres { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
            super::$name(super::Under::Postgres).await;
        })* }
    };
}
mod verifying;

on_both!(
    an_empty_storage_is_filled_parents_first_and_a_clean_verify_makes_it_trustworthy,
    planted_differences_are_found_named_and_repaired,
    a_difference_is_found_although_something_of_its_table_is_always_owed,
    rows_that_change_meanwhile_are_neither_lost_nor_brought_back_nor_taken_for_differences,
    once_storage_is_the_authority_it_is_legacy_that_is_repaired_and_vouched_for,
    a_paused_backfill_goes_on_where_it_was_at_the_rate_it_is_given,
    a_backfill_has_tried_again_what_was_refused_before,
    a_backfill_goes_on_with_another_replica_when_its_own_dies,
);

/// The counters of a table that say something is wrong or was on its way.
fn found(report: &Value, table: &str) -> [u64; 5] {
    let tables = report["tables"].as_array().unwrap();
    let table = tables.iter().find(|one| one["table"] == table).unwrap();
    ["missing", "extra", "field", "unread", "repaired"].map(|name| table[name].as_u64().unwrap())
}

async fn an_empty_storage_is_filled_parents_first_and_a_clean_verify_makes_it_trustworthy(
    under: Under,
) {
    let bench = Bench::new(under, Capabilities::all()).await;
    assert!(bench.parts.control.snapshot().storage_stale);

    let filled = bench.backfill().await;
    assert_eq!(filled["state"], "done", "{filled:#}");
    let tables = &filled["result"]["tables"];
    assert_eq!(
        tables[0],
        json!({"table": "campaigns", "rows": 1000, "extra": 0})
    );
    assert_eq!(tables[1], json!({"table": "ads", "rows": 1000, "extra": 0}));
    assert_eq!(filled["progress"][1]["rows"], 1000);
    assert_eq!(filled["progress"][1]["total"], 1000);
    assert_eq!(filled["progress"][1]["state"], "done");
    assert_eq!(
        (bench.count("campaigns").await, bench.count("ads").await),
        (1000, 1000)
    );
    let compared = bench.parts.observer.comparisons();
    assert_eq!(
        compared.iter().sum::<i64>(),
        compared[0],
        "storage answered every payment with the row that was sent"
    );
    assert!(compared[0] > 0);
    assert!(
        bench.parts.control.snapshot().storage_stale,
        "filled is not verified"
    );

    let report = bench.verify(false).await;
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["recorded"], true);
    assert_eq!(report["tables"][0]["match"], 1000);
    assert_eq!(report["tables"][1]["storage_rows"], 1000);
    assert!(!bench.parts.control.snapshot().storage_stale);
    bench.gone().await;
}

async fn planted_differences_are_found_named_and_repaired(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    bench.backfill().await;
    bench
        .stored
        .batch(
            "DELETE FROM ads WHERE campaign_id = 700; \
             UPDATE campaigns SET budget = 1 WHERE id = 42; \
             INSERT INTO campaigns VALUES (5000, 'nobody knows', 0);",
        )
        .await
        .unwrap();

    let report = bench.verify(true).await;
    assert_eq!(
        (&report["clean"], &report["recorded"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(found(&report, "campaigns"), [0, 1, 1, 0, 2]);
    assert_eq!(found(&report, "ads"), [1, 0, 0, 0, 1]);
    assert!(bench.parts.control.snapshot().storage_stale);
    let lines = divergence::list(bench.parts.legacy.db(), 10).await.unwrap();
    let mut named: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line.table.as_str(),
                line.kind.as_str(),
                line.fields.as_str(),
            )
        })
        .collect();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            ("ads", "missing", ""),
            ("campaigns", "extra", ""),
            ("campaigns", "field", "budget")
        ]
    );

    let again = bench.verify(false).await;
    assert_eq!(again["clean"], true, "{again:#}");
    assert_eq!(bench.count("campaigns").await, 1000);
    assert!(!bench.parts.control.snapshot().storage_stale);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_removes_what_only_storage_has() {
    let bench = Bench::new(Under::Sqlite, Capabilities::all()).await;
    bench
        .stored
        .batch("INSERT INTO campaigns VALUES (5000, 'left over', 0)")
        .await
        .unwrap();
    let filled = bench.backfill().await;
    assert_eq!(filled["result"]["tables"][0]["extra"], 1, "{filled:#}");
    assert_eq!(bench.count("campaigns").await, 1000);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ranges_a_verify_says_what_it_could_not_see_and_vouches_for_nothing() {
    let bench = Bench::new(
        Under::Sqlite,
        Capabilities::all().without(Capability::Ranges),
    )
    .await;
    let filled = bench.backfill().await;
    assert_eq!(filled["result"]["storage_walked"], false);
    let report = bench.verify(false).await;
    assert_eq!(
        (&report["clean"], &report["recorded"]),
        (&json!(true), &json!(false))
    );
    assert!(report["unchecked"][0].as_str().unwrap().contains("ranges"));
    assert!(bench.parts.control.snapshot().storage_stale);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_kind_runs_at_a_time_and_a_cancelled_one_makes_room() {
    let bench = Bench::new(Under::Sqlite, Capabilities::all()).await;
    let jobs = &bench.jobs;
    let id = jobs.start_backfill(asked(Some(1))).await.unwrap();
    let other = Asked {
        tables: vec!["campaigns".to_owned()],
        ..asked(None)
    };
    let refused = jobs.start_backfill(other.clone()).await.unwrap_err();
    assert!(matches!(refused, JobError::OtherTables { id: held, .. } if held == id));
    let same = jobs.start_backfill(asked(None)).await.unwrap();
    assert_eq!(same, id, "the same command follows the one under way");
    assert_eq!(jobs.current().await["backfill"]["id"], id.to_string());
    assert_eq!(jobs.current().await["verify"], Value::Null);
    let cancel = Steer {
        to: Some(RunState::Cancelled),
        rate: None,
    };
    assert!(jobs.steer("ann", "", id, cancel).await.unwrap());
    assert_eq!(bench.ended(id).await["state"], "cancelled");
    assert!(!jobs.steer("ann", "", Uuid::nil(), cancel).await.unwrap());
    let actions = bench.parts.control.actions(10).await.unwrap();
    assert_eq!(
        (actions[0].kind.as_str(), actions[0].actor.as_str()),
        ("backfill", "ann")
    );

    let id = jobs.start_backfill(other).await.unwrap();
    assert_eq!(bench.ended(id).await["state"], "done");
    assert_eq!(jobs.pending_backfill().await.unwrap(), ["ads"]);
    jobs.drain().await;
    let late = jobs.start_backfill(asked(None)).await;
    assert!(matches!(late, Err(JobError::ShuttingDown)));
    bench.gone().await;
}

async fn a_paused_backfill_goes_on_where_it_was_at_the_rate_it_is_given(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    let jobs = &bench.jobs;
    let plan = jobs.plan_backfill(&asked(Some(100))).await.unwrap();
    assert_eq!(
        (&plan["rows"], &plan["seconds"]),
        (&json!(2000), &json!(20))
    );
    assert_eq!(jobs.current().await["backfill"], Value::Null);

    let id = jobs.start_backfill(asked(Some(1))).await.unwrap();
    while jobs.get(id).await.unwrap().unwrap()["rows"] == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let pause = Steer {
        to: Some(RunState::Paused),
        rate: None,
    };
    assert!(jobs.steer("ann", "", id, pause).await.unwrap());
    let paused = bench.ended(id).await;
    assert_eq!(paused["state"], "paused");
    assert_eq!(paused["progress"][0]["state"], "begun");
    let other = Asked {
        tables: vec!["campaigns".to_owned()],
        ..asked(None)
    };
    let refused = jobs.start_backfill(other).await.unwrap_err();
    assert!(refused.to_string().contains("is paused"), "{refused}");

    let again = jobs.start_backfill(asked(Some(0))).await.unwrap();
    assert_eq!(again, id);
    let done = bench.ended(id).await;
    assert_eq!(done["state"], "done", "{done:#}");
    assert_eq!(done["result"]["tables"][0]["rows"], 1000);
    assert_eq!(bench.count("ads").await, 1000);
    bench.gone().await;
}

async fn a_backfill_has_tried_again_what_was_refused_before(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    let refused = "INSERT INTO cutover.journal \
        (generation, direction, kind, tbl, key, epoch, created_us, parked) \
        SELECT generation, 'storage', 'copy', 'campaigns', '[42]', 1, 1, 'quarantined' FROM cutover.state";
    let db = bench.parts.legacy.db();
    db.control(refused, vec![]).await.unwrap();
    let filled = bench.backfill().await;
    assert_eq!(filled["result"]["quarantined"], 0, "{filled:#}");
    assert_eq!(journal::owed(db).await.unwrap().to_storage, 0);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_much_is_parked_it_is_soon_known_what_can_be_paid() {
    let bench = Bench::new(Under::Postgres, Capabilities::all()).await;
    let db = bench.parts.legacy.db();
    // The planner last looked when nothing was owed. None of it is due, so that it stays.
    db.batch(
        "ALTER TABLE cutover.journal SET (autovacuum_enabled = false); \
         INSERT INTO cutover.journal (generation, direction, kind, tbl, key, epoch, created_us, not_before_us, parked) \
         SELECT (SELECT generation FROM cutover.state), 'storage', 'copy', 'ads', '[\"' || g || '\"]', 1, \
         cutover.now_us(), 9000000000000000000, CASE WHEN g % 2 = 0 THEN 'quarantined' END \
         FROM generate_series(1, 10000) AS g; \
         UPDATE pg_class SET reltuples = 0, relpages = 200 WHERE oid = 'cutover.journal'::regclass",
    )
    .await
    .unwrap();
    let to = journal::Direction::ToStorage;
    assert_eq!(journal::payable(db, to).await.unwrap().open, 5000);
    let last = journal::last_seq(db).await.unwrap();
    let until = journal::owed_until(db, to, last).await.unwrap();
    assert_eq!((until.open, until.quarantined), (10_000, 5000));
    bench.gone().await;
}

async fn a_backfill_goes_on_with_another_replica_when_its_own_dies(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    let (jobs, db) = (&bench.jobs, bench.parts.legacy.db());
    let id = jobs.start_backfill(asked(Some(1))).await.unwrap();
    while jobs.get(id).await.unwrap().unwrap()["rows"] == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let kept = backfill::claim(db, "another").await.unwrap();
    assert!(kept.is_none(), "its lease runs");
    // What is left of a replica that was killed: a lease that runs out.
    db.control(
        "UPDATE cutover.backfill_run SET owner = 'dead', lease_until_us = 0, rate = 0",
        vec![],
    )
    .await
    .unwrap();
    let done = bench.ended(id).await;
    assert_eq!(done["state"], "done", "{done:#}");
    assert_eq!(done["result"]["tables"][0]["rows"], 1000);
    assert!(jobs.pending_backfill().await.unwrap().is_empty());
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_reached_over_http_by_whoever_the_layers_say() {
    let bench = Bench::new(Under::Sqlite, Capabilities::all()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = crate::cli::AdminArgs {
        admin: format!("http://{}", listener.local_addr().unwrap()),
        token: None,
        ca_file: None,
    };
    let router = acting(Arc::clone(&bench.jobs), |_| "eve".to_owned())
        .merge(looking(Arc::clone(&bench.jobs), |_| "eve".to_owned()));
    let options = crate::server::ServerOptions::default();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(crate::server::serve(listener, router, options, stop));
    let client = crate::cli::AdminClient::new(&admin).unwrap();

    let body = json!({"tables": ["ads"], "reason": "a look"});
    let started = client.post("/admin/verify", &body).await.unwrap();
    let path = format!("/admin/jobs/{}", started["id"].as_str().unwrap());
    client.delete(&path).await.unwrap();
    let id = started["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(bench.ended(id).await["state"], "cancelled");
    let job = client.get(&path).await.unwrap();
    assert_eq!(
        (&job["kind"], &job["actor"]),
        (&json!("verify"), &json!("eve"))
    );

    let unknown = client
        .post("/admin/backfill", &json!({"table": "ads"}))
        .await;
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .starts_with("invalid_request")
    );
    let gone = client.get("/admin/jobs/none").await;
    assert!(gone.unwrap_err().to_string().starts_with("not_found"));
    let missing = json!({"tables": ["nothing"]});
    let refused = client.post("/admin/backfill", &missing).await.unwrap_err();
    assert!(refused.to_string().starts_with("unknown_table"));
    let started = client.post("/admin/backfill", &json!({"rate": 1})).await;
    let path = format!("/admin/jobs/{}", started.unwrap()["id"].as_str().unwrap());
    let pause = json!({"action": "pause", "rate": 7, "reason": "a meeting"});
    let paused = client.post(&path, &pause).await.unwrap();
    assert_eq!(
        (&paused["state"], &paused["rate"]),
        (&json!("paused"), &json!(7))
    );
    let resume = json!({"action": "resume"});
    let running = client.post(&path, &resume).await.unwrap();
    assert_eq!(running["state"], "running");
    bench.gone().await;
}

async fn a_difference_is_found_although_something_of_its_table_is_always_owed(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    bench.backfill().await;
    let planted = "UPDATE campaigns SET budget = 7 WHERE id = 42";
    bench.stored.batch(planted).await.unwrap();
    let report = {
        let writing = async {
            loop {
                bench
                    .bypass("UPDATE campaigns SET budget = budget + 1 WHERE id > 900")
                    .await;
            }
        };
        tokio::select! {
            report = bench.verify(false) => report,
            () = writing => unreachable!("it never stops"),
        }
    };
    assert_eq!(found(&report, "campaigns"), [0, 0, 1, 0, 0], "{report:#}");
    bench.gone().await;
}

async fn once_storage_is_the_authority_it_is_legacy_that_is_repaired_and_vouched_for(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    bench.backfill().await;
    assert_eq!(bench.verify(false).await["recorded"], true);
    bench.advance(Stage::Shadow).await;
    bench.advance(Stage::Live).await;
    let planted =
        "UPDATE campaigns SET budget = 7 WHERE id = 42; DELETE FROM ads WHERE campaign_id = 9";
    bench.stored.batch(planted).await.unwrap();
    let legacy = bench.parts.control.judge(
        Verdict {
            backend: Backend::Legacy,
            stale: true,
            expected_epoch: None,
            evidence: Value::Null,
        },
        "ann",
        "a test",
    );
    legacy.await.unwrap();

    let refused = bench.jobs.start_backfill(asked(None)).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "not possible in stage live: a backfill is for `dual_write` and `shadow`, a verify for `dual_write` to `ramp_down`"
    );
    let report = bench.verify(true).await;
    assert_eq!(found(&report, "campaigns"), [0, 0, 1, 0, 1]);
    assert_eq!(found(&report, "ads"), [0, 1, 0, 0, 1]);
    assert!(bench.parts.control.snapshot().legacy_stale);
    let again = bench.verify(false).await;
    assert_eq!(
        (&again["clean"], &again["recorded"]),
        (&json!(true), &json!(true)),
        "{again:#}"
    );
    assert!(!bench.parts.control.snapshot().legacy_stale);
    bench.gone().await;
}

/// What a writer does meanwhile: rows appear, change, change their keys and go, parents and children.
async fn rows_that_change_meanwhile_are_neither_lost_nor_brought_back_nor_taken_for_differences(
    under: Under,
) {
    let bench = Bench::new(under, Capabilities::all()).await;
    let id = bench.jobs.start_backfill(asked(None)).await.unwrap();
    for i in 1..=60 {
        let (gone, moved, new) = (i * 16, i * 16 - 5, 2000 + i);
        bench
            .bypass(&format!(
                "UPDATE campaigns SET budget = -{i} WHERE id > {i} * 10 AND id < {i} * 10 + 5; \
                 DELETE FROM ads WHERE campaign_id = {gone}; DELETE FROM campaigns WHERE id = {gone}; \
                 DELETE FROM ads WHERE campaign_id = {moved}; \
                 UPDATE campaigns SET id = {moved} + 10000 WHERE id = {moved}; \
                 INSERT INTO campaigns VALUES ({new}, 'new', {i})"
            ))
            .await;
    }
    let filled = bench.ended(id).await;
    assert_eq!(filled["state"], "done", "{filled:#}");

    let looking = bench.verify(false);
    let writing = async {
        for i in 1..=60 {
            let sql = format!("UPDATE campaigns SET name = 'again {i}' WHERE id % 60 = {i} % 60");
            bench.bypass(&sql).await;
        }
    };
    let (report, ()) = tokio::join!(looking, writing);
    assert_eq!(report["clean"], true, "{report:#}");
    let last = bench.verify(false).await;
    assert_eq!(
        (&last["clean"], &last["recorded"]),
        (&json!(true), &json!(true)),
        "{last:#}"
    );
    assert_eq!(bench.count("campaigns").await, 1000);
    assert_eq!(bench.count("ads").await, 880);
    bench.gone().await;
}
