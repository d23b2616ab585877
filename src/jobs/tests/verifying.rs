//! What a verify finds beside rows that differ, and when it begins by itself.

use std::time::Duration;

use super::bench::Bench;
use super::*;
use crate::contract::Token;
use crate::verify::{Renewed, VerifySettings};

on_both!(
    a_clean_verify_takes_what_it_disproves_off_the_list,
    a_row_that_a_removal_on_its_way_may_have_taken_along_is_not_missing_yet,
    a_row_whose_parent_is_gone_is_an_orphan_and_is_repaired_with_its_parent,
    a_verify_is_cancelled_from_any_replica,
);

async fn a_row_whose_parent_is_gone_is_an_orphan_and_is_repaired_with_its_parent(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    bench.backfill().await;
    bench
        .stored
        .batch(
            "PRAGMA foreign_keys = OFF; UPDATE ads SET campaign_id = 5000 WHERE campaign_id = 3; \
             DELETE FROM campaigns WHERE id IN (7, 8); PRAGMA foreign_keys = ON",
        )
        .await
        .unwrap();
    let orphans = |report: &Value| report["tables"][1]["orphan"].as_u64();

    let report = bench.verify(false).await;
    assert_eq!(found(&report, "campaigns"), [2, 0, 0, 0, 0]);
    assert_eq!(found(&report, "ads"), [0, 0, 0, 0, 0]);
    assert_eq!(orphans(&report), Some(3), "{report:#}");
    let lines = divergence::list(bench.parts.legacy.db(), 10).await.unwrap();
    let told = lines.iter().filter(|line| line.kind == "orphan");
    let told: Vec<_> = told.map(|line| (&*line.table, &*line.fields)).collect();
    assert_eq!(told, [("ads", "campaign_id"); 3]);

    let only_ads = VerifyOptions {
        tables: vec!["ads".to_owned()],
        ..Bench::look(true)
    };
    let id = bench.jobs.start_verify(only_ads).await.unwrap();
    let report = bench.ended(id).await["result"].take();
    assert_eq!(report["tables"][0]["repaired"], 3, "{report:#}");
    let again = bench.verify(false).await;
    assert_eq!(again["clean"], true, "{again:#}");
    bench.gone().await;
}

async fn a_verify_is_cancelled_from_any_replica(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    bench.backfill().await;
    let elsewhere = Jobs::new(bench.parts.clone(), JobSettings::default());
    bench.jobs.set_settings(JobSettings {
        verify: VerifySettings {
            interval: None,
            rate: 1,
        },
        ..JobSettings::default()
    });
    let id = bench.jobs.start_verify(Bench::look(false)).await.unwrap();
    let steered = async |to| {
        let steer = Steer {
            to: Some(to),
            rate: None,
        };
        elsewhere.steer("bob", "enough", id, steer).await.unwrap()
    };
    assert!(!steered(RunState::Paused).await, "it does not know how");
    assert!(steered(RunState::Cancelled).await);
    assert_eq!(bench.ended(id).await["state"], "cancelled");

    bench.jobs.set_settings(JobSettings::default());
    let again = bench.verify(false).await;
    assert_eq!(again["full"], true, "the next is not meant: {again:#}");
    assert!(!steered(RunState::Cancelled).await, "it has ended");
    bench.gone().await;
}

async fn a_clean_verify_takes_what_it_disproves_off_the_list(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    let db = bench.parts.legacy.db();
    bench.backfill().await;
    let planted = "UPDATE campaigns SET budget = 7 WHERE id IN (42, 43)";
    bench.stored.batch(planted).await.unwrap();
    bench.verify(false).await;
    let list = async || divergence::list(db, 10).await.unwrap();
    let explained = list().await[0].id;
    let mut tx = db.begin().await.unwrap();
    let far = i64::MAX;
    divergence::explain(&mut tx, explained, "known", far)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let lied = "INSERT INTO cutover.divergences (tbl, kind, key, fields, first_us, last_us, seen) \
                VALUES ('campaigns', 'echo_mismatch', '[9]', '', 1, 1, 1)";
    db.control(lied, vec![]).await.unwrap();

    bench.verify(true).await;
    assert_eq!(list().await.len(), 3, "repaired, and not proven yet");
    assert_eq!(bench.verify(false).await["clean"], true);
    let mut left: Vec<_> = list().await.into_iter().map(|line| line.kind).collect();
    left.sort();
    assert_eq!(left, ["echo_mismatch", "field"]);
    assert_eq!(divergence::count_open(db).await.unwrap(), 1);
    bench.gone().await;
}

async fn a_row_that_a_removal_on_its_way_may_have_taken_along_is_not_missing_yet(under: Under) {
    let bench = Bench::new(under, Capabilities::all()).await;
    bench.backfill().await;
    let taken_along = "DELETE FROM ads WHERE campaign_id = 3";
    bench.stored.batch(taken_along).await.unwrap();
    let db = bench.parts.legacy.db();
    // Claimed by nobody here.
    let entry = "INSERT INTO cutover.journal (generation, direction, kind, tbl, key, epoch, created_us, deadline_us, \
                 token, removing) SELECT generation, 'storage', 'copy', 'campaigns', '[3]', epoch, cutover.now_us(), \
                 9000000000000000000, $1::uuid, true FROM cutover.state";
    db.control(entry, vec![Token::fresh().into()])
        .await
        .unwrap();
    let report = bench.verify(false).await;
    assert_eq!(found(&report, "ads"), [0; 5], "{report:#}");

    let settled = "DELETE FROM cutover.journal";
    db.control(settled, vec![]).await.unwrap();
    let report = bench.verify(false).await;
    assert_eq!(found(&report, "ads"), [1, 0, 0, 0, 0], "{report:#}");
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_of_the_authority_is_for_a_person_to_mend_and_is_repaired_after_that() {
    let bench = Bench::new(Under::Postgres, Capabilities::all()).await;
    bench.backfill().await;
    // Storage has the parent that legacy lost, as after a removal past every trigger.
    let lost = "BEGIN; SET LOCAL session_replication_role = replica; \
                UPDATE ads SET campaign_id = 5000 WHERE campaign_id = 3; COMMIT";
    bench.bypass(lost).await;
    bench
        .stored
        .batch(
            "INSERT INTO campaigns VALUES (5000, 'lost', 1); \
             UPDATE ads SET campaign_id = 5000 WHERE campaign_id = 3",
        )
        .await
        .unwrap();
    let report = bench.verify(false).await;
    assert_eq!(report["tables"][0]["extra"], 1, "{report:#}");
    assert_eq!(report["tables"][1]["orphan"], 1, "{report:#}");
    bench.verify(true).await;
    // The parent is to go, as in legacy, and the foreign key of storage refuses that.
    let stuck = bench.quarantined().await;
    let again = bench.verify(false).await;
    assert_eq!(
        (&again["clean"], &again["quarantined"]),
        (&json!(false), &json!(1)),
        "{again:#}"
    );
    bench
        .bypass("UPDATE ads SET campaign_id = 3 WHERE campaign_id = 5000")
        .await;
    let db = bench.parts.legacy.db();
    let mut tx = db.begin().await.unwrap();
    assert!(journal::retry(&mut tx, stuck).await.unwrap());
    tx.commit().await.unwrap();
    bench.nothing_is_owed().await;
    let last = bench.verify(false).await;
    assert_eq!(last["clean"], true, "{last:#}");
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refers_to_nothing_on_both_sides_is_told_and_is_no_difference() {
    let bench = Bench::new(Under::Sqlite, Capabilities::all()).await;
    bench.backfill().await;
    let lost = "PRAGMA foreign_keys = OFF; UPDATE ads SET campaign_id = 5000 WHERE campaign_id = 3; \
                PRAGMA foreign_keys = ON";
    bench.stored.batch(lost).await.unwrap();
    bench.bypass(lost).await;
    let report = bench.verify(false).await;
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["tables"][1]["orphans_alike"], 1);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verify_begins_by_itself_when_it_is_due_and_makes_way_for_an_operators() {
    let bench = Bench::new(Under::Sqlite, Capabilities::all()).await;
    bench.backfill().await;
    let by_the_clock = |rate| JobSettings {
        verify: VerifySettings {
            interval: Some(Duration::from_millis(1)),
            rate,
        },
        ..JobSettings::default()
    };
    assert_eq!(bench.verify(false).await["recorded"], true);
    bench.jobs.set_settings(by_the_clock(1));
    tokio::spawn(Arc::clone(&bench.jobs).keep_verifying());
    let slow = bench.verify_by_itself().await;
    assert_eq!(slow["state"], "running");

    bench.jobs.set_settings(by_the_clock(0));
    let asked_for = bench.verify(false).await;
    assert_eq!(asked_for["clean"], true, "{asked_for:#}");
    let id = slow["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(bench.ended(id).await["state"], "cancelled");
    let epoch = bench.parts.control.snapshot().epoch;
    assert!(!bench.parts.control.snapshot().storage_stale, "{epoch}");
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_verify_by_itself_confirms_is_on_record_and_changes_no_epoch() {
    let bench = Bench::new(Under::Sqlite, Capabilities::all()).await;
    bench.backfill().await;
    assert_eq!(bench.verify(false).await["recorded"], true);
    let epoch = bench.parts.control.snapshot().epoch;
    let planted = "UPDATE campaigns SET budget = 7 WHERE id = 42";
    bench.stored.batch(planted).await.unwrap();
    bench.jobs.set_settings(JobSettings {
        verify: VerifySettings {
            interval: Some(Duration::from_millis(1)),
            rate: 0,
        },
        ..JobSettings::default()
    });
    tokio::spawn(Arc::clone(&bench.jobs).keep_verifying());
    let id = bench.verify_by_itself().await["id"]
        .as_str()
        .unwrap()
        .parse();
    let job = bench.ended(id.unwrap()).await;
    assert_eq!(
        found(&job["result"], "campaigns"),
        [0, 0, 1, 0, 0],
        "{job:#}"
    );
    let db = bench.parts.legacy.db();
    let verified = evidence::verified(db, Backend::Storage)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (verified.clean, verified.actor.as_str()),
        (false, "cutover")
    );
    assert_eq!(divergence::count_open(db).await.unwrap(), 1);
    assert_eq!(bench.parts.control.snapshot().epoch, epoch);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_has_the_turn_to_verify_until_it_lets_go_or_an_operator_takes_it() {
    let bench = Bench::new(Under::Sqlite, Capabilities::all()).await;
    let db = bench.parts.legacy.db();
    let [one, two, operator] = [1, 2, 3].map(Uuid::from_u128);
    let claim = async |id| {
        let begun = json!({"id": id, "state": "running"});
        verify::claim(db, id, &begun, Backend::Storage, Duration::from_secs(9))
            .await
            .unwrap()
    };
    let shown = |rows: u64| json!({"id": one, "state": "running", "replica": "a", "rows": rows});
    assert!(claim(one).await);
    assert!(!claim(two).await, "it is taken");
    let renewed = async |rows| verify::renew(db, one, &shown(rows)).await.unwrap();
    assert_eq!(renewed(7).await, Renewed::Kept);
    assert_eq!(
        bench.jobs.get(one).await.unwrap(),
        Some(shown(7)),
        "any replica tells how far it is"
    );
    assert!(verify::take(db, operator, None, &json!({})).await.unwrap());
    assert!(
        !verify::take(db, two, None, &json!({})).await.unwrap(),
        "another operator waits"
    );
    assert_eq!(renewed(8).await, Renewed::Lost, "it was taken away");
    verify::let_go(db, one, &shown(8), Duration::ZERO)
        .await
        .unwrap();
    assert!(!claim(two).await, "only who has it lets it go");
    verify::let_go(db, operator, &json!({}), Duration::ZERO)
        .await
        .unwrap();
    evidence::record_verified(db, Backend::Storage, true, Epoch(1), "ann", &Value::Null)
        .await
        .unwrap();
    assert!(!claim(two).await, "one ended a moment ago");
    bench.gone().await;
}
