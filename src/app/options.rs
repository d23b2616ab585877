//! What the configuration means for each part.
//!
//! A part knows its own options and nothing of the file they come from, so that it can be started and tested
//! without one. What a reload changes is made here too: by the same functions, from the new hot configuration.

use std::sync::Arc;

use super::AppError;
use crate::applier::ApplierOptions;
use crate::backfill::Throttle;
use crate::config::{Bypass, Config, Hot, TlsFiles, Transport, WithoutLease};
use crate::control::ControlOptions;
use crate::jobs::JobSettings;
use crate::repository::RepositoryOptions;
use crate::schema::BindLimits;
use crate::sentinel::{Canary, SentinelOptions};
use crate::server::Tls;
use crate::shadow::CompareOptions;
use crate::sql::{PoolOptions, TableSpec};
use crate::storage::{self, AmqpOptions, HttpOptions, StorageOptions};
use crate::tls::{Trust, TrustFiles};
use crate::verify::VerifySettings;

/// Calls to storage under way at once, and connections kept to it over HTTP.
const STORAGE_IN_FLIGHT_MAX: usize = 2048;
const STORAGE_CONNECTIONS_MAX: usize = 128;
/// How often a suspect is read again before it counts as transient.
const RECHECKS_MAX: u32 = 20;

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

pub(super) fn table_names(config: &Config) -> Vec<String> {
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

pub(super) fn trust_files(config: &Config) -> TrustFiles {
    let identity = config.storage.identity.clone();
    TrustFiles {
        ca: config.storage.ca_file.clone(),
        identity: identity.map(|files| (files.chain, files.key)),
    }
}

pub(super) fn storage_options(config: &Config, trust: &Arc<Trust>) -> StorageOptions {
    let transport = match &config.storage.transport {
        Transport::Amqp {
            amqp_url,
            exchange,
            routing_key,
        } => storage::Transport::Amqp(AmqpOptions {
            url: amqp_url.expose().to_owned(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
        }),
        Transport::Http { base_url } => storage::Transport::Http(HttpOptions {
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

pub(super) fn repository_options(config: &Config, hot: &Hot) -> RepositoryOptions {
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

pub(super) fn compare_options(config: &Config, hot: &Hot) -> CompareOptions {
    CompareOptions {
        sample: hot.compare.sample,
        recheck_delay: hot.compare.recheck_delay,
        recheck_max: RECHECKS_MAX,
        rpc_deadline: config.storage.rpc_deadline,
    }
}

/// Storage's broker is where its events are; a proxy that reaches storage by HTTP has its door's, if any.
pub(super) fn sentinel_options(config: &Config, hot: &Hot, trust: &Arc<Trust>) -> SentinelOptions {
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

pub(super) fn job_settings(hot: &Hot) -> JobSettings {
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

pub(super) fn applier_options(config: &Config) -> ApplierOptions {
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

pub(super) fn tls(files: Option<&TlsFiles>) -> Result<Option<Arc<Tls>>, AppError> {
    files
        .map(|files| Tls::load(&files.chain, &files.key).map(Arc::new))
        .transpose()
        .map_err(AppError::from)
}
