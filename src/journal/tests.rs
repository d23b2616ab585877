//! Intents that wait while they hold rows, on a real SQLite: control SQL is the same on both databases.

use std::time::Duration;

use super::*;
use crate::contract::{AttemptId, Epoch, Key, OpId, Token};
use crate::sql::{Db, PoolOptions};

const STATE: &str =
    "CREATE TABLE cutover_state (generation INTEGER NOT NULL, epoch INTEGER NOT NULL);
    INSERT INTO cutover_state VALUES (1, 7);";

/// A database that is gone when the test ends.
pub(super) struct Bench {
    pub(super) db: Db,
    path: std::path::PathBuf,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let name = format!("cutover-journal-{}.db", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        let url = format!("sqlite://{}", path.display());
        let db = Db::open(&url, &PoolOptions::default()).unwrap();
        db.batch(STATE).await.unwrap();
        COMPONENT.install(&db).await.unwrap();
        Self { db, path }
    }

    async fn open(&self, intent: &Intent) -> bool {
        match open_intent(&self.db, intent).await.unwrap() {
            Opened::Until(_) => true,
            Opened::Held => false,
            Opened::Recorded(operation) => panic!("{operation:?}"),
        }
    }

    async fn before(&self, intent: &Intent, table: &str) -> Ahead {
        let before = pointing_before(&self.db, intent.token, &[table]).await;
        before.unwrap()
    }

    async fn take(&self, intent: &mut Intent, row: Named) -> Widened {
        let held = intent.keys.len();
        intent.keys.push(row.clone());
        intent.bonds.leaving.insert(row);
        let widened = widen(&self.db, intent, held, None).await.unwrap();
        if !matches!(widened, Widened::Until(_)) {
            intent.keys.truncate(held);
        }
        widened
    }

    async fn owe(&self, id: u32) {
        self.owe_to(Direction::ToStorage, id, None).await;
    }

    /// Something whose cause was sent when this departure was the last known.
    pub(super) async fn owes_legacy(&self, noted: Departure) {
        self.owe_to(Direction::ToLegacy, 1, Some(noted)).await;
    }

    pub(super) async fn pays_all(&self) {
        let all = "DELETE FROM cutover.journal";
        self.db.control(all, vec![]).await.unwrap();
    }

    async fn owe_to(&self, direction: Direction, id: u32, noted: Option<Departure>) {
        let mut tx = self.db.begin().await.unwrap();
        let (table, key) = row("rows", id);
        let keys = [key];
        let copies = Copies {
            direction,
            table: &table,
            keys: &keys,
            op_id: None,
            left: Left::No,
            noted,
        };
        append_copies(&mut tx, copies).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The keys that a claim under this epoch takes.
    async fn claim(&self, epoch: Epoch, outlook: &Outlook) -> Vec<Key> {
        let options = claiming(epoch);
        let claim = claim(&self.db, &options, outlook).await.unwrap();
        let entries = claim.into_iter().flat_map(|claim| claim.entries);
        entries.map(|entry| entry.key).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            std::fs::remove_file(format!("{}{end}", self.path.display())).ok();
        }
    }
}

fn claiming(epoch: Epoch) -> ClaimOptions {
    ClaimOptions {
        direction: Direction::ToStorage,
        batch_max: 10,
        lease: Duration::from_secs(5),
        clock_skew_max: Duration::ZERO,
        epoch_min: epoch,
    }
}

fn row(table: &str, id: u32) -> Named {
    (table.to_owned(), Key(format!("[{id}]")))
}

fn intent(keys: Vec<Named>, bonds: Bonds) -> Intent {
    Intent {
        op_id: OpId::fresh(),
        digest: "digest".to_owned(),
        epoch: Epoch(7),
        keys,
        bonds,
        token: Token::fresh(),
        attempt: AttemptId::fresh(),
        lease: Duration::from_secs(5),
    }
}

fn removal(row: Named) -> Intent {
    let leaving = [row.clone()].into();
    let bonds = Bonds {
        leaving,
        ..Bonds::default()
    };
    intent(vec![row], bonds)
}

fn pointing(row: Named, (table, key): Named) -> Intent {
    let target = Target {
        table,
        key: Some(key),
    };
    let bonds = Bonds {
        targets: vec![target],
        ..Bonds::default()
    };
    intent(vec![row], bonds)
}

#[tokio::test]
async fn nobody_begins_to_point_at_a_row_that_is_about_to_go() {
    let bench = Bench::new().await;
    let removal = removal(row("parents", 1));
    assert!(bench.open(&removal).await);
    assert!(
        !bench
            .open(&pointing(row("children", 1), row("parents", 1)))
            .await
    );
    assert!(
        bench
            .open(&pointing(row("children", 1), row("parents", 2)))
            .await
    );
    let mut somewhere = pointing(row("children", 2), row("parents", 2));
    somewhere.bonds.targets[0].key = None;
    assert!(!bench.open(&somewhere).await, "it may be the one");
    assert!(drop_intent(&bench.db, &removal).await.unwrap());
    assert!(bench.open(&somewhere).await);
}

#[tokio::test]
async fn a_removal_waits_for_what_was_pointing_before_it_and_not_for_what_came_later() {
    let bench = Bench::new().await;
    let earlier = pointing(row("children", 1), row("parents", 2));
    assert!(bench.open(&earlier).await);
    let mut removal = removal(row("parents", 1));
    assert!(bench.open(&removal).await);
    assert_eq!(bench.before(&removal, "children").await, Ahead::Passing);
    assert_eq!(bench.before(&removal, "others").await, Ahead::Nobody);
    assert!(drop_intent(&bench.db, &earlier).await.unwrap());
    assert_eq!(bench.before(&removal, "children").await, Ahead::Nobody);

    let later = pointing(row("children", 2), row("parents", 2));
    assert!(bench.open(&later).await);
    assert_eq!(bench.before(&removal, "children").await, Ahead::Nobody);
    let taken = bench.take(&mut removal, row("children", 9)).await;
    assert!(matches!(taken, Widened::Until(_)));
    let before = bench.before(&removal, "children").await;
    assert_eq!(
        before,
        Ahead::Passing,
        "it may point at the row that was taken"
    );
    assert!(bench.before(&later, "children").await == Ahead::Nobody);
}

#[tokio::test]
async fn of_two_removals_that_want_each_others_rows_the_younger_gives_way() {
    let bench = Bench::new().await;
    let mut elder = removal(row("rows", 1));
    let mut younger = removal(row("rows", 2));
    assert!(bench.open(&elder).await && bench.open(&younger).await);
    let behind = Widened::Behind(Ahead::Passing);
    assert_eq!(bench.take(&mut elder, row("rows", 2)).await, behind);
    let gives_way = Widened::Behind(Ahead::Elder);
    assert_eq!(bench.take(&mut younger, row("rows", 1)).await, gives_way);
    assert!(drop_intent(&bench.db, &younger).await.unwrap());
    let taken = bench.take(&mut elder, row("rows", 2)).await;
    assert!(matches!(taken, Widened::Until(_)));
    // A write that waits for nobody is waited for, though it is older.
    let plain = intent(vec![row("rows", 3)], Bonds::default());
    assert!(bench.open(&plain).await);
    let mut third = removal(row("rows", 4));
    assert!(bench.open(&third).await);
    assert_eq!(bench.take(&mut third, row("rows", 3)).await, behind);
}

#[tokio::test]
async fn an_intent_that_was_taken_over_is_not_widened_and_is_resolved_with_what_it_held() {
    let bench = Bench::new().await;
    let mut removal = removal(row("parents", 1));
    removal.lease = Duration::ZERO;
    assert!(bench.open(&removal).await);
    let taken = bench.take(&mut removal, row("children", 1)).await;
    assert!(matches!(taken, Widened::Until(_)));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let lease = Duration::from_secs(5);
    let over = claim_intents(&bench.db, lease, Duration::ZERO, &LowWater::default()).await;
    let over = over.unwrap().expect("its time is over");
    assert_eq!(over.keys.len(), 2);
    let taken = bench.take(&mut removal, row("children", 2)).await;
    assert_eq!(taken, Widened::NotOurs);
    assert!(!drop_intent(&bench.db, &removal).await.unwrap());
}

#[tokio::test]
async fn what_was_foretold_is_the_answer_only_of_what_took_effect() {
    for (state, reply) in [
        (OperationState::Done, Some("[7]")),
        (OperationState::NotApplied, None),
    ] {
        let bench = Bench::new().await;
        let removal = removal(row("parents", 1));
        assert!(bench.open(&removal).await);
        widen(&bench.db, &removal, 1, Some("[7]")).await.unwrap();
        let mut tx = bench.db.begin().await.unwrap();
        let keys = &removal.keys;
        let settled = settle_intent(&mut tx, removal.token, keys, removal.op_id, state, None);
        assert!(settled.await.unwrap());
        tx.commit().await.unwrap();
        let record = recorded(&bench.db, removal.op_id).await.unwrap();
        assert_eq!(record.expect("a record").reply.as_deref(), reply);
    }
}

#[tokio::test]
async fn what_stands_behind_a_quarantined_entry_waits_for_that_and_a_later_write_lets_it_be_tried_again()
 {
    let bench = Bench::new().await;
    bench.owe(1).await;
    let park = "UPDATE cutover.journal SET parked = 'quarantined'";
    bench.db.control(park, vec![]).await.unwrap();
    assert_eq!(retry_written_again(&bench.db).await.unwrap(), 0);
    bench.owe(1).await;
    bench.owe(2).await;
    let stands = payable(&bench.db, Direction::ToStorage).await.unwrap();
    assert_eq!((stands.open, stands.parked), (1, 0));
    let last = last_seq(&bench.db).await.unwrap();
    let until = owed_until(&bench.db, Direction::ToStorage, last).await;
    let until = until.unwrap();
    assert_eq!((until.open, until.quarantined), (3, 2));
    assert_eq!(retry_written_again(&bench.db).await.unwrap(), 1);
    let stands = payable(&bench.db, Direction::ToStorage).await.unwrap();
    assert_eq!(stands.open, 3);
}

#[tokio::test]
async fn a_claim_takes_one_entry_of_each_key_and_only_what_is_not_taken() {
    let bench = Bench::new().await;
    for id in [1, 2, 1, 3] {
        bench.owe(id).await;
    }
    let outlook = Outlook::default();
    let mut taken = bench.claim(Epoch(7), &outlook).await;
    taken.sort();
    assert_eq!(taken, [1, 2, 3].map(|id| row("rows", id).1));
    bench.owe(1).await;
    bench.owe(4).await;
    let taken = bench.claim(Epoch(7), &outlook).await;
    assert_eq!(taken, [row("rows", 4).1]);
}

#[tokio::test]
async fn an_entry_that_turned_up_below_the_mark_is_found_by_the_first_claim_of_the_next_epoch() {
    let bench = Bench::new().await;
    let outlook = Outlook::default();
    let place = async |id: u32, seq: i64| {
        bench.owe(id).await;
        let place = "UPDATE cutover.journal SET seq = $1 WHERE seq = (SELECT max(seq) FROM cutover.journal)";
        bench.db.control(place, vec![seq.into()]).await.unwrap();
    };
    place(1, 50_000).await;
    assert_eq!(bench.claim(Epoch(7), &outlook).await.len(), 1);
    bench.owe(2).await;
    place(3, 60_000).await;
    let moved = "UPDATE cutover.journal SET seq = 10 WHERE seq = 50001";
    bench.db.control(moved, vec![]).await.unwrap();
    assert_eq!(
        bench.claim(Epoch(7), &outlook).await,
        [row("rows", 3).1],
        "its number is far below what was open"
    );
    let next = "UPDATE cutover.state SET epoch = 8";
    bench.db.control(next, vec![]).await.unwrap();
    assert_eq!(bench.claim(Epoch(8), &outlook).await, [row("rows", 2).1]);
}

#[tokio::test]
async fn a_round_over_parked_entries_meets_none_twice_though_it_has_rested_again() {
    let bench = Bench::new().await;
    for id in [1, 2] {
        bench.owe(id).await;
    }
    let park = "UPDATE cutover.journal SET parked = 'constraint'";
    bench.db.control(park, vec![]).await.unwrap();
    let outlook = Outlook::default();
    let one_at_a_time = ClaimOptions {
        batch_max: 1,
        ..claiming(Epoch(7))
    };
    let (mut met, mut begun_us) = (Vec::new(), None);
    while let Some(claim) = claim_parked(&bench.db, &one_at_a_time, &outlook, begun_us)
        .await
        .unwrap()
    {
        begun_us.get_or_insert(claim.made_us);
        let seqs: Vec<i64> = claim.entries.iter().map(|entry| entry.seq).collect();
        let rest = Duration::from_micros(1);
        claim
            .release(&bench.db, &seqs, rest, Some(Parked::Constraint))
            .await
            .unwrap();
        met.extend(claim.entries.into_iter().map(|entry| entry.key.0));
    }
    assert_eq!(met, ["[1]", "[2]"]);
}

#[tokio::test]
async fn an_entry_that_stands_for_others_has_their_place_and_their_note_that_a_removal_was_sent() {
    let bench = Bench::new().await;
    bench.owe(1).await;
    let options = claiming(Epoch(7));
    let take = async || {
        let claimed = claim(&bench.db, &options, &Outlook::default()).await;
        claimed.unwrap().unwrap()
    };
    let first = take().await;
    let seqs = [first.entries[0].seq];
    note_removals(&bench.db, Token::fresh(), &seqs)
        .await
        .unwrap();
    first
        .release(&bench.db, &seqs, Duration::ZERO, None)
        .await
        .unwrap();
    let second = take().await;
    assert!(!second.entries[0].removing, "another's token");
    note_removals(&bench.db, second.token, &seqs).await.unwrap();
    second
        .release(&bench.db, &seqs, Duration::ZERO, None)
        .await
        .unwrap();
    bench.owe(2).await;
    bench.owe(1).await;
    let third = take().await;
    let [two, one] = third.entries.as_slice() else {
        panic!("{:?}", third.entries);
    };
    assert_eq!((two.removing, one.removing), (false, true));
    let removal = Removal {
        seq: two.seq,
        table: "rows".to_owned(),
    };
    let removals = [removal];
    let older = older_than(&bench.db, Direction::ToStorage, &removals).await;
    let held = older
        .unwrap()
        .hold(&removals, |table| [table.to_owned()].into());
    assert_eq!(held, [two.seq].into());
}

#[tokio::test]
async fn a_journal_of_an_earlier_version_gets_what_it_lacks() {
    let bench = Bench::new().await;
    let before = "DROP INDEX journal_leaves; ALTER TABLE cutover_journal DROP COLUMN leaves;
        ALTER TABLE cutover_journal DROP COLUMN points;
        ALTER TABLE cutover_journal DROP COLUMN left_by;
        ALTER TABLE cutover_journal DROP COLUMN noted; DROP TABLE cutover_departures;
        DROP TABLE cutover_created; DROP TABLE cutover_journal_floor;
        DROP INDEX journal_since; ALTER TABLE cutover_journal DROP COLUMN since;
        ALTER TABLE cutover_journal DROP COLUMN removing;
        DELETE FROM cutover_schema_versions WHERE version >= 2";
    bench.db.batch(before).await.unwrap();
    for _ in 0..2 {
        COMPONENT.install(&bench.db).await.unwrap();
    }
    assert!(bench.open(&removal(row("parents", 1))).await);
}
