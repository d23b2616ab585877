//! Draining, the gate, and who gives up.

use super::*;
use crate::stage::{Backend, Stage};

on_both!(
    a_drain_gives_up_while_anything_is_owed,
    a_drain_goes_live_as_soon_as_the_last_entry_is_paid,
    a_rollback_ends_a_drain,
    an_orphaned_drain_is_given_up_by_another_replica,
    going_back_from_ramp_down_waits_for_unrecorded_debts,
    a_dropped_debt_makes_legacy_stale,
    a_replica_that_died_dirty_makes_legacy_stale_once,
);

async fn a_drain_gives_up_while_anything_is_owed(bench: &Bench) {
    bench.begin_in(Stage::Shadow).await;
    bench.owe(1, "copy", "storage", 0).await;
    let control = bench.replica_with(impatient()).await;
    let error = control.transition(to(Stage::Live)).await.unwrap_err();
    assert!(
        matches!(error, TransitionError::NotDrained(Refused::Owed(1))),
        "{error}"
    );
    let snapshot = control.snapshot();
    assert_eq!(
        (snapshot.stage, snapshot.phase),
        (Stage::Shadow, Phase::Steady)
    );
    let steps: Vec<String> = control
        .history(2)
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.step)
        .collect();
    assert_eq!(steps, ["give_up", "drain"]);
}

async fn a_drain_goes_live_as_soon_as_the_last_entry_is_paid(bench: &Bench) {
    bench.begin_in(Stage::Shadow).await;
    bench.owe(1, "copy", "storage", 0).await;
    let control = bench.replica().await;
    let mut news = control.watch();
    let mover = control.clone();
    let moving = tokio::spawn(async move { mover.transition(to(Stage::Live)).await });
    news.wait_for(|snapshot| snapshot.phase == Phase::Draining)
        .await
        .unwrap();
    // A writer that comes meanwhile holds in memory and goes on under the new stage.
    let writer = control.clone();
    let writing = tokio::spawn(async move {
        writer
            .admit_write(Instant::now() + Duration::from_secs(5))
            .await
    });
    bench.pay_everything().await;
    let done = moving.await.unwrap().unwrap();
    assert_eq!(done.to, Stage::Live);
    let admitted = writing.await.unwrap().unwrap();
    assert_eq!((admitted.stage, admitted.epoch), (Stage::Live, done.epoch));
}

async fn a_rollback_ends_a_drain(bench: &Bench) {
    bench.begin_in(Stage::Shadow).await;
    bench.owe(1, "copy", "storage", 0).await;
    let control = bench.replica().await;
    let mut news = control.watch();
    let mover = control.clone();
    let moving = tokio::spawn(async move { mover.transition(to(Stage::Live)).await });
    news.wait_for(|snapshot| snapshot.phase == Phase::Draining)
        .await
        .unwrap();
    control
        .transition(rollback_to(Stage::DualWrite))
        .await
        .unwrap();
    let error = moving.await.unwrap().unwrap_err();
    assert!(
        matches!(error, TransitionError::Refused(Refused::EpochMoved { .. })),
        "{error}"
    );
    assert_eq!(control.snapshot().stage, Stage::DualWrite);
}

async fn an_orphaned_drain_is_given_up_by_another_replica(bench: &Bench) {
    bench.begin_in(Stage::Shadow).await;
    let orphan = "UPDATE cutover.state SET epoch = 2, phase = 'draining', drain_to = 'live',
        drain_deadline_us = cutover.now_us() + 300000, coordinator = 'dead' WHERE id = 1";
    bench.db.control(orphan, vec![]).await.unwrap();
    let control = bench.replica().await;
    let held = control
        .admit_write(Instant::now() + Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(held, Held::Draining));
    let shutdown = CancellationToken::new();
    let (keeper, stop) = (control.clone(), shutdown.clone());
    let keeping = tokio::spawn(async move { keeper.run(stop).await });
    let admitted = control
        .admit_write(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!((admitted.stage, admitted.epoch), (Stage::Shadow, Epoch(3)));
    shutdown.cancel();
    keeping.await.unwrap();
    assert!(control.replicas().await.unwrap().is_empty());
}

async fn going_back_from_ramp_down_waits_for_unrecorded_debts(bench: &Bench) {
    bench.begin_in(Stage::RampDown).await;
    let control = bench.replica_with(impatient()).await;
    let snapshot = control.snapshot();
    let debt = control.incur_legacy_debt(&snapshot).unwrap();
    let error = control.transition(to(Stage::Live)).await.unwrap_err();
    assert!(
        matches!(error, TransitionError::NotDrained(Refused::Unconfirmed(1))),
        "{error}"
    );
    // Admitted under the epoch before: it must be admitted anew.
    assert!(control.incur_legacy_debt(&snapshot).is_none());
    debt.settled();
    control.transition(to(Stage::Live)).await.unwrap();
    assert_eq!(control.snapshot().stage, Stage::Live);
}

async fn a_dropped_debt_makes_legacy_stale(bench: &Bench) {
    bench.begin_in(Stage::RampDown).await;
    let control = bench.replica().await;
    let shutdown = CancellationToken::new();
    let (keeper, stop) = (control.clone(), shutdown.clone());
    let keeping = tokio::spawn(async move { keeper.run(stop).await });
    drop(control.incur_legacy_debt(&control.snapshot()));
    control
        .watch()
        .wait_for(|snapshot| snapshot.legacy_stale)
        .await
        .unwrap();
    let error = control.transition(to(Stage::Live)).await.unwrap_err();
    assert!(
        matches!(
            error,
            TransitionError::Refused(Refused::Stale(Backend::Legacy))
        ),
        "{error}"
    );
    shutdown.cancel();
    keeping.await.unwrap();
}

async fn a_replica_that_died_dirty_makes_legacy_stale_once(bench: &Bench) {
    bench.begin_in(Stage::RampDown).await;
    let long_dead = "INSERT INTO cutover.replicas (id, version, config_digest, epoch, seen_us, lease_until_us, dirty)
        VALUES ('dead', '0', '', 1, 0, 1, TRUE)";
    bench.db.control(long_dead, vec![]).await.unwrap();
    let control = bench.replica().await;
    let refused = control.transition(to(Stage::Live)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            TransitionError::Refused(Refused::Stale(Backend::Legacy))
        ),
        "{refused}"
    );
    let shutdown = CancellationToken::new();
    let (keeper, stop) = (control.clone(), shutdown.clone());
    let keeping = tokio::spawn(async move { keeper.run(stop).await });
    let mut news = control.watch();
    news.wait_for(|snapshot| snapshot.legacy_stale)
        .await
        .unwrap();
    shutdown.cancel();
    keeping.await.unwrap();
    assert!(control.replicas().await.unwrap().is_empty());
    let records = control.history(10).await.unwrap();
    let stale = records.iter().filter(|record| record.step == "stale");
    assert_eq!(stale.count(), 1);
}

#[tokio::test]
async fn a_held_gate_delays_a_transition_and_then_it_gives_up_without_effect() {
    let bench = postgres().await;
    let control = bench.replica_with(impatient()).await;
    let mut writer = bench.db.begin().await.unwrap();
    assert_eq!(writer.dialect(), Dialect::Postgres);
    writer
        .fetch(
            "SELECT pg_advisory_xact_lock_shared($1)::text",
            vec![GATE_LOCK.into()],
        )
        .await
        .unwrap();
    let began = Instant::now();
    let error = control.transition(to(Stage::DualWrite)).await.unwrap_err();
    assert!(matches!(error, TransitionError::GateHeld { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(control.history(10).await.unwrap().len(), 1);
    // The same, and the writer commits in time.
    let patient = bench.replica().await;
    let moving = tokio::spawn(async move { patient.transition(to(Stage::DualWrite)).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    writer.commit().await.unwrap();
    moving.await.unwrap().unwrap();
    bench.gone().await;
}

#[tokio::test]
async fn a_rollback_outlasts_who_holds_the_gate_and_says_who_that_is() {
    let bench = postgres().await;
    bench.begin_in(Stage::Live).await;
    let control = bench.replica_with(impatient()).await;
    let mut holder = bench.db.begin().await.unwrap();
    let sql = "SELECT pg_backend_pid()::bigint FROM pg_advisory_xact_lock_shared($1)";
    let rows = holder.fetch(sql, vec![GATE_LOCK.into()]).await.unwrap();
    let pid = rows[0].some_int(0).unwrap();
    // As a program does whose transaction is long for a good reason.
    let patient = "SET LOCAL idle_in_transaction_session_timeout = 0";
    holder.fetch(patient, vec![]).await.unwrap();
    let back = control.clone();
    let rollback =
        tokio::spawn(async move { back.transition(rollback_to(Stage::DualWrite)).await });
    // Somebody who does not insist gives up, twice, and the rollback does not.
    for _ in 0..2 {
        let other = bench.replica_with(impatient()).await;
        let error = other.transition(to(Stage::DualWrite)).await.unwrap_err();
        assert!(
            error.to_string().contains(&format!("pid {pid} (")),
            "{error}"
        );
    }
    while !control.gate_held_by().iter().any(|one| one.pid == pid) {
        assert!(!rollback.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    holder.commit().await.unwrap();
    let done = rollback.await.unwrap().unwrap();
    assert_eq!((done.from, done.to), (Stage::Live, Stage::DualWrite));
    assert_eq!(*control.gate_held_by(), []);
    bench.gone().await;
}
