//! Leases, acknowledgements, and lost history.

use super::*;
use crate::stage::{Backend, Stage};

on_both!(
    a_silent_replica_is_waited_for_at_most_its_lease,
    a_replica_that_acknowledges_is_not_waited_for,
    a_lease_that_ran_out_is_renewed_before_a_read,
    an_epoch_lower_than_seen_stops_writes_until_recovered,
    a_pin_overrides_the_stage_and_is_on_record,
);

fn leased(lease_ms: u64) -> ControlOptions {
    ControlOptions {
        lease: Duration::from_millis(lease_ms),
        ..ControlOptions::default()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn a_silent_replica_is_waited_for_at_most_its_lease(bench: &Bench) {
    let writer = bench.replica().await;
    // Opened, and silent ever after.
    let silent = bench.replica_with(leased(800)).await;
    let heard_at = Instant::now();
    writer.transition(to(Stage::DualWrite)).await.unwrap();
    let early = writer
        .admit_write(Instant::now() + Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(early, Held::Unconfirmed));
    let admitted = writer.admit_write(soon()).await.unwrap();
    assert_eq!(admitted.stage, Stage::DualWrite);
    let waited = heard_at.elapsed();
    assert!(waited < Duration::from_millis(1500), "{waited:?}");
    // By then the silent one knows that it may not answer without asking.
    let known = silent.snapshot_for_read().await.unwrap();
    assert_eq!(known.stage, Stage::DualWrite);
}

async fn a_replica_that_acknowledges_is_not_waited_for(bench: &Bench) {
    let writer = bench.replica().await;
    let other = bench.replica_with(leased(60_000)).await;
    writer.transition(to(Stage::DualWrite)).await.unwrap();
    let admitting = tokio::spawn({
        let writer = writer.clone();
        async move { writer.admit_write(soon()).await }
    });
    other.refresh().await.unwrap();
    assert!(admitting.await.unwrap().is_ok());
    let replicas = writer.replicas().await.unwrap();
    assert!(replicas.iter().all(|replica| replica.epoch == Epoch(2)));
}

async fn a_lease_that_ran_out_is_renewed_before_a_read(bench: &Bench) {
    let mover = bench.replica().await;
    let reader = bench.replica_with(leased(100)).await;
    mover.transition(to(Stage::DualWrite)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    let read = reader.snapshot_for_read().await.unwrap();
    assert_eq!(read.stage, Stage::DualWrite);
    let unreachable = match reader.db() {
        Db::Postgres(pool) => pool.close().await,
        Db::Sqlite(pool) => pool.close().await,
    };
    assert_eq!(unreachable, ());
    tokio::time::sleep(Duration::from_millis(120)).await;
    let LeaseLost(last) = reader.snapshot_for_read().await.unwrap_err();
    assert_eq!(last.stage, Stage::DualWrite);
}

async fn an_epoch_lower_than_seen_stops_writes_until_recovered(bench: &Bench) {
    let control = bench.replica().await;
    control.transition(to(Stage::DualWrite)).await.unwrap();
    control.transition(to(Stage::Shadow)).await.unwrap();
    // A backup is restored under the proxy.
    for sql in [
        "UPDATE cutover.state SET epoch = 2, stage = 'dual_write' WHERE id = 1",
        "DELETE FROM cutover.transitions WHERE epoch = 3",
    ] {
        bench.db.control(sql, vec![]).await.unwrap();
    }
    control.refresh().await.unwrap();
    let held = control.admit_write(soon()).await.unwrap_err();
    assert!(matches!(held, Held::Recovering));
    let refused = control.transition(to(Stage::Off)).await.unwrap_err();
    assert!(matches!(
        refused,
        TransitionError::Refused(Refused::Recovering)
    ));
    // Another replica learns it from the database.
    let other = bench.replica().await;
    assert_eq!(other.snapshot().phase, Phase::Recovering);
    let epoch = other
        .recover(Backend::Legacy, "ada", "restored from backup")
        .await
        .unwrap();
    assert!(epoch > Epoch(3));
    control.refresh().await.unwrap();
    let admitted = control.admit_write(soon()).await.unwrap();
    assert_eq!((admitted.stage, admitted.storage_stale), (Stage::Off, true));
    assert!(control.verify_chain().await.unwrap().intact());
}

async fn a_pin_overrides_the_stage_and_is_on_record(bench: &Bench) {
    let control = bench
        .replica_with(ControlOptions {
            pin: Some(Stage::Complete),
            ..ControlOptions::default()
        })
        .await;
    let admitted = control.admit_write(soon()).await.unwrap();
    assert_eq!((admitted.stage, admitted.pinned), (Stage::Complete, true));
    control.set_pin(None, "ada").await.unwrap();
    assert_eq!(control.snapshot().stage, Stage::Off);
    let kinds: Vec<String> = control
        .actions(10)
        .await
        .unwrap()
        .into_iter()
        .map(|action| action.kind)
        .collect();
    assert_eq!(kinds, ["unpin", "pin"]);
}

#[tokio::test]
async fn a_pinned_replica_starts_without_its_database() {
    let db = Db::open("postgres://nobody@127.0.0.1:1/none", &pool()).unwrap();
    let options = ControlOptions {
        pin: Some(Stage::Complete),
        ..ControlOptions::default()
    };
    let control = Control::open(db.clone(), options).await.unwrap();
    assert_eq!(control.snapshot().stage, Stage::Complete);
    assert!(Control::open(db, ControlOptions::default()).await.is_err());
}
