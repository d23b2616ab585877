//! The evidence against real databases.

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::contract::Epoch;
use crate::control;
use crate::legacy::Legacy;
use crate::sql::{Db, PoolOptions, TableSpec};
use crate::stage::Backend;

async fn installed(url: &str) -> Db {
    let db = Db::open(url, &PoolOptions::default()).unwrap();
    control::install(&db).await.unwrap();
    COMPONENT.install(&db).await.unwrap();
    // Again, as every start does.
    COMPONENT.install(&db).await.unwrap();
    db
}

async fn on_sqlite(test: impl AsyncFnOnce(&Db)) {
    let path = std::env::temp_dir().join(format!("cutover-evidence-{}.db", Uuid::new_v4()));
    let db = installed(&format!("sqlite://{}", path.display())).await;
    test(&db).await;
    db.close().await;
    std::fs::remove_file(path).unwrap();
}

async fn on_postgres(test: impl AsyncFnOnce(&Db)) {
    let server = std::env::var("CUTOVER_TEST_POSTGRES")
        .expect("CUTOVER_TEST_POSTGRES must name a PostgreSQL where databases may be created");
    let admin = Db::open(&server, &PoolOptions::default()).unwrap();
    let name = format!("evidence_{}", Uuid::new_v4().simple());
    let create = format!("CREATE DATABASE {name}");
    admin.batch(&create).await.unwrap();
    let base = server.rsplit_once('/').unwrap().0;
    let db = installed(&format!("{base}/{name}")).await;
    test(&db).await;
    db.close().await;
    let gone = format!("DROP DATABASE {name} WITH (FORCE)");
    admin.batch(&gone).await.unwrap();
}

#[tokio::test]
async fn what_is_on_record_is_read_back_on_both_databases() {
    on_sqlite(everything_is_read_back).await;
    on_postgres(everything_is_read_back).await;
}

async fn everything_is_read_back(db: &Db) {
    an_unclean_verify_keeps_the_time_of_the_last_clean_one(db).await;
    strangers_add_up_and_the_latest_counts(db).await;
    a_baseline_is_recorded_in_off_only(db).await;
    comparisons_count_from_an_epoch_on(db).await;
}

async fn an_unclean_verify_keeps_the_time_of_the_last_clean_one(db: &Db) {
    let storage = Backend::Storage;
    assert_eq!(verified(db, storage).await.unwrap(), None);
    for clean in [true, false] {
        record_verified(db, storage, clean, Epoch(3), "ada", &json!({"rows": 7}))
            .await
            .unwrap();
    }
    let last = verified(db, storage).await.unwrap().unwrap();
    assert!(!last.clean);
    assert!(last.clean_age_us.unwrap() >= last.age_us);
    assert_eq!((last.epoch, last.actor.as_str()), (Epoch(3), "ada"));
    assert_eq!(verified(db, Backend::Legacy).await.unwrap(), None);
}

async fn strangers_add_up_and_the_latest_counts(db: &Db) {
    let now_us = db.now_us().await.unwrap();
    record_bypass(db, "ads", 2, now_us - 1_000_000)
        .await
        .unwrap();
    record_bypass(db, "ads", 3, now_us - 9_000_000)
        .await
        .unwrap();
    let known = bypassed(db).await.unwrap();
    assert_eq!((known.len(), known[0].rows), (1, 5));
    assert!((1_000_000..9_000_000).contains(&known[0].last_age_us));
}

async fn a_baseline_is_recorded_in_off_only(db: &Db) {
    let baseline = |p95_us| Baseline {
        kind: "read".to_owned(),
        samples: 100,
        p50_us: 1,
        p95_us,
        at_us: 0,
    };
    record_baseline(db, &baseline(5)).await.unwrap();
    record_baseline(db, &baseline(7)).await.unwrap();
    let leave = "UPDATE cutover.state SET stage = 'dual_write'";
    db.control(leave, vec![]).await.unwrap();
    record_baseline(db, &baseline(900)).await.unwrap();
    let known = baselines(db).await.unwrap();
    assert_eq!((known.len(), known[0].p95_us), (1, 7));
    assert!(known[0].at_us > 0);
}

async fn comparisons_count_from_an_epoch_on(db: &Db) {
    let tally = Tally {
        table: "ads".to_owned(),
        op: "select".to_owned(),
        asked: 10,
        compared: 8,
    };
    for epoch in [2, 5, 6, 6] {
        record_compared(db, Epoch(epoch), Epoch(5), &tally)
            .await
            .unwrap();
    }
    let counted = compared_since(db, Epoch(6)).await.unwrap();
    assert_eq!((counted[0].asked, counted[0].compared), (20, 16));
    // Those of an earlier stay are forgotten.
    let all = compared_since(db, Epoch(0)).await.unwrap();
    assert_eq!(all[0].asked, 30);
}

#[tokio::test]
async fn legacys_sequences_and_triggers_are_looked_at() {
    on_postgres(async |db| {
        db.batch(
            "CREATE TABLE ads (id serial PRIMARY KEY, name text);
             CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER stamp BEFORE INSERT ON ads FOR EACH ROW EXECUTE FUNCTION stamp();
             INSERT INTO ads (name) VALUES ('one');",
        )
        .await
        .unwrap();
        crate::journal::COMPONENT.install(db).await.unwrap();
        let spec = TableSpec {
            name: "ads".to_owned(),
            ..TableSpec::default()
        };
        let legacy = Legacy::open(db.clone(), vec![spec]).await.unwrap();
        assert_eq!(legacy.sequences_behind().await.unwrap(), []);
        db.batch("INSERT INTO ads (id, name) VALUES (9, 'two')")
            .await
            .unwrap();
        let behind = legacy.sequences_behind().await.unwrap();
        assert_eq!((behind[0].last, behind[0].greatest), (1, 9));
        assert_eq!(behind[0].column, "id");
        // The tests' role may silence triggers, so only one that insists fires.
        assert!(legacy.silences_triggers());
        assert_eq!(legacy.app_triggers().await.unwrap(), []);
        db.batch("ALTER TABLE ads ENABLE ALWAYS TRIGGER stamp")
            .await
            .unwrap();
        let firing = legacy.app_triggers().await.unwrap();
        assert_eq!(firing[0].trigger, "stamp");
        assert_eq!(firing.len(), 1, "the capture triggers are ours");
    })
    .await;
}
