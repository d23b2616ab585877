//! A running service with tables of its own.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::reference::{Broker, Options, start};
use crate::sql::{Db, PoolOptions};
use crate::storage::Capability;

const DDL: &str = "
CREATE TABLE campaigns (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    budget integer CHECK (budget >= 0),
    deleted_at timestamp
);
CREATE TABLE tags (
    id uuid PRIMARY KEY,
    label text NOT NULL UNIQUE,
    campaign_id uuid REFERENCES campaigns (id)
);";

/// Which database is under the service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    Sqlite,
    Postgres,
}

pub(super) struct Fixture {
    pub(super) db: Db,
    url: String,
    base: String,
    faults: String,
    client: Client<HttpConnector, Full<Bytes>>,
    place: Place,
    stop: DropGuard,
}

/// Where the database is, to be removed in the end.
pub(super) enum Place {
    File(PathBuf),
    Database { admin: Db, name: String },
}

/// The members that are sent as headers.
#[derive(Clone, Default)]
pub(super) struct Headers(Vec<(&'static str, String)>);

impl Headers {
    pub(super) fn attempt(self, id: Uuid) -> Self {
        self.with("attempt_id", id.to_string())
    }

    /// In milliseconds from now; may be negative.
    pub(super) fn deadline_in(self, ms: i64) -> Self {
        self.with("deadline", (now_ms() + ms).to_string())
    }

    pub(super) fn fence(self, key: &str, token: i64) -> Self {
        self.with("fences", json!({ key: token }).to_string())
    }

    fn with(mut self, name: &'static str, value: String) -> Self {
        self.0.push((name, value));
        self
    }
}

impl Fixture {
    pub(super) async fn new(under: Under) -> Self {
        Self::without(under, &[]).await
    }

    pub(super) async fn without(under: Under, without: &[Capability]) -> Self {
        let (url, place) = Place::new(under).await;
        Self::over(options(url, without), place).await
    }

    pub(super) async fn over_amqp(under: Under, db: &str, broker: Broker) -> Self {
        let (url, place) = Place::new(under).await;
        let options = Options {
            db: db.to_owned(),
            broker: Some(broker),
            ..options(url, &[])
        };
        Self::over(options, place).await
    }

    /// Another service over the same database, in place of this one.
    pub(super) async fn start_again(self) -> Self {
        Self::over(options(self.url, &[]), self.place).await
    }

    async fn over(options: Options, place: Place) -> Self {
        let stop = CancellationToken::new();
        let url = options.database.clone();
        let started = start(options, stop.clone()).await.unwrap();
        let fixture = Self {
            db: Db::open(&url, &PoolOptions::default()).unwrap(),
            url,
            base: format!("http://{}", started.http_addr),
            faults: format!("http://{}/faults", started.faults_addr.unwrap()),
            client: Client::builder(TokioExecutor::new()).build_http(),
            place,
            stop: stop.drop_guard(),
        };
        tokio::spawn(started.join());
        fixture
    }

    /// The status and body of an answer, or `None` when the connection was closed without one.
    pub(super) async fn try_query(&self, query: Value, headers: Headers) -> Option<(u16, Value)> {
        let body = json!({ "db": "campaign_db", "query": query }).to_string();
        self.send("POST", &format!("{}/query", self.base), body, headers)
            .await
    }

    pub(super) async fn query_with(&self, query: Value, headers: Headers) -> (u16, Value) {
        self.try_query(query, headers).await.expect("an answer")
    }

    pub(super) async fn query(&self, query: Value) -> (u16, Value) {
        self.query_with(query, Headers::default()).await
    }

    pub(super) async fn post(&self, path: &str, body: String) -> (u16, Value) {
        let url = format!("{}{path}", self.base);
        let sent = self.send("POST", &url, body, Headers::default()).await;
        sent.expect("an answer")
    }

    pub(super) async fn faults(&self, method: &str, body: Value) -> (u16, Value) {
        let sent = self.send(method, &self.faults, body.to_string(), Headers::default());
        sent.await.expect("an answer")
    }

    /// How many campaigns are stored, soft-deleted ones too.
    pub(super) async fn stored(&self) -> i64 {
        let rows = self.db.fetch("SELECT COUNT(*) FROM campaigns", Vec::new());
        rows.await.unwrap()[0].some_int(0).unwrap()
    }

    async fn send(
        &self,
        method: &str,
        url: &str,
        body: String,
        headers: Headers,
    ) -> Option<(u16, Value)> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers.0 {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body)).unwrap();
        let response = self.client.request(request).await.ok()?;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&bytes).unwrap()))
    }

    /// Removes the database. Not a `Drop`, because it waits.
    pub(super) async fn remove(self) {
        drop(self.stop);
        self.place.remove().await;
    }
}

pub(super) fn options(database: String, without: &[Capability]) -> Options {
    Options {
        database,
        db: "campaign_db".to_owned(),
        http: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        faults: Some("127.0.0.1:0".parse().unwrap()),
        broker: None,
        ddl: Some(DDL.to_owned()),
        without: without.to_vec(),
        soft_delete: vec![("campaigns".to_owned(), "deleted_at".to_owned())],
    }
}

impl Place {
    /// A database of its own, and its URL.
    pub(super) async fn new(under: Under) -> (String, Self) {
        let name = format!("reference_{}", Uuid::new_v4().simple());
        match under {
            Under::Sqlite => {
                let path = std::env::temp_dir().join(format!("{name}.db"));
                (format!("sqlite://{}", path.display()), Place::File(path))
            }
            Under::Postgres => {
                let server = std::env::var("CUTOVER_TEST_POSTGRES")
                    .expect("CUTOVER_TEST_POSTGRES names a PostgreSQL to make databases in");
                let admin = Db::open(&server, &PoolOptions::default()).unwrap();
                admin
                    .batch(&format!("CREATE DATABASE {name}"))
                    .await
                    .unwrap();
                let (base, _) = server.rsplit_once('/').unwrap();
                (format!("{base}/{name}"), Place::Database { admin, name })
            }
        }
    }

    pub(super) async fn remove(self) {
        match self {
            Place::File(path) => {
                for end in ["", "-wal", "-shm"] {
                    std::fs::remove_file(format!("{}{end}", path.display())).ok();
                }
            }
            Place::Database { admin, name } => {
                let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                admin.batch(&drop).await.unwrap();
            }
        }
    }
}

pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// An insert of one campaign.
pub(super) fn insert(id: Uuid, name: &str) -> Value {
    json!({ "type": "insert", "table": "campaigns", "data": { "id": id, "name": name } })
}

pub(super) fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or("no error")
}

/// Runs a scenario under both databases, each a test of its own.
macro_rules! under_both {
    ($($scenario:ident),* $(,)?) => {
        mod on_sqlite {$(
            #[tokio::test]
            async fn $scenario() {
                super::$scenario($crate::reference::tests::fixture::Under::Sqlite).await;
            }
        )*}
        mod on_postgres {$(
            #[tokio::test]
            async fn $scenario() {
                super::$scenario($crate::reference::tests::fixture::Under::Postgres).await;
            }
        )*}
    };
}
pub(super) use under_both;
