//! The record of drills, on SQLite.

use std::path::PathBuf;
use std::time::Duration;

use super::record::{self, Drill, DrillWish, Moment, Outcome};
use crate::contract::Epoch;
use crate::sql::{Db, PoolOptions};
use crate::telemetry::Trigger;

/// Removed when the test is over.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

async fn database() -> (Folder, Db) {
    let path = std::env::temp_dir().join(format!("cutover-drill-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&path).unwrap();
    let folder = Folder(path);
    let url = format!("sqlite://{}", folder.0.join("legacy.db").display());
    let db = Db::open(&url, &PoolOptions::default()).unwrap();
    crate::control::install(&db).await.unwrap();
    crate::divergence::COMPONENT.install(&db).await.unwrap();
    super::COMPONENT.install(&db).await.unwrap();
    (folder, db)
}

fn wish(epoch: i64) -> DrillWish {
    DrillWish {
        trigger: Trigger::Inconsistency,
        epoch: Epoch(epoch),
        lasting: Duration::from_secs(30),
        actor: "ada".to_owned(),
        reason: "rehearsal".to_owned(),
    }
}

async fn latest(db: &Db) -> Drill {
    record::latest(db).await.unwrap().unwrap()
}

async fn count(db: &Db, sql: &str) -> i64 {
    let rows = db.control(sql, vec![]).await.unwrap();
    rows[0].some_int(0).unwrap()
}

#[tokio::test]
async fn one_drill_at_a_time_begins_under_the_epoch_that_is_and_leaves_a_record_of_who() {
    let (_folder, db) = database().await;
    assert!(!record::begin(&db, &wish(9)).await.unwrap());
    assert!(record::begin(&db, &wish(1)).await.unwrap());
    assert!(!record::begin(&db, &wish(1)).await.unwrap());
    let drill = latest(&db).await;
    assert_eq!((drill.trigger, drill.ended), (Trigger::Inconsistency, None));
    assert_eq!(drill.until_us - drill.started_us, 30_000_000);
    assert!(drill.left() > Duration::from_secs(20));
    let acts = "SELECT count(*) FROM cutover.actions WHERE kind = 'drill' AND actor = 'ada'";
    assert_eq!(count(&db, acts).await, 1, "what did not begin is no act");
}

#[tokio::test]
async fn a_cancelled_drill_is_over_and_makes_room_for_another() {
    let (_folder, db) = database().await;
    assert!(!record::cancel(&db, "ada").await.unwrap());
    record::begin(&db, &wish(1)).await.unwrap();
    assert!(record::cancel(&db, "bob").await.unwrap());
    assert!(!record::cancel(&db, "bob").await.unwrap());
    assert_eq!(latest(&db).await.ended, Some(Outcome::Cancelled));
    record::end(&db, 1, Outcome::TimeUp).await.unwrap();
    assert_eq!(latest(&db).await.ended, Some(Outcome::Cancelled));
    assert!(record::begin(&db, &wish(1)).await.unwrap());
    assert_eq!((latest(&db).await.id, latest(&db).await.ended), (2, None));
}

#[tokio::test]
async fn of_each_moment_the_earliest_sight_counts() {
    let (_folder, db) = database().await;
    record::begin(&db, &wish(1)).await.unwrap();
    let seconds = Duration::from_secs;
    for (replica, ago) in [("a", 5), ("b", 60), ("a", 600)] {
        let marked = record::mark(&db, 1, Moment::Fault, replica, seconds(ago)).await;
        marked.unwrap();
    }
    let marks = record::marks(&db, 1).await.unwrap();
    let ago_us = latest(&db).await.now_us - marks[0].1;
    assert_eq!((marks.len(), marks[0].0), (1, Moment::Fault));
    assert!((60_000_000..600_000_000).contains(&ago_us), "{ago_us}");
    assert_eq!(record::committed(&db, Epoch(1)).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_drill_planted_goes_with_it_and_nothing_else() {
    let (_folder, db) = database().await;
    record::begin(&db, &wish(1)).await.unwrap();
    for (key, fields, seen) in [
        ("planted", "cutover_drill", 1),
        ("seen before", "cutover_drill", 2),
        ("real", "name", 1),
    ] {
        let sql = format!(
            "INSERT INTO cutover.divergences (tbl, kind, key, fields, first_us, last_us, seen)
             VALUES ('campaigns', 'echo_mismatch', '{key}', '{fields}', 1, 1, {seen})"
        );
        db.control(&sql, vec![]).await.unwrap();
    }
    record::end(&db, 1, Outcome::TimeUp).await.unwrap();
    let left = "SELECT count(*) FROM cutover.divergences WHERE key <> 'planted'";
    assert_eq!(count(&db, left).await, 2);
    assert_eq!(
        count(&db, "SELECT count(*) FROM cutover.divergences").await,
        2
    );
}
