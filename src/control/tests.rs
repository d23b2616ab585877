//! The control against real databases: SQLite in a temporary file, PostgreSQL in a database of its own.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::contract::Epoch;
use crate::sql::{Db, Dialect, PoolOptions};
use crate::stage::{Backend, Stage};

mod drains;
mod leases;
mod maintenance;
mod moves;
mod recoveries;
mod tables;

/// A database that is gone when the test ends.
struct Bench {
    db: Db,
    url: String,
    cleanup: Cleanup,
}

enum Cleanup {
    File(std::path::PathBuf),
    Database { admin: Db, name: String },
}

/// The shape the journal gives its tables; only what the control touches.
const JOURNAL: &str = "
CREATE TABLE cutover.journal (seq bigint PRIMARY KEY, generation bigint NOT NULL, direction text NOT NULL,
    kind text NOT NULL, tbl text NOT NULL, key text NOT NULL, op_id uuid, bypass boolean NOT NULL DEFAULT FALSE,
    epoch bigint NOT NULL, created_us bigint NOT NULL, token uuid, attempt_id uuid, deadline_us bigint,
    attempts int NOT NULL DEFAULT 0, not_before_us bigint, parked text);
CREATE TABLE cutover.journal_floor (seq bigint PRIMARY KEY);
CREATE TABLE cutover.operations (op_id uuid PRIMARY KEY, digest text NOT NULL, state text NOT NULL, reply text,
    epoch bigint NOT NULL, created_us bigint NOT NULL, settled_us bigint);";

fn pool() -> PoolOptions {
    PoolOptions {
        connections_max: 6,
        ..PoolOptions::default()
    }
}

async fn sqlite() -> Bench {
    let path = std::env::temp_dir().join(format!("cutover-control-{}.db", Uuid::new_v4()));
    let url = format!("sqlite://{}", path.display());
    prepared(url, Cleanup::File(path)).await
}

async fn postgres() -> Bench {
    let server = std::env::var("CUTOVER_TEST_POSTGRES")
        .expect("CUTOVER_TEST_POSTGRES must name a PostgreSQL where databases may be created");
    let admin = Db::open(&server, &pool()).unwrap();
    let name = format!("control_{}", Uuid::new_v4().simple());
    admin
        .batch(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    let base = server.rsplit_once('/').unwrap().0;
    let url = format!("{base}/{name}");
    prepared(url, Cleanup::Database { admin, name }).await
}

async fn prepared(url: String, cleanup: Cleanup) -> Bench {
    let db = Db::open(&url, &pool()).unwrap();
    install(&db).await.unwrap();
    crate::evidence::COMPONENT.install(&db).await.unwrap();
    db.batch(&db.dialect().control(JOURNAL)).await.unwrap();
    Bench { db, url, cleanup }
}

impl Bench {
    /// A replica with a pool of its own, as another process would have.
    async fn replica(&self) -> Control {
        self.replica_with(ControlOptions::default()).await
    }

    async fn replica_with(&self, options: ControlOptions) -> Control {
        let db = Db::open(&self.url, &pool()).unwrap();
        Control::open(db, options).await.unwrap()
    }

    /// Puts the state where a test begins, past the moves that lead there.
    async fn begin_in(&self, stage: Stage) {
        let sql = "UPDATE cutover.state SET stage = $1, storage_stale = FALSE WHERE id = 1";
        self.db
            .control(sql, vec![stage.as_str().into()])
            .await
            .unwrap();
    }

    /// An open entry; an intent has an open operation.
    async fn owe(&self, seq: i64, kind: &str, direction: &str, deadline_us: i64) -> Uuid {
        let op_id = Uuid::new_v4();
        let entry = "INSERT INTO cutover.journal (seq, generation, direction, kind, tbl, key, op_id, epoch,
            created_us, token, deadline_us) VALUES ($1, (SELECT generation FROM cutover.state), $2, $3, 't', '[1]',
            $4::uuid, 1, 0, $4::uuid, $5)";
        let args = vec![
            seq.into(),
            direction.into(),
            kind.into(),
            op_id.to_string().into(),
            deadline_us.into(),
        ];
        self.db.control(entry, args).await.unwrap();
        let operation = "INSERT INTO cutover.operations (op_id, digest, state, epoch, created_us)
            VALUES ($1::uuid, 'd', 'open', 1, 0)";
        self.db
            .control(operation, vec![op_id.to_string().into()])
            .await
            .unwrap();
        op_id
    }

    async fn pay_everything(&self) {
        self.db
            .control("DELETE FROM cutover.journal", vec![])
            .await
            .unwrap();
    }

    /// The only value of a query.
    async fn text(&self, sql: &str) -> String {
        self.db.control(sql, vec![]).await.unwrap()[0]
            .some_text(0)
            .unwrap()
    }

    async fn gone(self) {
        match (self.db, self.cleanup) {
            (Db::Sqlite(pool), Cleanup::File(path)) => {
                pool.close().await;
                drop(std::fs::remove_file(path));
            }
            (_, Cleanup::Database { admin, name }) => {
                let drop_it = format!("DROP DATABASE {name} WITH (FORCE)");
                admin.batch(&drop_it).await.unwrap();
            }
            (Db::Postgres(_), Cleanup::File(_)) => unreachable!("a file is SQLite's"),
        }
    }
}

fn to(stage: Stage) -> TransitionRequest {
    TransitionRequest {
        to: stage,
        kind: TransitionKind::Operator,
        actor: "ada".to_owned(),
        reason: "a test".to_owned(),
        ticket: None,
        expected_epoch: None,
        force: false,
        dry_run: false,
        evidence: json!({"samples": 3}),
    }
}

fn rollback_to(stage: Stage) -> TransitionRequest {
    TransitionRequest {
        kind: TransitionKind::Rollback,
        ..to(stage)
    }
}

fn impatient() -> ControlOptions {
    ControlOptions {
        flip_max_pause: Duration::from_millis(400),
        ..ControlOptions::default()
    }
}

/// Runs the same property on both databases.
macro_rules! on_both {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        mod on_sqlite { $(#[tokio::test] $(#[$meta])* async fn $name() {
            let bench = super::super::sqlite().await;
            super::$name(&bench).await;
            bench.gone().await;
        })* }
        mod on_postgres { $(#[tokio::test] $(#[$meta])* async fn $name() {
            let bench = super::super::postgres().await;
            super::$name(&bench).await;
            bench.gone().await;
        })* }
    };
}
use on_both;
