//! Tables that join. On SQLite, whose gate needs no function that the capture installs.

use super::*;

fn names(tables: &[&str]) -> Vec<String> {
    tables.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn the_tables_of_the_first_start_are_none_that_join() {
    let bench = sqlite().await;
    let control = bench.replica().await;
    assert!(
        control
            .newcomers(&names(&["ads"]))
            .await
            .unwrap()
            .is_empty()
    );
    let both = names(&["ads", "notes"]);
    assert_eq!(control.newcomers(&both).await.unwrap(), ["notes"]);
    // Until it is admitted.
    assert_eq!(control.newcomers(&both).await.unwrap(), ["notes"]);
    bench.gone().await;
}

#[tokio::test]
async fn a_pending_table_keeps_live_out_even_by_force_until_it_is_trusted() {
    let bench = sqlite().await;
    let control = bench.replica().await;
    control.newcomers(&names(&["ads"])).await.unwrap();
    bench.begin_in(Stage::Shadow).await;
    control.refresh().await.unwrap();
    let joining = |epoch| {
        let notes = Newcomer {
            name: "notes".to_owned(),
            pending: true,
        };
        let control = control.clone();
        async move { control.admit_tables(&[notes], epoch).await }
    };
    let epoch = control.snapshot().epoch;
    assert!(joining(epoch.next()).await.unwrap_err().is_stale_epoch());
    joining(epoch).await.unwrap();
    control
        .follow_tables(&names(&["ads", "notes"]))
        .await
        .unwrap();
    assert!(control.pending_tables().contains("notes"));
    let live = TransitionRequest {
        force: true,
        ..to(Stage::Live)
    };
    let refused = control.transition(live.clone()).await.unwrap_err();
    assert!(
        matches!(refused, TransitionError::Refused(Refused::Pending(1))),
        "{refused}"
    );
    let epoch = control.snapshot().epoch;
    control
        .trust_tables(&names(&["notes"]), epoch)
        .await
        .unwrap();
    assert!(control.pending_tables().is_empty());
    control.transition(live).await.unwrap();
    bench.gone().await;
}

#[tokio::test]
async fn a_table_that_a_restored_backup_knows_nothing_of_is_put_back_by_who_serves_it() {
    let bench = sqlite().await;
    let control = bench.replica().await;
    let both = names(&["ads", "notes"]);
    control.newcomers(&both).await.unwrap();
    let restored = "DELETE FROM cutover_tables WHERE tbl = 'notes'";
    bench.db.batch(restored).await.unwrap();
    control.follow_tables(&both).await.unwrap();
    assert!(control.newcomers(&both).await.unwrap().is_empty());
    bench.gone().await;
}
