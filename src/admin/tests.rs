//! The router as clients meet it: over loopback, on a SQLite legacy.

mod acting;
mod looking;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::config::Role;
use crate::control::{self, ControlOptions};
use crate::repository::Parts;
use crate::server::{self, ServerOptions};
use crate::shadow::{CompareOptions, Comparer};
use crate::sql::{Db, PoolOptions, TableSpec};
use crate::storage::{Capabilities, HttpOptions, Storage, StorageOptions, Transport};
use crate::telemetry::Metrics;
use crate::{divergence, evidence, journal};

struct Plane {
    addr: SocketAddr,
    db: Db,
    storage_up: Arc<AtomicBool>,
    shutdown: CancellationToken,
    folder: PathBuf,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.shutdown.cancel();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// An admin plane with a viewer `look` and an operator `act`, or without named tokens.
async fn plane(named_tokens: bool) -> Plane {
    let folder = std::env::temp_dir().join(format!("cutover-admin-{}", Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    let db = format!("sqlite://{}", folder.join("legacy.db").display());
    let db = Db::open(&db, &PoolOptions::default()).unwrap();
    db.batch("CREATE TABLE campaigns (id TEXT PRIMARY KEY, name TEXT)")
        .await
        .unwrap();
    install(&db).await;
    let legacy = Arc::new(Legacy::open(db.clone(), vec![spec()]).await.unwrap());
    let control = Control::open(db.clone(), ControlOptions::default())
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    let beating = (control.clone(), shutdown.clone());
    tokio::spawn(async move { beating.0.run(beating.1).await });
    let storage_up = Arc::new(AtomicBool::new(true));
    let is_up = storage_up.clone();
    let metrics = Metrics::new(["campaigns".to_owned()]).unwrap();
    let observer = Arc::new(Observer::new(Arc::new(metrics)));
    let parts = parts(&control, &legacy, &observer);
    let jobs = Jobs::new(parts.clone(), crate::jobs::JobSettings::default());
    let drift = parts.drift.clone();
    let drills = Drills::new(parts);
    let state = AdminState {
        control,
        legacy,
        storage: StorageView {
            is_up: Box::new(move || is_up.load(Ordering::Relaxed)),
            weakened: vec!["counts are not compared".to_owned()],
            highest_stage: Stage::Complete,
        },
        observer,
        drift,
        readiness: ArcSwap::from_pointee(crate::config::Readiness {
            baseline_samples_min: 0,
            ..crate::config::Readiness::default()
        }),
        flag: watch::channel(FlagFile::Absent).1,
        jobs,
        drills,
        tokens: ArcSwap::from_pointee(if named_tokens { tokens() } else { vec![] }),
        operator_token: TokenHash::of("written at start"),
        protect_metrics: false,
        version: "1.2.3".to_owned(),
        config_view: ArcSwap::from_pointee(json!({"db": "campaign_db"})),
        shutdown: shutdown.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = router(Arc::new(state));
    tokio::spawn(server::serve(
        listener,
        router,
        ServerOptions::default(),
        shutdown.clone(),
    ));
    Plane {
        addr,
        db,
        storage_up,
        shutdown,
        folder,
    }
}

async fn install(db: &Db) {
    control::install(db).await.unwrap();
    journal::COMPONENT.install(db).await.unwrap();
    divergence::COMPONENT.install(db).await.unwrap();
    evidence::COMPONENT.install(db).await.unwrap();
    crate::backfill::COMPONENT.install(db).await.unwrap();
    crate::verify::COMPONENT.install(db).await.unwrap();
    crate::drill::COMPONENT.install(db).await.unwrap();
}

/// Parts whose storage service is nowhere: no job of these tests calls it.
fn parts(control: &Control, legacy: &Arc<Legacy>, observer: &Arc<Observer>) -> Parts {
    let control = Arc::new(control.clone());
    let storage = Storage::new(StorageOptions {
        db: "campaign_db".to_owned(),
        transport: Transport::Http(HttpOptions {
            base_url: "http://127.0.0.1:9".to_owned(),
            pool: 1,
        }),
        capabilities: Capabilities::all(),
        rpc_deadline: Duration::from_secs(1),
        inflight_max: 1,
        trust: crate::tls::issuer::public_trust(),
    });
    let storage = Arc::new(storage.unwrap());
    let options = CompareOptions {
        sample: 1.0,
        recheck_delay: Duration::from_millis(1),
        recheck_max: 1,
        rpc_deadline: Duration::from_secs(1),
    };
    let comparer = Comparer::new(
        control.clone(),
        legacy.clone(),
        storage.clone(),
        observer.clone(),
        options,
        1,
    );
    let metrics = Metrics::new(["campaigns".to_owned()]).unwrap();
    let drift = Drift::new(&storage, &Arc::new(metrics), legacy.db().dialect());
    Parts {
        control,
        legacy: legacy.clone(),
        storage,
        observer: observer.clone(),
        comparer,
        drift: Arc::new(drift),
        owed: Arc::default(),
    }
}

fn spec() -> TableSpec {
    TableSpec {
        name: "campaigns".to_owned(),
        soft_delete: None,
        version: None,
        ignore: vec![],
        filled_by_storage: vec![],
        null_documents: vec![],
        show_values: false,
        hash_keys: false,
    }
}

fn tokens() -> Vec<AdminToken> {
    [("look", Role::Viewer), ("act", Role::Operator)]
        .map(|(token, role)| AdminToken {
            name: format!("ada who may {token}"),
            hash: TokenHash::of(token),
            role,
        })
        .into()
}

impl Plane {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (StatusCode, Value) {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        (status, body)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let headers = [("authorization", "Bearer look")];
        self.send(Method::GET, path, &headers, String::new()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let headers = [
            ("authorization", "Bearer act"),
            ("content-type", "application/json"),
        ];
        self.send(Method::POST, path, &headers, body.to_string())
            .await
    }

    /// The code of the refusal of a well-formed act that is sent with other headers.
    async fn refused(&self, headers: &[(&str, &str)]) -> (u16, String) {
        let body = json!({"to": "dual_write", "reason": "planned"}).to_string();
        let (status, body) = self.send(Method::POST, "/admin/stage", headers, body).await;
        let code = body["error"]["code"].as_str().unwrap_or_default();
        (status.as_u16(), code.to_owned())
    }
}
