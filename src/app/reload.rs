//! SIGHUP: the configuration is read again, and what may change while running does.
//!
//! A file with an error changes nothing, is logged and counted; keys that wait for a restart are named.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::admin::AdminState;
use crate::config::{Config, ConfigError};
use crate::guard;
use crate::telemetry::LogControl;

/// Reads the configuration again when asked.
pub(super) struct Reloader {
    engine: Arc<Engine>,
    current: Config,
    path: Option<PathBuf>,
    log: LogControl,
    plane: Arc<AdminState>,
}

impl Reloader {
    pub(super) fn new(
        engine: Arc<Engine>,
        current: Config,
        path: Option<PathBuf>,
        log: LogControl,
        plane: Arc<AdminState>,
    ) -> Self {
        Self {
            engine,
            current,
            path,
            log,
            plane,
        }
    }

    /// Reloads at every SIGHUP until `shutdown`.
    pub(super) async fn on_sighup(mut self, shutdown: CancellationToken) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => {
                return tracing::error!(%error, "SIGHUP cannot be listened for: no reloads");
            }
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = hangups.recv() => {}
            }
            match Config::load(self.path.as_deref()) {
                Ok(config) => self.adopt(config).await,
                Err(error) => self.refuse(&error),
            }
        }
    }

    fn refuse(&self, error: &ConfigError) {
        self.engine.metrics.config_reload_failed();
        tracing::error!(%error, "the configuration was not reloaded");
    }

    /// What lets more happen before the guard acts is on record.
    async fn record_weakening(&self, config: &Config) {
        let found = guard::weakenings(
            &self.current.hot.guard.settings(),
            &config.hot.guard.settings(),
        );
        if found.is_empty() {
            return;
        }
        let keys: Vec<&str> = found.iter().map(|one| one.key.as_str()).collect();
        tracing::warn!(?keys, "the reload weakens the guard");
        let changes = found
            .iter()
            .map(|one| json!({"key": one.key, "from": one.from, "to": one.to}));
        let control = &self.engine.parts.control;
        let details = json!({
            "replica": control.options().replica_id,
            "changes": changes.collect::<Vec<_>>(),
        });
        let recorded = control
            .record_action(
                "configuration",
                "weaken_guard",
                "the configuration was reloaded",
                details,
            )
            .await;
        if let Err(fault) = recorded {
            tracing::error!(%fault, "the guard is weaker, and that is not on record");
        }
    }

    /// Whoever changes what an advance is held to leaves a record, stricter or not.
    async fn record_thresholds(&self, config: &Config) {
        let (before, after) = (&self.current.hot.readiness, &config.hot.readiness);
        if before == after {
            return;
        }
        let control = &self.engine.parts.control;
        let replica = &control.options().replica_id;
        let details = json!({"replica": replica, "before": before, "after": after});
        let reason = "[readiness] was configured anew";
        let recorded = control.record_action("configuration", "readiness", reason, details);
        if let Err(fault) = recorded.await {
            tracing::error!(%fault, "a change of [readiness] could not be recorded among the actions");
        }
    }

    async fn adopt(&mut self, config: Config) {
        let reload = self.current.reloadable_diff(&config);
        if let Err(error) = self.log.set_level(&config.hot.log.level) {
            self.engine.metrics.config_reload_failed();
            tracing::error!(%error, "the log level was not changed");
        }
        for tls in [&self.engine.http_tls, &self.engine.admin_tls]
            .into_iter()
            .flatten()
        {
            if let Err(error) = tls.reload() {
                self.engine.metrics.config_reload_failed();
                tracing::error!(%error, "a certificate was not reloaded");
            }
        }
        match self.engine.trust.reload() {
            Ok(()) => self.engine.parts.storage.renew_trust(),
            Err(error) => {
                self.engine.metrics.config_reload_failed();
                tracing::error!(%error, "whom to believe was not read again");
            }
        }
        self.record_thresholds(&config).await;
        self.engine.adopt(&self.current, &config.hot);
        self.plane
            .tokens
            .store(Arc::new(config.hot.admin_tokens.clone()));
        self.plane
            .readiness
            .store(Arc::new(config.hot.readiness.clone()));
        self.plane.config_view.store(Arc::new(config.view()));
        let control = &self.engine.parts.control;
        if let Err(fault) = control.set_pin(config.hot.pin, "configuration").await {
            tracing::error!(%fault, "the pin holds, but is not on record");
        }
        self.record_weakening(&config).await;
        tracing::info!(applied = ?reload.applied, needs_restart = ?reload.needs_restart, "the configuration was reloaded");
        self.current.hot = config.hot;
    }
}
