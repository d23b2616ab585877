//! What the proxy is measured against: the least an application's own service would do.
//!
//! A hyper handler that reads the same JSON body and runs one statement on the same PostgreSQL through
//! sqlx: for a point read the proxy's own statement, for an insert a plain `INSERT … RETURNING` into a table of the same shape
//! that has no triggers. It is a process of its own, as the proxy is: this same program, started with [`ROLE`].

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
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

use super::select;

/// The table the handler inserts into; the proxy does not know it.
pub(crate) const TABLE: &str = "bare_campaigns";

/// The argument that makes this program the bare handler; the database's URL follows.
pub(crate) const ROLE: &str = "bare-handler";

/// The bare handler, serving until this is dropped.
pub(crate) struct Bare {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    process: Child,
}

/// The handler's two statements.
struct Statements {
    read: String,
    insert: String,
}

impl Bare {
    /// Serves one database, which has `campaigns` and [`TABLE`].
    pub(crate) fn start(database_url: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args([ROLE, database_url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bare handler starts");
        let mut address = String::new();
        BufReader::new(process.stdout.take().expect("its output"))
            .read_line(&mut address)
            .expect("where it listens");
        Self {
            address: address.trim().parse().expect("an address"),
            process,
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}

/// Is the bare handler: prints where it listens, and serves until its input ends.
pub(crate) async fn serve(database_url: &str) {
    let statements = Arc::new(Statements::of(database_url).await);
    let pool = PgPoolOptions::new()
        .max_connections(PoolOptions::default().connections_max)
        .test_before_acquire(false)
        .connect(database_url)
        .await
        .expect("PostgreSQL can be reached");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    tokio::select! {
        () = accept(listener, pool, statements) => {}
        _ = parent => {}
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

/// The text that the proxy runs for a point read; its parameters are the key and the limit.
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
        matches!(
            statement.args.as_slice(),
            [Arg::Text(Some(_)), Arg::Int(Some(1))]
        ),
        "a point read has two parameters, its key and its limit: {statement:?}"
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
                .bind(query["limit"].as_i64())
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
