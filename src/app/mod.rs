//! Wiring: a configuration becomes a running proxy, and a signal ends it.
//!
//! It reads as parse, build, spawn, drain. Shutting down goes against the stream: first the doors, so that
//! nothing new comes in; then what works behind callers' backs; last the control, so that this replica
//! keeps its lease while it still answers.

mod build;
mod embedded;
mod evidence;
mod gauges;
mod joining;
mod offline;
mod options;
mod reload;
mod schemas;
mod storage_service;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState};
use crate::config::Config;
use crate::front::{self, AmqpDoor};
use crate::server;
use crate::telemetry::LogControl;

pub use build::Engine;
pub use offline::{control_schema, rollback_in_database, storage_schema};
pub use storage_service::run_storage_service;

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The legacy database, at start.
    #[error("the legacy database: {0}")]
    Legacy(#[from] crate::sql::Fault),
    /// The configured tables.
    #[error("the legacy database: {0}")]
    Tables(#[from] crate::legacy::OpenError),
    /// The storage client's options.
    #[error("storage: {0}")]
    Storage(#[from] crate::storage::OptionsError),
    /// The embedded storage service, or `cutover storage`.
    #[error(transparent)]
    Service(#[from] crate::reference::StartError),
    /// The AMQP door's URL.
    #[error("amqp: {0}")]
    Amqp(#[from] crate::hub::HubError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A certificate.
    #[error("tls: {0}")]
    Tls(#[from] crate::tls::TlsError),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// Metrics that cannot be registered: a bug.
    #[error("metrics: {0}")]
    Metrics(String),
    /// A request that cannot be carried out.
    #[error("{0}")]
    Refused(String),
}

/// Runs the proxy until SIGTERM or SIGINT, then drains it.
///
/// # Errors
/// See [`AppError`]: only while starting.
pub async fn serve(config: Config, path: Option<PathBuf>, log: LogControl) -> Result<(), AppError> {
    let doors = CancellationToken::new();
    let backs = CancellationToken::new();
    let control = CancellationToken::new();
    let embedded = match path {
        None => Some(embedded::start(&config, backs.clone()).await?),
        Some(_) => None,
    };
    let engine = Arc::new(Engine::build(&config).await?);
    let (http, admin, plane) = match front_of(&engine, &config).await {
        Ok(parts) => parts,
        Err(error) => {
            engine.parts.control.take_leave().await;
            return Err(error);
        }
    };
    let background = TaskTracker::new();
    let heart = TaskTracker::new();
    let (beating, stop) = (Arc::clone(&engine.parts.control), control.clone());
    heart.spawn(async move { beating.run(stop).await });
    background.spawn(engine.applier.clone().run(backs.clone()));
    background.spawn(Arc::clone(&engine.sentinel).run(backs.clone()));
    background.spawn(Arc::clone(&engine.jobs).keep_filling());
    background.spawn(Arc::clone(&engine.jobs).keep_verifying());
    background.spawn(Arc::clone(&engine.drills).follow(backs.clone()));
    background.spawn(gauges::feed(engine.watched(), backs.clone()));
    background.spawn(engine.schemas().follow(backs.clone()));
    background.spawn(engine.witness().testify(backs.clone()));
    background.spawn(engine.watch_flag(&plane, config.flag.file.clone(), backs.clone()));
    let reloader = reload::Reloader::new(
        Arc::clone(&engine),
        config.clone(),
        path,
        log,
        Arc::clone(&plane),
    );
    background.spawn(reloader.on_sighup(backs.clone()));

    let front = open_doors(&engine, &config, http, &doors)?;
    let looking = TaskTracker::new();
    looking.spawn(server::serve(
        admin,
        admin::router(Arc::clone(&plane)),
        engine.server_options(&config, engine.admin_tls.clone()),
        control.clone(),
    ));
    embedded::announce(&config, embedded.is_some());

    wait_for_signal().await;
    tracing::info!("draining");
    plane.shutdown.cancel();
    doors.cancel();
    ended(front).await;
    engine.drain(&config).await;
    backs.cancel();
    ended(background).await;
    control.cancel();
    ended(looking).await;
    ended(heart).await;
    engine.parts.storage.close().await;
    if let Some(service) = embedded {
        service.join().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// What the outside is spoken to by, before anything runs.
async fn front_of(
    engine: &Engine,
    config: &Config,
) -> Result<(TcpListener, TcpListener, Arc<AdminState>), AppError> {
    let http = listen(config.http.listen).await?;
    let admin = listen(config.admin.listen).await?;
    Ok((http, admin, engine.admin(config)?))
}

/// The doors that requests come in by; they finish what is in flight when `doors` is cancelled.
fn open_doors(
    engine: &Engine,
    config: &Config,
    http: TcpListener,
    doors: &CancellationToken,
) -> Result<TaskTracker, AppError> {
    let front = TaskTracker::new();
    front.spawn(server::serve(
        http,
        front::HttpDoor::new(engine.doorway()),
        engine.server_options(config, engine.http_tls.clone()),
        doors.clone(),
    ));
    if let Some(door) = &config.amqp {
        let open = AmqpDoor::open(engine.doorway(), door, &engine.trust)?;
        front.spawn(open.run(doors.clone(), config.hot.limits.shutdown_grace));
    }
    Ok(front)
}

/// Waits for the tasks of a tracker that gets no more.
async fn ended(tasks: TaskTracker) {
    tasks.close();
    tasks.wait().await;
}

/// Binds an address.
async fn listen(addr: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| AppError::Listen { addr, source })
}

/// Returns at the first SIGTERM or SIGINT.
pub(crate) async fn wait_for_signal() {
    let term = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = term => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
