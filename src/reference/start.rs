//! Starting the service, and its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::amqp::Amqp;
use super::catalog::Catalog;
use super::engine::Engine;
use super::faults::FaultSwitch;
use super::service::Service;
use super::{events, http, ledger, sequences};
use crate::hub::HubError;
use crate::server::{ServerOptions, Tls, serve};
use crate::sql::{Db, Fault, IntrospectError, PoolOptions};
use crate::storage::{Capabilities, Capability};
use crate::tls::Trust;

/// How often what need not be remembered any more is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How the service is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its own database: `postgres://…` or `sqlite://path`.
    pub database: String,
    /// The name that requests must carry as `db`.
    pub db: String,
    /// Where HTTP listens; port 0 takes a free one.
    pub http: SocketAddr,
    /// TLS on the HTTP port, if it speaks it.
    pub tls: Option<Arc<Tls>>,
    /// Where faults are asked for, if they can be.
    pub faults: Option<SocketAddr>,
    /// The broker, if the service is to be reached, and to tell events, over AMQP.
    pub broker: Option<Broker>,
    /// SQL that creates the tables; run once ever per content.
    pub ddl: Option<String>,
    /// Capabilities switched off.
    pub without: Vec<Capability>,
    /// Soft-delete columns: table and column.
    pub soft_delete: Vec<(String, String)>,
}

/// Where the service is reached over AMQP.
#[derive(Clone, Debug)]
pub struct Broker {
    /// `amqp://…`.
    pub url: String,
    /// The queue it consumes.
    pub queue: String,
    /// The topic exchange of its events.
    pub exchange: String,
    /// Whom the broker must be, over `amqps://`.
    pub trust: Arc<Trust>,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its database.
    #[error("the service's database: {0}")]
    Database(#[from] Fault),
    /// Its tables.
    #[error("the service's tables: {0}")]
    Tables(#[from] IntrospectError),
    /// The broker's URL.
    #[error("the service's broker: {0}")]
    Broker(#[from] HubError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// A running service.
#[derive(Debug)]
pub struct Started {
    /// Where HTTP listens.
    pub http_addr: SocketAddr,
    /// Where faults are asked for.
    pub faults_addr: Option<SocketAddr>,
    tasks: JoinSet<()>,
    requests: TaskTracker,
}

impl Started {
    /// Waits until the service has drained after its shutdown.
    pub async fn join(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the storage service died");
            }
        }
        self.requests.close();
        self.requests.wait().await;
    }
}

/// Runs the service until `shutdown`, then drains it.
///
/// # Errors
/// See [`StartError`].
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), StartError> {
    let started = start(options, shutdown).await?;
    tracing::info!(http = %started.http_addr, faults = ?started.faults_addr, "the storage service runs");
    started.join().await;
    Ok(())
}

/// Starts the service and returns once it listens.
///
/// # Errors
/// See [`StartError`].
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Started, StartError> {
    let pool = PoolOptions {
        application_name: "cutover storage".to_owned(),
        ..PoolOptions::default()
    };
    let db = Db::open(&options.database, &pool)?;
    ledger::create(&db).await?;
    if let Some(ddl) = &options.ddl {
        create_tables(&db, ddl).await?;
    }
    let catalog = Catalog::read(&db, options.soft_delete).await?;
    if let Err(fault) = sequences::catch_up(&db, &catalog.schema()).await {
        tracing::warn!(%fault, "sequences may be behind the ids that the tables hold");
    }
    let capabilities = options
        .without
        .iter()
        .fold(Capabilities::all(), |all, &one| all.without(one));
    let amqp = options.broker.as_ref().map(Amqp::connect).transpose()?;
    let (news, queued) = mpsc::channel(events::QUEUE_MAX);
    let news = amqp.is_some().then_some(news);
    let routing_key = format!("storage.{}.updated", options.db);
    let engine = Engine::new(db.clone(), options.db, capabilities, catalog, news);
    let requests = TaskTracker::new();
    let faults = FaultSwitch::default();
    let engine = Arc::new(engine);
    let service = Service::new(Arc::clone(&engine), faults.clone(), requests.clone());

    let mut tasks = JoinSet::new();
    let until = shutdown.clone();
    tasks.spawn(async move { engine.follow_catalog(until).await });
    let (listener, http_addr) = listen(options.http).await?;
    let router = http::router(service.clone());
    let limits = ServerOptions {
        tls: options.tls,
        ..http::limits()
    };
    tasks.spawn(serve(listener, router, limits, shutdown.clone()));
    let faults_addr = match options.faults {
        Some(addr) => {
            let (listener, addr) = listen(addr).await?;
            let router = faults.router();
            tasks.spawn(serve(listener, router, http::limits(), shutdown.clone()));
            Some(addr)
        }
        None => None,
    };
    if let (Some(amqp), Some(broker)) = (amqp, options.broker) {
        let hub = amqp.publishing();
        let publish = events::publish(hub, broker.exchange, routing_key, queued, shutdown.clone());
        tasks.spawn(publish);
        tasks.spawn(amqp.serve(service, shutdown.clone()));
    }
    tasks.spawn(forget(db, shutdown));
    Ok(Started {
        http_addr,
        faults_addr,
        tasks,
        requests,
    })
}

async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Runs the DDL unless this very text was run before: most DDL cannot be run twice.
async fn create_tables(db: &Db, ddl: &str) -> Result<(), Fault> {
    let digest: String = Sha256::digest(ddl)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if ledger::has_run(db, &digest).await? {
        return Ok(());
    }
    tracing::info!(digest, "creating the tables");
    // In one batch with its record, which on PostgreSQL makes both one transaction.
    db.batch(&format!("{ddl}\n;\n{}", ledger::ran(db.dialect(), &digest)))
        .await
}

/// Forgets attempts and fences whose time is over, now and then.
async fn forget(db: Db, shutdown: CancellationToken) {
    while shutdown
        .run_until_cancelled(tokio::time::sleep(FORGET_EVERY))
        .await
        .is_some()
    {
        match ledger::forget(&db).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "forgot attempts and fences"),
            Err(fault) => tracing::warn!(%fault, "could not forget attempts"),
        }
    }
}
