//! A storm: children are inserted, pointed elsewhere and removed through two replicas while their parents are
//! removed, replicas are killed, storage is cut off, and legacy takes over at last.
//!
//! Every client knows when each of its writes began and was acknowledged. So of each row it can be said what it
//! must hold, and whether it may be gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fixture::{HttpClient, Proxy, Wiring, World, WorldOptions, eventually};
use crate::relations::{TABLES, insert, live, nothing_is_owed, options, remove};

const SOON: Duration = Duration::from_secs(60);
const DEFINITE_WITHIN: Duration = Duration::from_secs(60);
const PAUSE_BETWEEN_REPEATS: Duration = Duration::from_millis(20);
const ACCOUNTS: u64 = 4;
const WRITERS: u64 = 6;
const REMOVERS: u64 = 2;
/// Rows of each table that a writer goes round.
const ROWS: u64 = 3;
/// Removals to wait for in each part of a storm.
const ENOUGH_REMOVALS: usize = 12;
const NO_ORPHAN: [&str; 4] = [
    "SELECT count(*) FROM projects c WHERE NOT EXISTS (SELECT FROM accounts p WHERE p.id = c.account)",
    "SELECT count(*) FROM tasks c WHERE NOT EXISTS (SELECT FROM projects p WHERE p.id = c.project)",
    "SELECT count(*) FROM notes c WHERE account IS NOT NULL AND NOT EXISTS (SELECT FROM accounts p WHERE p.id = c.account)",
    "SELECT count(*) FROM notes c WHERE project IS NOT NULL AND NOT EXISTS (SELECT FROM projects p WHERE p.id = c.project)",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_child_outlives_its_parent_though_a_replica_is_killed_and_legacy_takes_over() {
    let mut world = live(two_replicas(), true).await;
    let storm = Storm::start(&world, &world.proxies).await;
    storm.goes_on().await;
    world.proxies[0].process.kill();
    storm.goes_on().await;
    world.proxies[0].restart().await;
    storm.goes_on().await;
    world.proxies[1].rollback().await;
    world.proxies[1].reaches("dual_write", SOON).await;
    storm.goes_on().await;
    let told = storm.stop().await;
    assert_told(&world, &told).await;
    assert_no_orphan(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_child_outlives_its_parent_where_storage_has_no_relations() {
    let mut world = live(two_replicas(), false).await;
    let storm = Storm::start(&world, &world.proxies).await;
    storm.goes_on().await;
    world.proxies[1].process.kill();
    storm.goes_on().await;
    world.proxies[1].restart().await;
    storm.goes_on().await;
    let told = storm.stop().await;
    nothing_is_owed(&world).await;
    world.proxies[0].rollback().await;
    world.proxies[0].reaches("dual_write", SOON).await;
    assert_told(&world, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_that_storage_was_cut_off_from_end_alike_on_both_sides() {
    let options = WorldOptions {
        transport: "http",
        wiring: Wiring::Lines,
        ..two_replicas()
    };
    let world = live(options, true).await;
    let storm = Storm::start(&world, &world.proxies).await;
    for _ in 0..2 {
        storm.goes_on().await;
        for lines in &world.lines {
            lines.storage.cut();
        }
        let doubts = "SELECT count(*) FROM cutover.journal WHERE kind = 'intent' AND attempts > 1";
        eventually("a doubt is being resolved", SOON, async || {
            let doubts = world.legacy.number(doubts).await;
            (doubts > 0).then_some(()).ok_or(doubts)
        })
        .await;
        for lines in &world.lines {
            lines.storage.mend();
        }
    }
    storm.goes_on().await;
    let told = storm.stop().await;
    nothing_is_owed(&world).await;
    world.proxies[0].rollback().await;
    world.proxies[0].reaches("dual_write", SOON).await;
    assert_told(&world, &told).await;
    assert_no_orphan(&world).await;
}

fn two_replicas() -> WorldOptions {
    WorldOptions {
        replicas: 2,
        ..options()
    }
}

/// When a write was sent first and when it was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: Instant,
    ended: Instant,
}

/// What a client last wrote to a row.
#[derive(Clone, Debug)]
struct Wrote {
    account: u64,
    turn: String,
    span: Span,
}

/// What clients were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By table and id; none where the row was removed, or found to be gone.
    rows: BTreeMap<(&'static str, u64), Option<Wrote>>,
    /// Removals of accounts.
    removed: Vec<(u64, Span)>,
    /// Answers by table and code.
    answers: BTreeMap<(&'static str, String), usize>,
}

/// A storm under way.
pub(crate) struct Storm {
    stop: CancellationToken,
    told: Arc<Mutex<Told>>,
    clients: Vec<JoinHandle<()>>,
}

/// One client.
struct Client {
    number: u64,
    door: HttpClient,
    told: Arc<Mutex<Told>>,
    dice: u64,
}

impl Storm {
    /// Starts the clients, at these replicas.
    pub(crate) async fn start(world: &World, proxies: &[Proxy]) -> Self {
        for id in 1..=ACCOUNTS {
            let row = json!({"id": id, "name": "account"});
            world.proxies[0].query(insert("accounts", row)).await.ok();
        }
        let (stop, told) = (CancellationToken::new(), Arc::default());
        let client = |number: u64| Client {
            number,
            door: proxies[number as usize % proxies.len()].door.clone(),
            told: Arc::clone(&told),
            dice: number + 1,
        };
        let writers =
            (0..WRITERS).map(|number| tokio::spawn(client(number).write_until(stop.clone())));
        let removers =
            (0..REMOVERS).map(|number| tokio::spawn(client(number).remove_until(stop.clone())));
        Self {
            clients: writers.chain(removers).collect(),
            stop,
            told,
        }
    }

    /// Waits for more removals, in the midst of more writes.
    pub(crate) async fn goes_on(&self) {
        let removals = || self.told.lock().expect("no panic").removed.len();
        let before = removals();
        eventually("removals get through", SOON, async || {
            let more = removals() - before;
            assert!(
                !self.clients.iter().any(JoinHandle::is_finished),
                "a client has failed"
            );
            (more >= ENOUGH_REMOVALS).then_some(()).ok_or(more)
        })
        .await;
    }

    /// Ends it, and says what the clients were told.
    pub(crate) async fn stop(self) -> Told {
        self.stop.cancel();
        for client in self.clients {
            client.await.expect("a client ends well");
        }
        let told = std::mem::take(&mut *self.told.lock().expect("no panic"));
        println!("{:?}", told.answers);
        told
    }
}

impl Client {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    async fn remove_until(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let own = ACCOUNTS / REMOVERS;
            let account = 1 + self.number * own + self.roll(own);
            let (span, _) = self
                .definite("accounts", remove("accounts", json!({"id": account})))
                .await;
            self.told
                .lock()
                .expect("no panic")
                .removed
                .push((account, span));
            let row = json!({"id": account, "name": "account"});
            let (_, again) = self.definite("accounts", insert("accounts", row)).await;
            again.expect("nothing refuses it");
            tokio::time::sleep(PAUSE_BETWEEN_REPEATS).await;
        }
    }

    async fn write_until(mut self, stop: CancellationToken) {
        for turn in 0_u64.. {
            if stop.is_cancelled() {
                break;
            }
            let turn = format!("{} {turn}", self.number);
            let id = 100 * (1 + self.number) + self.roll(ROWS);
            let account = 1 + self.roll(ACCOUNTS);
            match self.roll(8) {
                0 | 1 => {
                    let row = json!({"id": id, "account": account, "name": turn});
                    self.put("projects", id, row, account, turn).await;
                }
                2 => {
                    let data = json!({"account": account, "name": turn});
                    self.change("projects", id, data, account, turn).await;
                }
                3 => {
                    let (_, answer) = self
                        .definite("projects", remove("projects", json!({"id": id})))
                        .await;
                    answer.expect("a removal is not refused");
                    self.knows("projects", id, None);
                }
                4 | 5 => {
                    let project = 100 * (1 + self.roll(WRITERS)) + self.roll(ROWS);
                    let row = json!({"project": project, "number": self.number, "title": turn});
                    self.definite("tasks", upsert("tasks", row)).await.1.ok();
                }
                6 => {
                    let row = json!({"id": id, "account": account, "project": null, "body": turn});
                    self.put("notes", id, row, account, turn).await;
                }
                _ => {
                    let data = json!({"account": account, "body": turn});
                    self.change("notes", id, data, account, turn).await;
                }
            }
        }
    }

    async fn put(&mut self, table: &'static str, id: u64, row: Value, account: u64, turn: String) {
        if let (span, Ok(_)) = self.definite(table, upsert(table, row)).await {
            let wrote = Wrote {
                account,
                turn,
                span,
            };
            self.knows(table, id, Some(wrote));
        }
    }

    async fn change(
        &mut self,
        table: &'static str,
        id: u64,
        data: Value,
        account: u64,
        turn: String,
    ) {
        let query = json!({"type": "update", "table": table, "where": {"id": id}, "data": data});
        if let (span, Ok(row)) = self.definite(table, query).await {
            let wrote = Wrote {
                account,
                turn,
                span,
            };
            self.knows(table, id, (!row.is_null()).then_some(wrote));
        }
    }

    fn knows(&self, table: &'static str, id: u64, wrote: Option<Wrote>) {
        self.told
            .lock()
            .expect("no panic")
            .rows
            .insert((table, id), wrote);
    }

    fn counts(&self, table: &'static str, code: &str) {
        let mut told = self.told.lock().expect("no panic");
        *told.answers.entry((table, code.to_owned())).or_default() += 1;
    }

    /// Sends a write under one operation id until its answer is definite: the reply, or a relation's refusal.
    async fn definite(&self, table: &'static str, query: Value) -> (Span, Result<Value, String>) {
        let op_id = uuid::Uuid::now_v7().to_string();
        let body = json!({"db": "campaign_db", "query": query, "op_id": op_id});
        let began = Instant::now();
        loop {
            let answer = self.door.post("/v1/query", &body).await;
            let (code, result) = match answer {
                Ok(answer) if answer.status.is_success() => ("ok".to_owned(), Ok(answer.body)),
                Ok(answer) => (answer.code().to_owned(), Err(answer.body.to_string())),
                Err(_) => ("gone".to_owned(), Err(String::new())),
            };
            self.counts(table, &code);
            let ended = Instant::now();
            match code.as_str() {
                "ok" | "constraint" => return (Span { began, ended }, result),
                "backend_unavailable" | "outcome_unknown" | "gone" => {}
                other => panic!("{other} is no answer to {body}: {result:?}"),
            }
            assert!(ended < began + DEFINITE_WITHIN, "still {code} to {body}");
            tokio::time::sleep(PAUSE_BETWEEN_REPEATS).await;
        }
    }
}

fn upsert(table: &str, data: Value) -> Value {
    json!({"type": "upsert", "table": table, "data": data})
}

/// Fails unless both sides are equal, and hold what the clients were told.
pub(crate) async fn assert_told(world: &World, told: &Told) {
    for table in TABLES {
        world.settles(table, SOON).await;
    }
    nothing_is_owed(world).await;
    let offences: Vec<String> = [
        held(world, "projects", "name").await,
        held(world, "notes", "body").await,
    ]
    .into_iter()
    .flat_map(|(table, held)| offences(told, table, &held))
    .collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// Account and text of each row.
type HeldRows = BTreeMap<u64, (Option<u64>, String)>;

async fn held(world: &World, table: &'static str, text: &str) -> (&'static str, HeldRows) {
    let sql = format!("SELECT concat_ws('|', id, coalesce(account, 0), {text}) FROM {table}");
    let rows = world.legacy.texts(&sql).await;
    let row = |line: &String| {
        let parts: Vec<&str> = line.splitn(3, '|').collect();
        let number = |at: usize| parts[at].parse().expect("a number");
        let account = Some(number(1)).filter(|&account| account != 0);
        (number(0), (account, parts[2].to_owned()))
    };
    (table, rows.iter().map(row).collect())
}

fn offences(told: &Told, table: &'static str, held: &HeldRows) -> Vec<String> {
    let of_table = told.rows.iter().filter(|((name, _), _)| *name == table);
    of_table
        .filter_map(|((_, id), wrote)| {
            let why = match (wrote, held.get(id)) {
                (None, None) => None,
                (None, Some(_)) => Some("it was removed"),
                (Some(wrote), None) if may_be_gone(told, wrote) => None,
                (Some(_), None) => Some("it is gone and its account was not removed"),
                (Some(wrote), Some((_, text))) if *text != wrote.turn => {
                    Some("its last write is lost")
                }
                (Some(wrote), Some((None, _))) if may_be_gone(told, wrote) => None,
                (Some(_), Some((None, _))) => {
                    Some("it was cleared and its account was not removed")
                }
                (Some(wrote), Some((Some(account), _))) if *account != wrote.account => {
                    Some("it points elsewhere")
                }
                (Some(wrote), Some(_)) if must_be_gone(told, wrote) => {
                    Some("its account was removed")
                }
                (Some(_), Some(_)) => None,
            };
            why.map(|why| {
                format!(
                    "{table} {id}: {why}: told {wrote:?}, held {:?}",
                    held.get(id)
                )
            })
        })
        .collect()
}

fn may_be_gone(told: &Told, wrote: &Wrote) -> bool {
    let mut removed = told.removed.iter();
    removed.any(|(account, span)| *account == wrote.account && span.ended > wrote.span.began)
}

fn must_be_gone(told: &Told, wrote: &Wrote) -> bool {
    let mut removed = told.removed.iter();
    removed.any(|(account, span)| *account == wrote.account && span.began > wrote.span.ended)
}

/// Fails if a row of either side refers to one that is not there.
pub(crate) async fn assert_no_orphan(world: &World) {
    for sql in NO_ORPHAN {
        assert_eq!(world.legacy.number(sql).await, 0, "legacy: {sql}");
        assert_eq!(
            world.storage_database.number(sql).await,
            0,
            "storage: {sql}"
        );
    }
}
