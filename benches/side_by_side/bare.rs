//! What the proxy is measured against: the least an application's own service would do.
//!
//! A hyper handler that reads the same JSON body and runs one statement on the same PostgreSQL through
//! sqlx: for a point read the proxy's own statement, for an insert a plain `INSERT … RETURNING` into a table of the same shape
//! that has no triggers. It has a runtime of its own, as the proxy's process has, so that it is not
//! served by the thread that asks.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cutover::contract::{JsonLimits, Request};
use cutover::schema::{BindLimits, Bound, Schema, bind};
use cutover::sql::render::{self, row_expr};
use cutover::sql::{Arg, Db, Dialect, PoolOptions, TableSpec, introspect};
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::select;

/// The table the handler inserts into; the proxy does not know it.
pub(crate) const TABLE: &str = "bare_campaigns";

/// The bare handler, serving.
pub(crate) struct Bare {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

/// The handler's two statements.
struct Statements {
    read: String,
    insert: String,
}

impl Bare {
    /// Serves one database, which has `campaigns` and [`TABLE`].
    pub(crate) async fn start(database_url: &str) -> Self {
        let statements = Arc::new(Statements::of(database_url).await);
        let runtime = Runtime::new().expect("a runtime");
        let url = database_url.to_owned();
        let listening = runtime.spawn(async move {
            let pool = PgPoolOptions::new()
                .max_connections(PoolOptions::default().connections_max)
                .test_before_acquire(false)
                .connect(&url)
                .await
                .expect("PostgreSQL can be reached");
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
            let listener = listener.expect("a free port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(accept(listener, pool, statements));
            address
        });
        Self {
            address: listening.await.expect("the bare handler starts"),
            runtime: Some(runtime),
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // A runtime must not be dropped inside another one by waiting for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Statements {
    async fn of(database_url: &str) -> Self {
        let db = Db::open(database_url, &PoolOptions::default()).expect("a database URL");
        let tables = ["campaigns", TABLE].map(|name| TableSpec {
            name: name.to_owned(),
            soft_delete: Some("deleted_at".to_owned()),
            ..TableSpec::default()
        });
        let schema = introspect(&db, &tables).await.expect("both tables exist");
        db.close().await;
        Self {
            read: read_statement(&schema),
            insert: insert_statement(&schema),
        }
    }
}

/// The text that the proxy runs for a point read; its only parameter is the key.
fn read_statement(schema: &Schema) -> String {
    let limits = JsonLimits {
        bytes_max: 1 << 20,
        depth_max: 16,
    };
    let request = Request::parse(select(0).as_bytes(), &limits).expect("a request");
    let bound = bind(&request.query, schema, &BindLimits::default()).expect("a bound request");
    let Bound::Read(read) = bound else {
        panic!("a select is a read");
    };
    let statement = render::read(Dialect::Postgres, &read);
    assert!(
        matches!(statement.args.as_slice(), [Arg::Text(Some(_))]),
        "a point read has one parameter, its key: {statement:?}"
    );
    statement.text
}

fn insert_statement(schema: &Schema) -> String {
    let table = schema.table(TABLE).expect("the table exists");
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    let row = row_expr(Dialect::Postgres, table, &columns, "r");
    format!(
        "INSERT INTO {TABLE} AS r (id, name, description, theme_data) \
         VALUES ($1::text::uuid, $2, $3, $4::text::jsonb) RETURNING {row}"
    )
}

async fn accept(listener: TcpListener, pool: PgPool, statements: Arc<Statements>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let (pool, statements) = (pool.clone(), Arc::clone(&statements));
        let handler = service_fn(move |request: hyper::Request<Incoming>| {
            let (pool, statements) = (pool.clone(), Arc::clone(&statements));
            async move { Ok::<_, Infallible>(handle(request, &pool, &statements).await) }
        });
        tokio::spawn(async move {
            // The client closes when it has seen enough.
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), handler)
                .await
                .ok();
        });
    }
}

async fn handle(
    request: hyper::Request<Incoming>,
    pool: &PgPool,
    statements: &Statements,
) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.expect("a body");
    let body: Value = serde_json::from_slice(&body.to_bytes()).expect("a JSON body");
    let query = &body["query"];
    let json = match query["type"].as_str() {
        Some("select") => format!(
            "[{}]",
            sqlx::query_scalar::<_, String>(AssertSqlSafe(statements.read.clone()))
                .bind(query["where"]["id"].as_str())
                .fetch_all(pool)
                .await
                .expect("the rows")
                .join(",")
        ),
        _ => insert_row(&query["data"], pool, &statements.insert).await,
    };
    let mut response = Response::new(Full::new(Bytes::from(json)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn insert_row(data: &Value, pool: &PgPool, statement: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
        .bind(data["id"].as_str())
        .bind(data["name"].as_str())
        .bind(data["description"].as_str())
        .bind(data["theme_data"].to_string())
        .fetch_one(pool)
        .await
        .expect("the row")
}
