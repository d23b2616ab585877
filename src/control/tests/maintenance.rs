//! Expected outages.

use super::*;

on_both!(
    a_maintenance_is_known_to_every_replica_and_ends_by_itself,
    a_maintenance_can_be_ended_and_both_acts_are_on_record,
    in_live_storage_cannot_be_taken_away,
);

fn wish(of: Maintained, lasting: Duration) -> MaintenanceWish {
    MaintenanceWish {
        of,
        lasting,
        actor: "ada".to_owned(),
        reason: "a new disk".to_owned(),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

async fn a_maintenance_is_known_to_every_replica_and_ends_by_itself(bench: &Bench) {
    let (one, two) = (bench.replica().await, bench.replica().await);
    let shutdown = CancellationToken::new();
    let keeping = tokio::spawn({
        let (two, stop) = (two.clone(), shutdown.clone());
        async move { two.run(stop).await }
    });
    one.start_maintenance(wish(Maintained::Storage, Duration::from_secs(2)))
        .await
        .unwrap();
    assert!(one.under_maintenance(Backend::Storage));
    assert!(!one.under_maintenance(Backend::Legacy));
    while !two.under_maintenance(Backend::Storage) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nobody ends it, and nobody needs the database for it.
    bench
        .db
        .control("DELETE FROM cutover.state", vec![])
        .await
        .unwrap();
    while one.under_maintenance(Backend::Storage) || two.under_maintenance(Backend::Storage) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.cancel();
    keeping.await.unwrap();
}

async fn a_maintenance_can_be_ended_and_both_acts_are_on_record(bench: &Bench) {
    let control = bench.replica().await;
    let begun = control
        .start_maintenance(wish(Maintained::Legacy, HOUR))
        .await
        .unwrap();
    assert!(begun.left() > Duration::from_secs(3000));
    let ended = async || {
        control
            .end_maintenance(Maintained::Legacy, "ada", "done")
            .await
    };
    assert!(ended().await.unwrap());
    assert!(!ended().await.unwrap());
    assert_eq!(control.maintenance(), []);
    let actions = control.actions(10).await.unwrap();
    let kinds: Vec<&str> = actions.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["maintenance_end", "maintenance_start"]);
    assert!(control.verify_chain().await.unwrap().intact());
    // It begins no epoch: nothing of the stage changed.
    assert_eq!(control.snapshot().epoch, Epoch(1));
}

async fn in_live_storage_cannot_be_taken_away(bench: &Bench) {
    bench.begin_in(Stage::Live).await;
    let over_broker = ControlOptions {
        storage_over_broker: true,
        ..ControlOptions::default()
    };
    let (direct, brokered) = (bench.replica().await, bench.replica_with(over_broker).await);
    let refused = async |control: &Control, of| {
        let result = control.start_maintenance(wish(of, HOUR)).await;
        matches!(
            result,
            Err(TransitionError::Refused(Refused::MaintenanceInLive(_)))
        )
    };
    assert!(refused(&direct, Maintained::Storage).await);
    assert!(refused(&brokered, Maintained::Broker).await);
    assert!(!refused(&direct, Maintained::Broker).await);
    assert!(!direct.under_maintenance(Backend::Storage));
    assert!(!refused(&direct, Maintained::Legacy).await);
}
