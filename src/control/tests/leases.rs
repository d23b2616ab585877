//! Leases, acknowledgements, and lost history.

use super::*;
use crate::stage::Stage;

on_both!(
    a_silent_replica_is_waited_for_at_most_its_lease,
    a_replica_that_acknowledges_is_not_waited_for,
    a_lease_that_ran_out_is_renewed_before_a_read,
    a_pin_overrides_the_stage_and_is_on_record,
    a_vote_reaches_the_others_at_once_and_ends_with_the_next,
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
    match reader.db() {
        Db::Postgres(pool) => pool.close().await,
        Db::Sqlite(pool) => pool.close().await,
    }
    tokio::time::sleep(Duration::from_millis(120)).await;
    let LeaseLost(last) = reader.snapshot_for_read().await.unwrap_err();
    assert_eq!(last.stage, Stage::DualWrite);
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

/// A heartbeat that waits for a transition must bring the new epoch back: otherwise it would renew a lease
/// under the old one after the writers of the new one had looked.
#[tokio::test]
async fn a_beat_that_meets_a_transition_comes_back_with_its_epoch() {
    let bench = postgres().await;
    let control = bench.replica().await;
    let mut transition = bench.db.begin().await.unwrap();
    for sql in [
        "SELECT 1 FROM cutover.state WHERE id = 1 FOR UPDATE",
        "UPDATE cutover.state SET epoch = 2, stage = 'dual_write' WHERE id = 1",
    ] {
        transition.fetch(sql, vec![]).await.unwrap();
    }
    let beating = tokio::spawn({
        let control = control.clone();
        async move { control.refresh().await }
    });
    let waits = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while bench.text(waits).await == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    transition.commit().await.unwrap();
    beating.await.unwrap().unwrap();
    assert_eq!(control.snapshot().epoch, Epoch(2));
    bench.gone().await;
}

#[tokio::test]
async fn an_announced_transition_is_known_long_before_the_next_beat() {
    let bench = postgres().await;
    let listener = bench
        .replica_with(ControlOptions {
            heartbeat: Duration::from_secs(3600),
            ..leased(3_600_000)
        })
        .await;
    let shutdown = CancellationToken::new();
    let keeping = tokio::spawn({
        let (listener, stop) = (listener.clone(), shutdown.clone());
        async move { listener.run(stop).await }
    });
    let listening = "SELECT count(*)::text FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database()";
    while bench.text(listening).await == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mover = bench.replica().await;
    mover.transition(to(Stage::DualWrite)).await.unwrap();
    let mut news = listener.watch();
    let there = news.wait_for(|snapshot| snapshot.stage == Stage::DualWrite);
    let heard = tokio::time::timeout(Duration::from_secs(5), there).await;
    assert!(heard.is_ok());
    shutdown.cancel();
    keeping.await.unwrap();
    bench.gone().await;
}

/// Packets vanish: every question would be waited for.
#[tokio::test]
async fn reads_do_not_queue_up_behind_a_database_that_swallows_questions() {
    let bench = postgres().await;
    let control = bench.replica_with(leased(200)).await;
    let mut freeze = bench.db.begin().await.unwrap();
    freeze
        .fetch("LOCK TABLE cutover.state IN ACCESS EXCLUSIVE MODE", vec![])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(210)).await;
    // The first read asks, in vain; those after it know.
    control.snapshot_for_read().await.unwrap_err();
    let began = Instant::now();
    for _ in 0..50 {
        control.snapshot_for_read().await.unwrap_err();
    }
    assert!(began.elapsed() < Duration::from_millis(200));
    freeze.commit().await.unwrap();
    while control.snapshot_for_read().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.gone().await;
}

async fn a_vote_reaches_the_others_at_once_and_ends_with_the_next(bench: &Bench) {
    let (one, two) = (bench.replica().await, bench.replica().await);
    let votes = async || {
        let replicas = two.replicas().await.unwrap();
        let own = &one.options().replica_id;
        let row = replicas.iter().find(|replica| replica.id == *own);
        row.map(|replica| replica.votes.clone())
    };
    assert_eq!(votes().await.as_deref(), Some(""));
    one.vote("unavailable,failure_rate".to_owned())
        .await
        .unwrap();
    assert_eq!(votes().await.as_deref(), Some("unavailable,failure_rate"));
    one.refresh().await.unwrap();
    assert_eq!(votes().await.as_deref(), Some("unavailable,failure_rate"));
    one.vote(String::new()).await.unwrap();
    assert_eq!(votes().await.as_deref(), Some(""));
}
