//! Building the parts from the configuration, in the order in which they need each other.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{AppError, joining};
use crate::admin::{self, AdminState, StorageView};
use crate::applier::{Applier, ApplierOptions};
use crate::backfill::{self, Throttle};
use crate::config::{self, Bypass, Config, Hot, TlsFiles, Transport, WithoutLease};
use crate::control::{self, Control, ControlOptions, FlagFile, Judge};
use crate::drift::Drift;
use crate::drill::Drills;
use crate::front::Doorway;
use crate::jobs::{JobSettings, Jobs};
use crate::observe::Observer;
use crate::repository::{self, Parts, Repository, RepositoryOptions};
use crate::schema::BindLimits;
use crate::sentinel::{Canary, Sentinel, SentinelOptions};
use crate::server::{ServerOptions, Tls};
use crate::shadow::{CompareOptions, Comparer};
use crate::sql::{Component, Db, PoolOptions, TableSpec};
use crate::storage::{AmqpOptions, HttpOptions, Storage, StorageOptions};
use crate::telemetry::Metrics;
use crate::tls::{Trust, TrustFiles};
use crate::verify::{self, VerifySettings};
use crate::{divergence, drill, evidence, journal};

/// Connections for heartbeats and transitions: neither may wait for requests, or a lease runs out because the
/// proxy is busy. One is the listener's.
const CONTROL_CONNECTIONS_MAX: u32 = 5;
/// Calls to storage under way at once, and connections kept to it over HTTP.
const STORAGE_IN_FLIGHT_MAX: usize = 2048;
const STORAGE_CONNECTIONS_MAX: usize = 128;
/// How often a suspect is read again before it counts as transient.
const RECHECKS_MAX: u32 = 20;

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
        let pool = |connections_max| {
            let options = PoolOptions {
                connections_max,
                ..pool_options(config)
            };
            Db::open(config.legacy.url.expose(), &options)
        };
        let keeping = pool(CONTROL_CONNECTIONS_MAX)?;
        install(&keeping).await?;
        let control = Arc::new(Control::open(keeping, control_options(config)).await?);
        let behind = pool(config.legacy.background_connections_max)?;
        let trust = Arc::new(Trust::load(trust_files(config))?);
        let storage = Arc::new(Storage::new(storage_options(config, &trust))?);
        let legacy = joining::open_legacy(config, behind, &control, &storage).await?;
        let legacy = Arc::new(legacy);
        let answering = Arc::new(legacy.through(pool(config.legacy.connections_max)?));
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

pub(super) fn pool_options(config: &Config) -> PoolOptions {
    PoolOptions {
        connections_max: config.legacy.connections_max,
        acquire_timeout: config.legacy.acquire_timeout,
        statement_timeout: config.legacy.statement_timeout,
        lock_timeout: config.legacy.lock_timeout,
        application_name: "cutover".to_owned(),
    }
}

pub(super) fn control_options(config: &Config) -> ControlOptions {
    ControlOptions {
        replica_id: replica_id(),
        lease: config.control.lease,
        heartbeat: config.control.heartbeat,
        clock_skew_max: config.control.clock_skew_max,
        flip_max_pause: config.flip.max_pause,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_digest: config.digest(),
        bypass_always_refused: config.legacy.bypass == Bypass::Refuse,
        storage_over_broker: matches!(config.storage.transport, Transport::Amqp { .. }),
        pin: config.hot.pin,
    }
}

/// Host, process and something random: never the name of another process.
fn replica_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}-{}", host.trim(), std::process::id(), &random[..6])
}

fn table_names(config: &Config) -> Vec<String> {
    let names = config.tables.iter().map(|table| table.name.clone());
    names.collect()
}

pub(super) fn table_specs(config: &Config) -> Vec<TableSpec> {
    config
        .tables
        .iter()
        .map(|table| TableSpec {
            name: table.name.clone(),
            soft_delete: table.soft_delete.clone(),
            version: table.version.clone(),
            ignore: table.ignore.clone(),
            filled_by_storage: table.filled_by_storage.clone(),
            null_documents: table.null_documents.clone(),
            show_values: table.show_values,
            hash_keys: table.hash_keys,
        })
        .collect()
}

fn trust_files(config: &Config) -> TrustFiles {
    let identity = config.storage.identity.clone();
    TrustFiles {
        ca: config.storage.ca_file.clone(),
        identity: identity.map(|files| (files.chain, files.key)),
    }
}

fn storage_options(config: &Config, trust: &Arc<Trust>) -> StorageOptions {
    let transport = match &config.storage.transport {
        Transport::Amqp {
            amqp_url,
            exchange,
            routing_key,
        } => crate::storage::Transport::Amqp(AmqpOptions {
            url: amqp_url.expose().to_owned(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
        }),
        Transport::Http { base_url } => crate::storage::Transport::Http(HttpOptions {
            base_url: base_url.expose().to_owned(),
            pool: STORAGE_CONNECTIONS_MAX,
        }),
    };
    StorageOptions {
        db: config.db.clone(),
        transport,
        capabilities: config.storage.capabilities.clone(),
        rpc_deadline: config.storage.rpc_deadline,
        inflight_max: STORAGE_IN_FLIGHT_MAX,
        trust: Arc::clone(trust),
    }
}

fn repository_options(config: &Config, hot: &Hot) -> RepositoryOptions {
    RepositoryOptions {
        db: config.db.clone(),
        limits: BindLimits {
            rows_max: hot.limits.rows_write_max,
            select_limit_max: hot.limits.rows_select_max as u64,
            ..BindLimits::default()
        },
        read_deadline: hot.limits.read_deadline,
        write_deadline: hot.limits.write_deadline,
        rpc_deadline: config.storage.rpc_deadline,
        refuse_without_lease: config.control.without_lease == WithoutLease::Refuse,
    }
}

fn compare_options(config: &Config, hot: &Hot) -> CompareOptions {
    CompareOptions {
        sample: hot.compare.sample,
        recheck_delay: hot.compare.recheck_delay,
        recheck_max: RECHECKS_MAX,
        rpc_deadline: config.storage.rpc_deadline,
    }
}

/// Storage's broker is where its events are; a proxy that reaches storage by HTTP has its door's, if any.
fn sentinel_options(config: &Config, hot: &Hot, trust: &Arc<Trust>) -> SentinelOptions {
    let hub = match &config.storage.transport {
        Transport::Amqp { amqp_url, .. } => Some(amqp_url),
        Transport::Http { .. } => config.amqp.as_ref().map(|door| &door.url),
    };
    let guard = &hot.guard;
    SentinelOptions {
        db: config.db.clone(),
        hub_url: hub.map(|url| url.expose().to_owned()),
        webhook: guard.webhook.as_ref().map(|url| url.expose().to_owned()),
        trust: Arc::clone(trust),
        canary: guard.canary.as_ref().map(|canary| Canary {
            table: canary.table.clone(),
            every: canary.every,
        }),
    }
}

fn job_settings(hot: &Hot) -> JobSettings {
    JobSettings {
        backfill: Throttle {
            rate: hot.backfill.rate,
            window: i64::from(hot.backfill.window),
            lag_max: hot.backfill.lag_max,
            ..Throttle::default()
        },
        verify: VerifySettings {
            interval: Some(hot.verify.interval).filter(|interval| !interval.is_zero()),
            rate: hot.verify.rate,
        },
    }
}

fn applier_options(config: &Config) -> ApplierOptions {
    ApplierOptions {
        batch_max: config.applier.batch as usize,
        concurrency: config.applier.concurrency as usize,
        poll: std::time::Duration::from_millis(200),
        backoff_max: config.applier.backoff_max,
        rpc_deadline: config.storage.rpc_deadline,
        clock_skew_max: config.control.clock_skew_max,
        quiet_period: config.applier.quiet_period,
        journal_entries_max: i64::try_from(config.journal.max_entries).unwrap_or(i64::MAX),
        journal_bytes_max: i64::try_from(config.journal.max_bytes).unwrap_or(i64::MAX),
        operations_retention: config.operations.retention,
    }
}

fn tls(files: Option<&TlsFiles>) -> Result<Option<Arc<Tls>>, AppError> {
    files
        .map(|files: &config::TlsFiles| Tls::load(&files.chain, &files.key).map(Arc::new))
        .transpose()
        .map_err(AppError::from)
}
