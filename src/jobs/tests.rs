//! Backfill and verify against a SQLite legacy and a running reference service, with an applier that pays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::*;
use crate::applier::{Applier, ApplierOptions};
use crate::control::{self, Control, ControlOptions, TransitionKind, TransitionRequest};
use crate::divergence;
use crate::journal;
use crate::legacy::Legacy;
use crate::observe::Observer;
use crate::reference;
use crate::shadow::{CompareOptions, Comparer};
use crate::sql::{Db, PoolOptions, TableSpec};
use crate::stage::Stage;
use crate::storage::{Capabilities, Capability, HttpOptions, Storage, StorageOptions, Transport};
use crate::telemetry::Metrics;

const DDL: &str = "
CREATE TABLE campaigns (
    id integer PRIMARY KEY,
    name text NOT NULL,
    budget integer
);
CREATE TABLE ads (
    id uuid PRIMARY KEY,
    campaign_id integer NOT NULL REFERENCES campaigns (id),
    title text
);";
const RPC_DEADLINE: Duration = Duration::from_secs(5);

/// Both sides, and what runs between them.
struct Bench {
    jobs: Arc<Jobs>,
    parts: Parts,
    stored: Db,
    files: Vec<PathBuf>,
    _stop: DropGuard,
}

impl Bench {
    /// 1,000 campaigns and 1,000 ads in legacy, an empty storage, stage `dual_write`.
    async fn new(capabilities: Capabilities) -> Self {
        let stop = CancellationToken::new();
        let (legacy_url, legacy_file) = file("legacy");
        let (stored_url, stored_file) = file("stored");
        let address = service(&stored_url, &stop).await;
        let parts = parts(&legacy_url, &address, capabilities).await;
        let control = Arc::clone(&parts.control);
        let token = stop.clone();
        tokio::spawn(async move { control.run(token).await });
        let applier = Applier::new(parts.clone(), applier_options());
        tokio::spawn(applier.run(stop.clone()));
        let request = TransitionRequest {
            to: Stage::DualWrite,
            kind: TransitionKind::Operator,
            actor: "test".to_owned(),
            reason: "begin".to_owned(),
            ticket: None,
            expected_epoch: None,
            dry_run: false,
            force: false,
            evidence: Value::Null,
        };
        parts.control.transition(request).await.unwrap();
        Self {
            jobs: Jobs::new(parts.clone()),
            parts,
            stored: Db::open(&stored_url, &PoolOptions::default()).unwrap(),
            files: vec![legacy_file, stored_file],
            _stop: stop.drop_guard(),
        }
    }

    async fn backfill(&self) -> Value {
        let options = BackfillOptions {
            window: 600,
            chunk: 150,
            ..BackfillOptions::default()
        };
        let id = self.jobs.start_backfill("ann", "fill", options).unwrap();
        self.ended(id).await
    }

    async fn verify(&self, repair: bool) -> Value {
        let options = VerifyOptions {
            tables: Vec::new(),
            repair,
            page: 150,
            actor: "ann".to_owned(),
            reason: "look".to_owned(),
        };
        let id = self.jobs.start_verify(options).unwrap();
        self.ended(id).await["result"].take()
    }

    /// The job once it has ended.
    async fn ended(&self, id: Uuid) -> Value {
        let ended = async {
            loop {
                let job = self.jobs.get(id).unwrap();
                if job["state"] != "running" {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let job = tokio::time::timeout(Duration::from_secs(60), ended).await;
        job.expect("the job ends")
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows = self.stored.fetch(&sql, vec![]).await.unwrap();
        rows[0].some_int(0).unwrap()
    }

    async fn gone(self) {
        self.jobs.drain().await;
        for path in &self.files {
            for end in ["", "-wal", "-shm"] {
                std::fs::remove_file(format!("{}{end}", path.display())).ok();
            }
        }
    }
}

fn file(what: &str) -> (String, PathBuf) {
    let name = format!("cutover-{what}-{}.db", Uuid::new_v4());
    let path = std::env::temp_dir().join(name);
    (format!("sqlite://{}", path.display()), path)
}

async fn service(url: &str, stop: &CancellationToken) -> String {
    let options = reference::Options {
        database: url.to_owned(),
        db: "campaign_db".to_owned(),
        http: "127.0.0.1:0".parse().unwrap(),
        faults: None,
        broker: None,
        ddl: Some(DDL.to_owned()),
        without: Vec::new(),
        soft_delete: Vec::new(),
    };
    let started = reference::start(options, stop.clone()).await.unwrap();
    let address = format!("http://{}", started.http_addr);
    tokio::spawn(started.join());
    address
}

/// Legacy is filled before anything captures.
async fn parts(legacy_url: &str, storage: &str, capabilities: Capabilities) -> Parts {
    let db = Db::open(legacy_url, &PoolOptions::default()).unwrap();
    db.batch(DDL).await.unwrap();
    fill(&db).await;
    control::install(&db).await.unwrap();
    journal::install(&db).await.unwrap();
    divergence::install(&db).await.unwrap();
    let specs = ["ads", "campaigns"].map(|name| TableSpec {
        name: name.to_owned(),
        ..TableSpec::default()
    });
    let legacy = Legacy::open(db.clone(), specs.to_vec()).await.unwrap();
    let legacy = Arc::new(legacy);
    let control = Control::open(db, ControlOptions::default()).await.unwrap();
    let control = Arc::new(control);
    let storage = Storage::new(StorageOptions {
        db: "campaign_db".to_owned(),
        transport: Transport::Http(HttpOptions {
            base_url: storage.to_owned(),
            pool: 8,
        }),
        capabilities,
        rpc_deadline: RPC_DEADLINE,
        inflight_max: 8,
    });
    let storage = Arc::new(storage.unwrap());
    let metrics = Metrics::new(["ads".to_owned(), "campaigns".to_owned()]);
    let observer = Arc::new(Observer::new(Arc::new(metrics.unwrap())));
    let comparing = CompareOptions {
        sample: 1.0,
        recheck_delay: Duration::from_millis(5),
        recheck_max: 5,
        rpc_deadline: RPC_DEADLINE,
    };
    let comparer = Comparer::new(
        Arc::clone(&control),
        Arc::clone(&legacy),
        Arc::clone(&storage),
        Arc::clone(&observer),
        comparing,
        8,
    );
    Parts {
        control,
        legacy,
        storage,
        observer,
        comparer,
        owed: Arc::new(Notify::new()),
    }
}

async fn fill(db: &Db) {
    db.batch(
        "INSERT INTO campaigns WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         SELECT i, 'campaign ' || i, i * 10 FROM n; \
         INSERT INTO ads SELECT printf('00000000-0000-4000-8000-%012d', 1001 - id), id, 'ad ' || id FROM campaigns;",
    )
    .await
    .unwrap();
}

fn applier_options() -> ApplierOptions {
    ApplierOptions {
        batch_max: 100,
        concurrency: 1,
        poll: Duration::from_millis(10),
        backoff_max: Duration::from_millis(200),
        rpc_deadline: RPC_DEADLINE,
        clock_skew_max: Duration::from_millis(100),
        quiet_period: Duration::from_millis(100),
        journal_entries_max: 100_000,
        operations_retention: Duration::from_secs(3600),
    }
}

/// The counters of a table that say something is wrong or was on its way.
fn found(report: &Value, table: &str) -> [u64; 5] {
    let tables = report["tables"].as_array().unwrap();
    let table = tables.iter().find(|one| one["table"] == table).unwrap();
    ["missing", "extra", "field", "unread", "repaired"].map(|name| table[name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_storage_is_filled_parents_first_and_a_clean_verify_makes_it_trustworthy() {
    let bench = Bench::new(Capabilities::all()).await;
    assert!(bench.parts.control.snapshot().storage_stale);

    let filled = bench.backfill().await;
    assert_eq!(filled["state"], "done", "{filled:#}");
    let tables = &filled["result"]["tables"];
    assert_eq!(
        tables[0],
        json!({"table": "campaigns", "rows": 1000, "extra": 0})
    );
    assert_eq!(tables[1], json!({"table": "ads", "rows": 1000, "extra": 0}));
    assert_eq!(filled["progress"][1]["rows"], 1000);
    assert_eq!(filled["progress"][1]["total"], 1000);
    assert_eq!(filled["progress"][1]["state"], "done");
    assert_eq!(
        (bench.count("campaigns").await, bench.count("ads").await),
        (1000, 1000)
    );
    assert!(
        bench.parts.control.snapshot().storage_stale,
        "filled is not verified"
    );

    let report = bench.verify(false).await;
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["recorded"], true);
    assert_eq!(report["tables"][0]["match"], 1000);
    assert_eq!(report["tables"][1]["storage_rows"], 1000);
    assert!(!bench.parts.control.snapshot().storage_stale);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_differences_are_found_named_and_repaired() {
    let bench = Bench::new(Capabilities::all()).await;
    bench.backfill().await;
    bench
        .stored
        .batch(
            "DELETE FROM ads WHERE campaign_id = 700; \
             UPDATE campaigns SET budget = 1 WHERE id = 42; \
             INSERT INTO campaigns VALUES (5000, 'nobody knows', 0);",
        )
        .await
        .unwrap();

    let report = bench.verify(true).await;
    assert_eq!(
        (&report["clean"], &report["recorded"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(found(&report, "campaigns"), [0, 1, 1, 0, 2]);
    assert_eq!(found(&report, "ads"), [1, 0, 0, 0, 1]);
    assert!(bench.parts.control.snapshot().storage_stale);
    let lines = divergence::list(bench.parts.legacy.db(), 10).await.unwrap();
    let mut named: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line.table.as_str(),
                line.kind.as_str(),
                line.fields.as_str(),
            )
        })
        .collect();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            ("ads", "missing", ""),
            ("campaigns", "extra", ""),
            ("campaigns", "field", "budget")
        ]
    );

    let again = bench.verify(false).await;
    assert_eq!(again["clean"], true, "{again:#}");
    assert_eq!(bench.count("campaigns").await, 1000);
    assert!(!bench.parts.control.snapshot().storage_stale);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_removes_what_only_storage_has() {
    let bench = Bench::new(Capabilities::all()).await;
    bench
        .stored
        .batch("INSERT INTO campaigns VALUES (5000, 'left over', 0)")
        .await
        .unwrap();
    let filled = bench.backfill().await;
    assert_eq!(filled["result"]["tables"][0]["extra"], 1, "{filled:#}");
    assert_eq!(bench.count("campaigns").await, 1000);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ranges_a_verify_says_what_it_could_not_see_and_vouches_for_nothing() {
    let bench = Bench::new(Capabilities::all().without(Capability::Ranges)).await;
    let filled = bench.backfill().await;
    assert_eq!(filled["result"]["storage_walked"], false);
    let report = bench.verify(false).await;
    assert_eq!(
        (&report["clean"], &report["recorded"]),
        (&json!(true), &json!(false))
    );
    assert!(report["unchecked"][0].as_str().unwrap().contains("ranges"));
    assert!(bench.parts.control.snapshot().storage_stale);
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_kind_runs_at_a_time_and_a_cancelled_one_makes_room() {
    let bench = Bench::new(Capabilities::all()).await;
    let slow = BackfillOptions {
        rate: Some(1),
        chunk: 10,
        ..BackfillOptions::default()
    };
    let id = bench.jobs.start_backfill("ann", "", slow.clone()).unwrap();
    let refused = bench.jobs.start_backfill("bob", "", slow).unwrap_err();
    assert!(matches!(refused, JobError::UnderWay { id: held, .. } if held == id));
    assert_eq!(bench.jobs.current()["backfill"]["id"], id.to_string());
    assert_eq!(bench.jobs.current()["verify"], Value::Null);
    assert!(bench.jobs.cancel(id));
    assert_eq!(bench.ended(id).await["state"], "cancelled");
    assert!(!bench.jobs.cancel(Uuid::nil()));
    let actions = bench.parts.control.actions(10).await.unwrap();
    assert_eq!(
        (actions[0].kind.as_str(), actions[0].actor.as_str()),
        ("backfill", "ann")
    );

    bench.jobs.drain().await;
    let late = bench
        .jobs
        .start_backfill("ann", "", BackfillOptions::default());
    assert!(matches!(late, Err(JobError::ShuttingDown)));
    bench.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_reached_over_http_by_whoever_the_layers_say() {
    let bench = Bench::new(Capabilities::all()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = crate::cli::AdminArgs {
        admin: format!("http://{}", listener.local_addr().unwrap()),
        token: None,
    };
    let router = routes(Arc::clone(&bench.jobs), |_| "eve".to_owned());
    let options = crate::server::ServerOptions::default();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(crate::server::serve(listener, router, options, stop));
    let client = crate::cli::AdminClient::new(&admin).unwrap();

    let body = json!({"tables": ["ads"], "reason": "a look"});
    let started = client.post("/admin/verify", &body).await.unwrap();
    let path = format!("/admin/jobs/{}", started["id"].as_str().unwrap());
    client.delete(&path).await.unwrap();
    let id = started["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(bench.ended(id).await["state"], "cancelled");
    let job = client.get(&path).await.unwrap();
    assert_eq!(
        (&job["kind"], &job["actor"]),
        (&json!("verify"), &json!("eve"))
    );

    let unknown = client
        .post("/admin/backfill", &json!({"table": "ads"}))
        .await;
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .starts_with("invalid_request")
    );
    let gone = client.get("/admin/jobs/none").await;
    assert!(gone.unwrap_err().to_string().starts_with("not_found"));
    let missing = json!({"tables": ["nothing"]});
    let started = client.post("/admin/backfill", &missing).await.unwrap();
    let job = bench
        .ended(started["id"].as_str().unwrap().parse().unwrap())
        .await;
    assert_eq!(
        (&job["state"], &job["error"]),
        (&json!("failed"), &json!("no such table: nothing"))
    );
    bench.gone().await;
}
