//! Lost history: noticed, refused, and the ways out.

use super::*;
use crate::evidence;

on_both!(
    an_epoch_lower_than_seen_stops_writes_until_recovered,
    another_lineage_stops_writes_until_recovered,
    a_rehearsed_recovery_changes_nothing_and_says_what_may_be_lost,
    what_live_wrote_is_kept_by_believing_storage,
    an_operator_may_tell_of_a_loss_that_nobody_saw,
);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn believing(authority: Backend) -> RecoverWish {
    RecoverWish {
        after: LostBy::Restore,
        authority,
        seen_epoch: None,
        actor: "ada".to_owned(),
        reason: "restored from backup".to_owned(),
        dry_run: false,
    }
}

/// A backup from epoch 2, in `dual_write`, comes back under the proxy.
async fn restore(bench: &Bench) {
    for sql in [
        "UPDATE cutover.state SET epoch = 2, stage = 'dual_write' WHERE id = 1",
        "DELETE FROM cutover.transitions WHERE epoch > 2",
    ] {
        bench.db.control(sql, vec![]).await.unwrap();
    }
}

async fn an_epoch_lower_than_seen_stops_writes_until_recovered(bench: &Bench) {
    let control = bench.replica().await;
    control.transition(to(Stage::DualWrite)).await.unwrap();
    control.transition(to(Stage::Shadow)).await.unwrap();
    restore(bench).await;
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
    let done = other.recover(believing(Backend::Legacy)).await.unwrap();
    assert!(
        done.epoch > Epoch(4),
        "one for the loss, one for the way out"
    );
    control.refresh().await.unwrap();
    let admitted = control.admit_write(soon()).await.unwrap();
    assert_eq!(
        (admitted.stage, admitted.storage_stale, admitted.latched),
        (Stage::DualWrite, true, true)
    );
    assert!(control.verify_chain().await.unwrap().intact());
    let actions = control.actions(10).await.unwrap();
    assert_eq!(actions[0].kind, "recover");
    assert!(actions[0].details.contains("may_lose"));
}

async fn another_lineage_stops_writes_until_recovered(bench: &Bench) {
    let control = bench.replica().await;
    let elsewhere = "UPDATE cutover.state SET lineage = 'another/00000001'";
    bench.db.control(elsewhere, vec![]).await.unwrap();
    control.refresh().await.unwrap();
    assert!(matches!(
        control.admit_write(soon()).await,
        Err(Held::Recovering)
    ));
    control.recover(believing(Backend::Legacy)).await.unwrap();
    control.refresh().await.unwrap();
    let admitted = control.admit_write(soon()).await.unwrap();
    assert_eq!(admitted.stage, Stage::Off, "nothing had begun");
}

async fn a_rehearsed_recovery_changes_nothing_and_says_what_may_be_lost(bench: &Bench) {
    bench.begin_in(Stage::Live).await;
    let control = bench.replica().await;
    control.transition(to(Stage::Shadow)).await.unwrap();
    restore(bench).await;
    control.refresh().await.unwrap();
    let before = control.history(10).await.unwrap().len();
    for authority in [Backend::Legacy, Backend::Storage] {
        let rehearsed = control
            .recover(RecoverWish {
                dry_run: true,
                ..believing(authority)
            })
            .await
            .unwrap();
        assert!(rehearsed.dry_run && !rehearsed.may_lose.is_empty());
        assert_eq!(rehearsed.from, Stage::DualWrite);
    }
    assert_eq!(control.history(10).await.unwrap().len(), before);
    control.refresh().await.unwrap();
    assert_eq!(control.snapshot().phase, Phase::Recovering);
}

async fn what_live_wrote_is_kept_by_believing_storage(bench: &Bench) {
    bench.begin_in(Stage::Live).await;
    let control = bench.replica().await;
    // Two epochs, so that the backup's is behind.
    control.transition(to(Stage::RampDown)).await.unwrap();
    control.transition(to(Stage::Live)).await.unwrap();
    restore(bench).await;
    bench.owe(1, "copy", "storage", 5_000_000).await;
    // The floor of the history that is lost.
    let floor = "INSERT INTO cutover.journal_floor VALUES (1000)";
    bench.db.control(floor, vec![]).await.unwrap();
    evidence::record_verified(
        &bench.db,
        Backend::Storage,
        true,
        Epoch(2),
        "ada",
        &json!({}),
    )
    .await
    .unwrap();
    control.refresh().await.unwrap();
    let done = control.recover(believing(Backend::Storage)).await.unwrap();
    assert_eq!((done.stage, done.stale), (Stage::RampDown, Backend::Legacy));
    assert!(!done.may_lose[0].contains("gives them up"), "{done:?}");
    let snapshot = control.snapshot();
    assert!(snapshot.legacy_stale && snapshot.bypass_refused && !snapshot.storage_stale);
    let entry = "SELECT kind || ' ' || direction FROM cutover.journal";
    assert_eq!(bench.text(entry).await, "copy legacy");
    // A verdict about rows that are gone is no verdict.
    let verdict = evidence::verified(&bench.db, Backend::Storage).await;
    assert_eq!(verdict.unwrap(), None);
    // Legacy cannot be gone back to before it is whole.
    let back = control.transition(to(Stage::DualWrite)).await.unwrap_err();
    assert!(matches!(
        back,
        TransitionError::Refused(Refused::Stale(Backend::Legacy))
    ));
}

async fn an_operator_may_tell_of_a_loss_that_nobody_saw(bench: &Bench) {
    let control = bench.replica().await;
    let refused = control.recover(believing(Backend::Legacy)).await;
    assert!(matches!(
        refused,
        Err(TransitionError::Refused(Refused::NotRecovering))
    ));
    let told = RecoverWish {
        seen_epoch: Some(Epoch(40)),
        ..believing(Backend::Legacy)
    };
    assert_eq!(control.recover(told).await.unwrap().epoch, Epoch(41));
}
