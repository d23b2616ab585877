//! Moves, conversions, races, the audit.

use std::sync::Arc;

use super::*;
use crate::stage::Stage;

on_both!(
    the_ladder_is_climbed_and_every_step_is_on_record,
    racing_transitions_share_one_sequence_of_epochs,
    of_two_replicas_that_freeze_at_once_one_does_and_it_is_on_record,
    a_rollback_turns_intents_into_copies_that_keep_their_deadline,
    ramping_down_owes_legacy_and_leaves_the_outcome_unknown,
    falling_off_voids_the_journal_and_storage_is_stale,
    after_a_rollback_nothing_advances_until_rearmed,
    a_changed_or_removed_record_breaks_the_chain,
    a_dry_run_changes_nothing,
    a_transition_whose_caller_is_gone_still_ends,
    the_database_refuses_bypass_from_the_start_where_configured,
    installing_again_changes_nothing,
    a_content_of_the_flag_file_is_applied_once_across_replicas,
    the_flag_file_is_held_to_the_readiness_list_and_has_no_second_chance,
);

async fn the_ladder_is_climbed_and_every_step_is_on_record(bench: &Bench) {
    let control = bench.replica().await;
    assert_eq!(control.snapshot().stage, Stage::Off);
    assert_eq!(control.snapshot().epoch, Epoch(1));
    for (stage, epoch) in [(Stage::DualWrite, 2), (Stage::Shadow, 3)] {
        let done = control.transition(to(stage)).await.unwrap();
        assert_eq!((done.to, done.epoch), (stage, Epoch(epoch)));
        assert_eq!(control.snapshot().stage, stage);
    }
    let refused = control.transition(to(Stage::Live)).await.unwrap_err();
    assert!(matches!(
        refused,
        TransitionError::Refused(Refused::Stale(Backend::Storage))
    ));
    control
        .judge(
            Verdict {
                backend: Backend::Storage,
                stale: false,
                expected_epoch: Some(control.snapshot().epoch),
                evidence: json!({"rows": 7}),
            },
            "verify",
            "clean",
        )
        .await
        .unwrap();
    let live = control.transition(to(Stage::Live)).await.unwrap();
    // One epoch for the verdict, one for the drain, one for the move.
    assert_eq!(live.epoch, Epoch(6));
    let snapshot = control.snapshot();
    assert_eq!(
        (snapshot.stage, snapshot.phase),
        (Stage::Live, Phase::Steady)
    );
    assert!(snapshot.bypass_refused);
    let steps: Vec<String> = control
        .history(10)
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.step)
        .collect();
    assert_eq!(
        steps,
        ["move", "drain", "verified", "move", "move", "install"]
    );
    assert!(control.verify_chain().await.unwrap().intact());
}

async fn racing_transitions_share_one_sequence_of_epochs(bench: &Bench) {
    let (one, two) = (bench.replica().await, bench.replica().await);
    let seen = Some(one.snapshot().epoch);
    let request = |actor: &str| TransitionRequest {
        expected_epoch: seen,
        actor: actor.to_owned(),
        ..to(Stage::DualWrite)
    };
    let (left, right) = tokio::join!(
        one.transition(request("one")),
        two.transition(request("two"))
    );
    assert_eq!(u8::from(left.is_ok()) + u8::from(right.is_ok()), 1);
    let lost = left.err().or(right.err()).unwrap();
    assert!(matches!(
        lost,
        TransitionError::Refused(Refused::EpochMoved { .. })
    ));
    let epochs: Vec<i64> = one
        .history(10)
        .await
        .unwrap()
        .iter()
        .map(|record| record.epoch.0)
        .collect();
    assert_eq!(epochs, [2, 1]);
}

async fn a_rollback_turns_intents_into_copies_that_keep_their_deadline(bench: &Bench) {
    bench.begin_in(Stage::Live).await;
    bench.owe(1, "intent", "legacy", 5_000_000).await;
    let control = bench.replica().await;
    control
        .transition(rollback_to(Stage::DualWrite))
        .await
        .unwrap();
    let entry = bench
        .text(
            "SELECT kind || ' ' || direction || ' ' || CAST(deadline_us AS text) || ' ' || CAST(not_before_us AS text)
             || ' ' || coalesce(CAST(token AS text), 'nobody') FROM cutover.journal",
        )
        .await;
    assert_eq!(entry, "copy storage 5000000 5500000 nobody");
    assert_eq!(
        bench.text("SELECT state FROM cutover.operations").await,
        "converted"
    );
    assert!(control.snapshot().latched);
}

async fn ramping_down_owes_legacy_and_leaves_the_outcome_unknown(bench: &Bench) {
    bench.begin_in(Stage::Live).await;
    bench.owe(1, "intent", "legacy", 5_000_000).await;
    let control = bench.replica().await;
    control.transition(to(Stage::RampDown)).await.unwrap();
    let entry = "SELECT kind || ' ' || direction FROM cutover.journal";
    assert_eq!(bench.text(entry).await, "copy legacy");
    assert_eq!(
        bench.text("SELECT state FROM cutover.operations").await,
        "unknown"
    );
}

async fn falling_off_voids_the_journal_and_storage_is_stale(bench: &Bench) {
    bench.begin_in(Stage::DualWrite).await;
    bench.owe(1, "copy", "storage", 7_000_000).await;
    let control = bench.replica().await;
    control.transition(to(Stage::Off)).await.unwrap();
    let snapshot = control.snapshot();
    assert!(snapshot.storage_stale && !snapshot.latched);
    assert_eq!(
        (snapshot.generation, snapshot.deadline_last_us),
        (2, 7_500_000)
    );
    assert_eq!(control.owed().await.unwrap(), Owed::default());
}

async fn after_a_rollback_nothing_advances_until_rearmed(bench: &Bench) {
    bench.begin_in(Stage::Live).await;
    let control = bench.replica().await;
    control
        .transition(rollback_to(Stage::DualWrite))
        .await
        .unwrap();
    let latched = control.transition(to(Stage::Shadow)).await.unwrap_err();
    assert!(matches!(
        latched,
        TransitionError::Refused(Refused::Latched)
    ));
    control.rearm("ada", "the service is mended").await.unwrap();
    control.transition(to(Stage::Shadow)).await.unwrap();
    let actions = control.actions(10).await.unwrap();
    assert_eq!((actions.len(), actions[0].kind.as_str()), (1, "rearm"));
}

async fn a_changed_or_removed_record_breaks_the_chain(bench: &Bench) {
    let control = bench.replica().await;
    for stage in [Stage::DualWrite, Stage::Shadow, Stage::Off] {
        control.transition(to(stage)).await.unwrap();
    }
    for kind in ["repair", "drill"] {
        control
            .record_action("ada", kind, "why", json!({}))
            .await
            .unwrap();
    }
    assert!(control.verify_chain().await.unwrap().intact());
    let run = |sql: &'static str| bench.db.control(sql, vec![]);
    run("UPDATE cutover.transitions SET reason = 'no reason' WHERE epoch = 2")
        .await
        .unwrap();
    assert_eq!(control.verify_chain().await.unwrap().broken.len(), 1);
    run("DELETE FROM cutover.actions WHERE id = 1")
        .await
        .unwrap();
    assert_eq!(control.verify_chain().await.unwrap().broken.len(), 2);
    run("DELETE FROM cutover.transitions WHERE epoch = 4")
        .await
        .unwrap();
    let broken = control.verify_chain().await.unwrap().broken;
    assert!(
        broken
            .iter()
            .any(|what| what.contains("epoch 4 is missing")),
        "{broken:?}"
    );
}

async fn a_dry_run_changes_nothing(bench: &Bench) {
    let control = bench.replica().await;
    let rehearsal = TransitionRequest {
        dry_run: true,
        ..to(Stage::DualWrite)
    };
    let rehearsed = control.transition(rehearsal.clone()).await.unwrap();
    assert!(rehearsed.dry_run);
    assert_eq!(control.history(10).await.unwrap().len(), 1);
    let too_far = TransitionRequest {
        to: Stage::Live,
        ..rehearsal
    };
    assert!(control.transition(too_far).await.is_err());
}

async fn installing_again_changes_nothing(bench: &Bench) {
    let control = bench.replica().await;
    control.transition(to(Stage::DualWrite)).await.unwrap();
    let (left, right) = tokio::join!(install(&bench.db), install(control.db()));
    left.unwrap();
    right.unwrap();
    control.refresh().await.unwrap();
    assert_eq!(control.snapshot().stage, Stage::DualWrite);
}

async fn a_content_of_the_flag_file_is_applied_once_across_replicas(bench: &Bench) {
    let (one, two) = (bench.replica().await, bench.replica().await);
    let ready = judge(&one, vec![]);
    let content = "stage = \"dual_write\"\nreason = \"monday\"\n";
    let (left, right) = tokio::join!(
        one.apply_flag_file(content, &ready, true),
        two.apply_flag_file(content, &ready, true)
    );
    let moved = FlagFile::Consumed {
        asked: Stage::DualWrite,
        result: "move".to_owned(),
    };
    // Who lost the race reads the file again.
    for seen in [left, right] {
        assert!([&moved, &FlagFile::Waiting(Stage::DualWrite)].contains(&&seen));
    }
    assert_eq!(two.apply_flag_file(content, &ready, true).await, moved);
    assert_eq!(one.history(10).await.unwrap().len(), 2);
    one.transition(to(Stage::Off)).await.unwrap();
    // The old content comes back, after a restart, and does nothing but disagree.
    let again = bench
        .replica()
        .await
        .apply_flag_file(content, &ready, true)
        .await;
    assert!(again.disagrees(one.snapshot().stage));
    assert_eq!(one.history(10).await.unwrap().len(), 3);
    // What was refused had its chance, too.
    let too_far = "stage = \"live\"\nreason = \"now\"\n";
    let FlagFile::Consumed { result, .. } = one.apply_flag_file(too_far, &ready, true).await else {
        panic!("not consumed");
    };
    assert!(result.starts_with("refused: "), "{result}");
}

async fn the_flag_file_is_held_to_the_readiness_list_and_has_no_second_chance(bench: &Bench) {
    let control = bench.replica().await;
    let content = "stage = \"dual_write\"\nreason = \"monday\"\n";
    let unknown: Judge = Arc::new(|| Box::pin(async { None }));
    assert_eq!(
        control.apply_flag_file(content, &unknown, true).await,
        FlagFile::Waiting(Stage::DualWrite)
    );
    let blocked = Blocker {
        code: "storage_down",
        message: "it is down".to_owned(),
    };
    let not_ready = judge(&control, vec![blocked]);
    // A replica that has just started is given a moment.
    assert_eq!(
        control.apply_flag_file(content, &not_ready, false).await,
        FlagFile::Waiting(Stage::DualWrite)
    );
    let refused = FlagFile::Consumed {
        asked: Stage::DualWrite,
        result: "refused: not ready: storage_down".to_owned(),
    };
    assert_eq!(
        control.apply_flag_file(content, &not_ready, true).await,
        refused
    );
    let ready = judge(&control, vec![]);
    assert_eq!(
        control.apply_flag_file(content, &ready, true).await,
        refused
    );
    assert_eq!(control.snapshot().stage, Stage::Off);
    // The way back needs no readiness.
    control.transition(to(Stage::DualWrite)).await.unwrap();
    let back = "stage = \"off\"\nreason = \"enough\"\n";
    control.apply_flag_file(back, &not_ready, true).await;
    assert_eq!(control.snapshot().stage, Stage::Off);
}

/// A judge with a fixed opinion, of the epoch that the replica is in.
fn judge(control: &Control, blockers: Vec<Blocker>) -> Judge {
    let control = control.clone();
    Arc::new(move || {
        let judged = Judged {
            epoch: control.snapshot().epoch,
            blockers: blockers.clone(),
            evidence: json!({}),
        };
        Box::pin(async move { Some(judged) })
    })
}

async fn a_transition_whose_caller_is_gone_still_ends(bench: &Bench) {
    bench.begin_in(Stage::Shadow).await;
    bench.owe(1, "copy", "storage", 0).await;
    let control = bench.replica_with(impatient()).await;
    let mut news = control.watch();
    let caller = tokio::time::timeout(
        Duration::from_millis(100),
        control.transition(to(Stage::Live)),
    );
    assert!(caller.await.is_err());
    news.wait_for(|snapshot| snapshot.reason.starts_with("gave up draining"))
        .await
        .unwrap();
    assert_eq!(control.snapshot().phase, Phase::Steady);
}

async fn the_database_refuses_bypass_from_the_start_where_configured(bench: &Bench) {
    let strict = ControlOptions {
        bypass_always_refused: true,
        ..ControlOptions::default()
    };
    let control = bench.replica_with(strict).await;
    assert!(control.snapshot().bypass_refused);
    control.transition(to(Stage::DualWrite)).await.unwrap();
    assert!(control.snapshot().bypass_refused);
    assert_eq!(control.history(10).await.unwrap()[1].step, "bypass");
}

async fn of_two_replicas_that_freeze_at_once_one_does_and_it_is_on_record(bench: &Bench) {
    let (one, two) = (bench.replica().await, bench.replica().await);
    one.transition(to(Stage::DualWrite)).await.unwrap();
    two.refresh().await.unwrap();
    let wish = FreezeWish {
        expected_epoch: Epoch(2),
        actor: "failure_rate".to_owned(),
        reason: "half of the calls failed".to_owned(),
        evidence: json!({"value": 0.5}),
    };
    let (first, second) = tokio::join!(one.freeze(wish.clone()), two.freeze(wish));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    one.refresh().await.unwrap();
    let snapshot = one.snapshot();
    assert_eq!(
        (snapshot.epoch, snapshot.stage, snapshot.latched),
        (Epoch(3), Stage::DualWrite, true)
    );
    let record = &one.history(1).await.unwrap()[0];
    assert_eq!(
        (record.step.as_str(), record.kind.as_str()),
        ("freeze", "guard")
    );
    assert_eq!(record.evidence, r#"{"value":0.5}"#);
    let refused = one.transition(to(Stage::Shadow)).await.unwrap_err();
    assert!(matches!(
        refused,
        TransitionError::Refused(Refused::Latched)
    ));
    one.rearm("ada", "mended").await.unwrap();
    one.transition(to(Stage::Shadow)).await.unwrap();
}
