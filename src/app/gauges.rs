//! Feeding the gauges that nobody's request feeds: stage, replicas, divergences.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::control::{Control, FlagFile, Phase, Snapshot, rollback_safety};
use crate::legacy::Legacy;
use crate::stage::{Backend, Stage};
use crate::telemetry::{ActorKind, Metrics, Peer, ReplicaState, Trigger};

/// How often they are fed without a change.
const EVERY: Duration = Duration::from_secs(2);

/// What is watched.
pub(super) struct Watched {
    control: Arc<Control>,
    legacy: Arc<Legacy>,
    metrics: Arc<Metrics>,
    flag: watch::Receiver<FlagFile>,
}

impl Engine {
    pub(super) fn watched(&self) -> Watched {
        Watched {
            control: Arc::clone(&self.parts.control),
            legacy: Arc::clone(&self.parts.legacy),
            metrics: Arc::clone(&self.metrics),
            flag: self.flag.subscribe(),
        }
    }
}

/// Feeds them at every change of the control state, and every two seconds, until `shutdown`.
pub(super) async fn feed(watched: Watched, shutdown: CancellationToken) {
    let mut news = watched.control.watch();
    let mut before: Option<Arc<Snapshot>> = None;
    while !shutdown.is_cancelled() {
        let snapshot = Arc::clone(&news.borrow_and_update());
        watched.feed_stage(&snapshot, before.as_deref());
        before = Some(snapshot);
        watched.feed_tables().await;
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = news.changed() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

impl Watched {
    fn feed_stage(&self, snapshot: &Snapshot, before: Option<&Snapshot>) {
        self.metrics
            .control(snapshot.stage, snapshot.epoch, snapshot.latched);
        self.metrics.recovering(snapshot.phase == Phase::Recovering);
        for backend in [Backend::Legacy, Backend::Storage] {
            let expected = self.control.under_maintenance(backend);
            self.metrics.maintenance(backend, expected);
        }
        self.metrics
            .flag_file_disagrees(self.flag.borrow().disagrees(snapshot.stage));
        if let Some(before) = before.filter(|before| before.stage != snapshot.stage) {
            self.metrics
                .moved(before.stage, snapshot.stage, actor_kind(snapshot));
        }
    }

    async fn feed_tables(&self) {
        for pause in self.control.take_pauses() {
            self.metrics.flip_paused(pause);
        }
        if let Ok(open) = crate::divergence::count_open(self.legacy.db()).await {
            self.metrics
                .divergences_open(u64::try_from(open).unwrap_or(0));
        }
        if let Ok(last) = crate::evidence::verified(self.legacy.db(), Backend::Storage).await {
            let age_us = last.and_then(|last| u64::try_from(last.clean_age_us?).ok());
            self.metrics.verify_age(age_us.map(Duration::from_micros));
        }
        let skew = self.control.skew().await;
        self.metrics
            .clock_skew(Peer::Legacy, skew.offset_us as f64 / 1e6);
        let replicas = self.control.replicas().await;
        let owed = self.control.owed().await;
        let snapshot = self.control.snapshot();
        let known = owed.ok().zip(replicas.as_deref().ok());
        // What cannot be known now is not safe, whatever it was a moment ago.
        let safety = rollback_safety(&snapshot, known, Stage::DualWrite);
        self.metrics.rollback_safe(safety.safe);
        let Ok(replicas) = replicas else { return };
        let count = |state: fn(&crate::control::Replica) -> bool| {
            replicas.iter().filter(|replica| state(replica)).count() as u64
        };
        self.metrics
            .replicas(ReplicaState::Fresh, count(|replica| replica.leased));
        self.metrics
            .replicas(ReplicaState::Missing, count(|replica| !replica.leased));
        self.metrics
            .replicas(ReplicaState::Dirty, count(|replica| replica.dirty));
    }
}

/// Who moved the stage, as the metrics spell it.
fn actor_kind(snapshot: &Snapshot) -> ActorKind {
    match snapshot.actor.as_str() {
        "flag file" => ActorKind::FlagFile,
        "journal" => ActorKind::Proxy,
        actor if Trigger::ALL.iter().any(|one| one.as_str() == actor) => ActorKind::Guard,
        _ => ActorKind::Operator,
    }
}
