//! Both sides with an applier between them: a legacy database of either kind, a running reference service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::applier::{Applier, ApplierOptions};
use crate::backfill::{self, Asked, Throttle};
use crate::control::{self, Control, ControlOptions, TransitionKind, TransitionRequest};
use crate::divergence;
use crate::drift::Drift;
use crate::jobs::{JobSettings, Jobs};
use crate::journal;
use crate::legacy::Legacy;
use crate::observe::Observer;
use crate::reference;
use crate::repository::Parts;
use crate::shadow::{CompareOptions, Comparer};
use crate::sql::{Db, PoolOptions, TableSpec};
use crate::stage::Stage;
use crate::storage::{Capabilities, HttpOptions, Storage, StorageOptions, Transport};
use crate::telemetry::Metrics;
use crate::verify::VerifyOptions;

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

/// Which database legacy is.
#[derive(Clone, Copy)]
pub(super) enum Under {
    Sqlite,
    Postgres,
}

/// Where legacy is, to be removed in the end.
enum Place {
    File(PathBuf),
    Database { admin: Db, name: String },
}

/// Both sides, and what runs between them.
pub(super) struct Bench {
    pub(super) jobs: Arc<Jobs>,
    pub(super) parts: Parts,
    /// What is under the service.
    pub(super) stored: Db,
    stored_file: PathBuf,
    legacy: Place,
    stop: DropGuard,
}

impl Bench {
    /// 1,000 campaigns and 1,000 ads in legacy, an empty storage, stage `dual_write`.
    pub(super) async fn new(under: Under, capabilities: Capabilities) -> Self {
        let stop = CancellationToken::new();
        let (legacy_url, legacy) = Place::new(under).await;
        let (stored_url, stored_file) = file("stored");
        let address = service(&stored_url, &stop).await;
        let parts = parts(&legacy_url, &address, capabilities).await;
        let control = Arc::clone(&parts.control);
        let token = stop.clone();
        tokio::spawn(async move { control.run(token).await });
        let applier = Applier::new(parts.clone(), applier_options());
        tokio::spawn(applier.run(stop.clone()));
        let jobs = Jobs::new(
            parts.clone(),
            JobSettings {
                backfill: Throttle {
                    window: 600,
                    chunk: 150,
                    ..Throttle::default()
                },
                ..JobSettings::default()
            },
        );
        tokio::spawn(Arc::clone(&jobs).keep_filling());
        let bench = Self {
            jobs,
            parts,
            stored: Db::open(&stored_url, &PoolOptions::default()).unwrap(),
            stored_file,
            legacy,
            stop: stop.drop_guard(),
        };
        bench.advance(Stage::DualWrite).await;
        bench
    }

    pub(super) async fn advance(&self, to: Stage) {
        let request = TransitionRequest {
            to,
            kind: TransitionKind::Operator,
            actor: "test".to_owned(),
            reason: "begin".to_owned(),
            ticket: None,
            expected_epoch: None,
            dry_run: false,
            force: false,
            evidence: Value::Null,
        };
        self.parts.control.transition(request).await.unwrap();
    }

    pub(super) async fn backfill(&self) -> Value {
        let id = self.jobs.start_backfill(asked(None)).await.unwrap();
        self.ended(id).await
    }

    pub(super) async fn verify(&self, repair: bool) -> Value {
        let id = self.jobs.start_verify(Self::look(repair)).await.unwrap();
        self.ended(id).await["result"].take()
    }

    /// A look at everything, by ann.
    pub(super) fn look(repair: bool) -> VerifyOptions {
        VerifyOptions {
            tables: Vec::new(),
            repair,
            page: 150,
            actor: "ann".to_owned(),
            reason: "look".to_owned(),
        }
    }

    /// The job of a verify that began by itself, once there is one.
    pub(super) async fn verify_by_itself(&self) -> Value {
        let begun = async {
            loop {
                let verify = self.jobs.current().await["verify"].take();
                if verify["actor"] == "cutover" {
                    return verify;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let job = tokio::time::timeout(Duration::from_secs(60), begun).await;
        job.expect("one begins")
    }

    /// The job once it has ended.
    pub(super) async fn ended(&self, id: Uuid) -> Value {
        let ended = async {
            loop {
                let job = self.jobs.get(id).await.unwrap().unwrap();
                if job["state"] != "running" {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let job = tokio::time::timeout(Duration::from_secs(60), ended).await;
        job.expect("the job ends")
    }

    /// The entry that only a person will move, once there is one.
    pub(super) async fn quarantined(&self) -> i64 {
        let db = self.parts.legacy.db();
        let stuck = async {
            loop {
                let sql = "SELECT seq FROM cutover.journal WHERE parked = 'quarantined'";
                if let Some(row) = db.control(sql, vec![]).await.unwrap().first() {
                    return row.some_int(0).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let stuck = tokio::time::timeout(Duration::from_secs(60), stuck).await;
        stuck.expect("an entry is quarantined")
    }

    pub(super) async fn nothing_is_owed(&self) {
        let paid = async {
            while journal::owed(self.parts.legacy.db())
                .await
                .unwrap()
                .to_storage
                > 0
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let paid = tokio::time::timeout(Duration::from_secs(60), paid).await;
        paid.expect("everything is paid");
    }

    pub(super) async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows = self.stored.fetch(&sql, vec![]).await.unwrap();
        rows[0].some_int(0).unwrap()
    }

    /// Runs SQL past the proxy.
    pub(super) async fn bypass(&self, sql: &str) {
        self.parts.legacy.db().batch(sql).await.unwrap();
    }

    pub(super) async fn gone(self) {
        self.jobs.drain().await;
        drop(self.stop);
        remove(&self.stored_file);
        match self.legacy {
            Place::File(path) => remove(&path),
            Place::Database { admin, name } => {
                let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                admin.batch(&drop).await.unwrap();
            }
        }
    }
}

impl Place {
    async fn new(under: Under) -> (String, Self) {
        match under {
            Under::Sqlite => {
                let (url, path) = file("legacy");
                (url, Self::File(path))
            }
            Under::Postgres => {
                let server = std::env::var("CUTOVER_TEST_POSTGRES")
                    .expect("CUTOVER_TEST_POSTGRES names a PostgreSQL to make databases in");
                let admin = Db::open(&server, &PoolOptions::default()).unwrap();
                let name = format!("jobs_{}", Uuid::new_v4().simple());
                let create = format!("CREATE DATABASE {name}");
                admin.batch(&create).await.unwrap();
                let (base, _) = server.rsplit_once('/').unwrap();
                (format!("{base}/{name}"), Self::Database { admin, name })
            }
        }
    }
}

fn remove(path: &std::path::Path) {
    for end in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{end}", path.display())).ok();
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
        tls: None,
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
    journal::COMPONENT.install(&db).await.unwrap();
    divergence::COMPONENT.install(&db).await.unwrap();
    crate::evidence::COMPONENT.install(&db).await.unwrap();
    backfill::COMPONENT.install(&db).await.unwrap();
    crate::verify::COMPONENT.install(&db).await.unwrap();
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
        trust: crate::tls::issuer::public_trust(),
    });
    let storage = Arc::new(storage.unwrap());
    let metrics = Metrics::new(["ads".to_owned(), "campaigns".to_owned()]);
    let metrics = Arc::new(metrics.unwrap());
    let observer = Arc::new(Observer::new(Arc::clone(&metrics)));
    let drift = Drift::new(&storage, &metrics, legacy.db().dialect());
    let drift = Arc::new(drift);
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
        drift,
        owed: Arc::new(Notify::new()),
    }
}

async fn fill(db: &Db) {
    let campaigns = (1..=1000).map(|i| format!("({i}, 'campaign {i}', {})", i * 10));
    let ads = (1..=1000).map(|i| format!("('{}', {i}, 'ad {i}')", ad(i)));
    let campaigns: Vec<_> = campaigns.collect();
    let ads: Vec<_> = ads.collect();
    db.batch(&format!(
        "INSERT INTO campaigns VALUES {}; INSERT INTO ads VALUES {}; ANALYZE",
        campaigns.join(","),
        ads.join(",")
    ))
    .await
    .unwrap();
}

/// A backfill of everything, by ann.
pub(super) fn asked(rate: Option<i64>) -> Asked {
    Asked {
        tables: Vec::new(),
        rate,
        actor: "ann".to_owned(),
        reason: "fill".to_owned(),
    }
}

/// The ad of a campaign; the order of their keys is not that of the campaigns'.
fn ad(campaign: u32) -> String {
    format!("00000000-0000-4000-8000-{:012}", 1001 - campaign)
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
        journal_bytes_max: i64::MAX,
        operations_retention: Duration::from_secs(3600),
    }
}
