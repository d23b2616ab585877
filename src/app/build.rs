//! Building the parts from the configuration, in the order in which they need each other.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::options::{
    applier_options, compare_options, control_options, job_settings, pool_options,
    repository_options, sentinel_options, storage_options, table_names, tls, trust_files,
};
use super::{AppError, joining};
use crate::admin::{self, AdminState, StorageView};
use crate::applier::Applier;
use crate::config::{Config, Hot};
use crate::control::{self, Control, FlagFile, Judge};
use crate::drift::Drift;
use crate::drill::Drills;
use crate::front::Doorway;
use crate::jobs::Jobs;
use crate::observe::Observer;
use crate::repository::{self, Parts, Repository, RepositoryOptions};
use crate::sentinel::Sentinel;
use crate::server::{ServerOptions, Tls};
use crate::shadow::Comparer;
use crate::sql::{Component, Db, Fault, PoolOptions};
use crate::storage::Storage;
use crate::telemetry::Metrics;
use crate::tls::Trust;
use crate::{backfill, divergence, drill, evidence, journal, verify};

/// Connections for heartbeats and transitions: neither may wait for requests, or a lease runs out because the
/// proxy is busy. One is the listener's.
const CONTROL_CONNECTIONS_MAX: u32 = 5;

/// Everything that runs, put together.
pub struct Engine {
    /// What everything stands between; the repository has connections of its own.
    pub parts: Parts,
    /// What requests go to.
    pub repository: Arc<Repository>,
    /// What pays the journal.
    pub applier: Arc<Applier>,
    /// What a reload changes.
    pub hot: Arc<ArcSwap<Hot>>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) drills: Arc<Drills>,
    pub(super) sentinel: Arc<Sentinel>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) flag: watch::Sender<FlagFile>,
    /// Whom everything believes that connects to somebody.
    pub(super) trust: Arc<Trust>,
    pub(super) http_tls: Option<Arc<Tls>>,
    pub(super) admin_tls: Option<Arc<Tls>>,
    options: RepositoryOptions,
}

impl Engine {
    /// Opens the databases, installs what is missing, and puts the parts together. Nothing runs yet.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn build(config: &Config) -> Result<Self, AppError> {
        let keeping = pool(config, CONTROL_CONNECTIONS_MAX)?;
        install(&keeping).await?;
        let control = Arc::new(Control::open(keeping, control_options(config)).await?);
        let built = Self::around(config, Arc::clone(&control)).await;
        if built.is_err() {
            // A replica that did not come to life must not be waited for as one that died.
            control.take_leave().await;
        }
        built
    }

    /// Everything else, once the control state is known.
    async fn around(config: &Config, control: Arc<Control>) -> Result<Self, AppError> {
        let behind = pool(config, config.legacy.background_connections_max)?;
        let trust = Arc::new(Trust::load(trust_files(config))?);
        let storage = Arc::new(Storage::new(storage_options(config, &trust))?);
        let legacy = joining::open_legacy(config, behind, &control, &storage).await?;
        let legacy = Arc::new(legacy);
        let answering = Arc::new(legacy.through(pool(config, config.legacy.connections_max)?));
        let metrics = Metrics::new(table_names(config));
        let metrics = Arc::new(metrics.map_err(|error| AppError::Metrics(error.to_string()))?);
        let observer = Arc::new(Observer::new(Arc::clone(&metrics)));
        let comparer = Comparer::new(
            Arc::clone(&control),
            Arc::clone(&legacy),
            Arc::clone(&storage),
            Arc::clone(&observer),
            compare_options(config, &config.hot),
            config.hot.compare.background_max,
        );
        let drift = Arc::new(Drift::new(&storage, &metrics, legacy.db().dialect()));
        let parts = Parts {
            control,
            legacy,
            storage,
            observer,
            comparer,
            drift,
            owed: Arc::new(Notify::new()),
        };
        let options = repository_options(config, &config.hot);
        let repository = Repository::new(
            Parts {
                legacy: answering,
                ..parts.clone()
            },
            options.clone(),
        );
        parts
            .observer
            .guard()
            .set_settings(config.hot.guard.settings());
        Ok(Self {
            sentinel: Sentinel::new(
                parts.clone(),
                Arc::clone(&repository),
                sentinel_options(config, &config.hot, &trust),
            ),
            repository,
            applier: Applier::new(parts.clone(), applier_options(config)),
            hot: Arc::new(ArcSwap::from_pointee(config.hot.clone())),
            jobs: Jobs::new(parts.clone(), job_settings(&config.hot)),
            drills: Drills::new(parts.clone()),
            metrics,
            flag: watch::Sender::new(FlagFile::Absent),
            trust,
            http_tls: tls(config.http.tls.as_ref())?,
            admin_tls: tls(config.admin.tls.as_ref())?,
            parts,
            options,
        })
    }

    /// What the doors lead to.
    #[must_use]
    pub fn doorway(&self) -> Doorway {
        let repository = Arc::clone(&self.repository);
        Doorway {
            execute: Arc::new(move |call| {
                let repository = Arc::clone(&repository);
                Box::pin(async move { repository.execute(call).await })
            }),
            metrics: Arc::clone(&self.metrics),
            hot: Arc::clone(&self.hot),
        }
    }

    /// Follows the flag file, which is held to the same readiness as everybody.
    pub(super) fn watch_flag(
        &self,
        plane: &Arc<AdminState>,
        file: PathBuf,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (control, report) = (Arc::clone(&self.parts.control), self.flag.clone());
        let plane = Arc::clone(plane);
        let judge: Judge = Arc::new(move || {
            let plane = Arc::clone(&plane);
            Box::pin(async move { admin::judge_for_flag_file(&plane).await })
        });
        async move {
            control.watch_flag_file(file, judge, report, shutdown).await;
        }
    }

    /// The admin plane. Without configured tokens, start-up writes the operator's to `data/operator.token`.
    pub(super) fn admin(&self, config: &Config) -> Result<Arc<AdminState>, AppError> {
        let path = PathBuf::from("data/operator.token");
        let operator_token =
            admin::write_operator_token(&path).map_err(|source| AppError::File { path, source })?;
        let (storage, observer) = (
            Arc::clone(&self.parts.storage),
            Arc::clone(&self.parts.observer),
        );
        let capabilities = self.parts.storage.capabilities();
        Ok(Arc::new(AdminState {
            control: (*self.parts.control).clone(),
            legacy: Arc::clone(&self.parts.legacy),
            storage: StorageView {
                is_up: Box::new(move || storage.is_reachable() && observer.storage_answers()),
                weakened: capabilities
                    .weakened()
                    .into_iter()
                    .map(|promise| promise.weakened.to_owned())
                    .chain([repository::repeats_weakened()])
                    .collect(),
                highest_stage: capabilities.highest_stage(),
            },
            observer: Arc::clone(&self.parts.observer),
            drift: Arc::clone(&self.parts.drift),
            tokens: ArcSwap::from_pointee(config.hot.admin_tokens.clone()),
            operator_token,
            protect_metrics: config.admin.protect_metrics,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_view: ArcSwap::from_pointee(config.view()),
            readiness: ArcSwap::from_pointee(config.hot.readiness.clone()),
            flag: self.flag.subscribe(),
            jobs: Arc::clone(&self.jobs),
            drills: Arc::clone(&self.drills),
            shutdown: CancellationToken::new(),
        }))
    }

    /// How a listener treats its clients.
    pub(super) fn server_options(&self, config: &Config, tls: Option<Arc<Tls>>) -> ServerOptions {
        let limits = &config.hot.limits;
        ServerOptions {
            header_timeout: limits.header_timeout,
            body_timeout: limits.body_timeout,
            idle_timeout: limits.idle_timeout,
            body_bytes_max: limits.body_bytes_max as u64,
            grace: limits.shutdown_grace,
            tls,
            ..ServerOptions::default()
        }
    }

    /// Takes over what a reload may change.
    pub(super) fn adopt(&self, config: &Config, hot: &Hot) {
        self.repository.set_options(RepositoryOptions {
            refuse_without_lease: self.options.refuse_without_lease,
            ..repository_options(config, hot)
        });
        self.parts
            .comparer
            .set_options(compare_options(config, hot));
        self.parts
            .observer
            .guard()
            .set_settings(hot.guard.settings());
        self.sentinel
            .set_options(sentinel_options(config, hot, &self.trust));
        self.jobs.set_settings(job_settings(hot));
        self.hot.store(Arc::new(hot.clone()));
    }

    /// Waits, within the grace, for what was begun: writes whose callers are gone, comparisons.
    pub(super) async fn drain(&self, config: &Config) {
        let work = async {
            self.jobs.drain().await;
            self.repository.drain().await;
            self.parts.comparer.drain().await;
        };
        let grace = config.hot.limits.shutdown_grace;
        if tokio::time::timeout(grace, work).await.is_err() {
            tracing::warn!(
                ?grace,
                "work was left behind after the grace; the journal has it"
            );
        }
    }
}

/// Connections to legacy, at most so many.
fn pool(config: &Config, connections_max: u32) -> Result<Db, Fault> {
    let options = PoolOptions {
        connections_max,
        ..pool_options(config)
    };
    Db::open(config.legacy.url.expose(), &options)
}

/// What the control schema consists of.
pub(super) const COMPONENTS: [&Component; 7] = [
    &control::COMPONENT,
    &journal::COMPONENT,
    &divergence::COMPONENT,
    &evidence::COMPONENT,
    &backfill::COMPONENT,
    &verify::COMPONENT,
    &drill::COMPONENT,
];

/// Creates what is missing of the control schema.
pub(super) async fn install(db: &Db) -> Result<(), AppError> {
    control::install(db).await?;
    for component in COMPONENTS {
        component.install(db).await?;
    }
    Ok(())
}
