//! The service's own tables.

use uuid::Uuid;

use super::fixture::{Place, Under, now_ms, under_both};
use crate::contract::{AttemptId, Key};
use crate::reference::answer::Answer;
use crate::reference::ledger::{self, Taken};
use crate::sql::{Db, PoolOptions};

under_both![
    services_that_start_at_once_share_the_tables,
    an_attempt_is_forgotten_after_its_deadline_and_a_margin,
    equal_fences_pass_and_older_ones_do_not,
];

fn refusal() -> Answer {
    Answer {
        status: 409,
        json: "{}".to_owned(),
    }
}

async fn services_that_start_at_once_share_the_tables(under: Under) {
    let (url, place) = Place::new(under).await;
    let db = Db::open(&url, &PoolOptions::default()).unwrap();
    let (a, b) = tokio::join!(ledger::create(&db), ledger::create(&db));
    a.unwrap();
    b.unwrap();
    place.remove().await;
}

async fn an_attempt_is_forgotten_after_its_deadline_and_a_margin(under: Under) {
    let (url, place) = Place::new(under).await;
    let db = Db::open(&url, &PoolOptions::default()).unwrap();
    ledger::create(&db).await.unwrap();
    let hour_ago = now_ms() - 3_600_000;
    let attempts = [AttemptId::fresh(), AttemptId::fresh(), AttemptId::fresh()];
    let deadlines = [Some(hour_ago), Some(now_ms()), None];
    for (attempt, deadline) in attempts.into_iter().zip(deadlines) {
        let mut tx = db.begin().await.unwrap();
        let taken = ledger::take(&mut tx, attempt, deadline, Some(&refusal())).await;
        assert!(matches!(taken, Ok(Taken::New)), "{taken:?}");
        tx.commit().await.unwrap();
    }
    assert_eq!(ledger::forget(&db).await.unwrap(), 1);
    assert_eq!(ledger::forget(&db).await.unwrap(), 0);
    let mut tx = db.begin().await.unwrap();
    let taken = ledger::take(&mut tx, attempts[1], None, None).await;
    assert!(matches!(taken, Ok(Taken::Seen(answer)) if answer == refusal()));
    drop(tx);
    place.remove().await;
}

async fn equal_fences_pass_and_older_ones_do_not(under: Under) {
    let (url, place) = Place::new(under).await;
    let db = Db::open(&url, &PoolOptions::default()).unwrap();
    ledger::create(&db).await.unwrap();
    let key = Key(format!("[\"{}\"]", Uuid::new_v4()));
    for (table, token, passes) in [
        ("campaigns", 5, true),
        ("campaigns", 5, true),
        ("campaigns", 4, false),
        ("tags", 4, true),
        ("campaigns", 6, true),
    ] {
        let mut tx = db.begin().await.unwrap();
        let fences = [(key.clone(), token)];
        let raised = ledger::raise(&mut tx, table, &fences).await.unwrap();
        assert_eq!(raised.is_ok(), passes, "{table} {token}");
        if passes {
            tx.commit().await.unwrap();
        }
    }
    place.remove().await;
}
