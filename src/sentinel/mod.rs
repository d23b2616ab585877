//! The sentinel: the guard's eyes, hand and voice.
//!
//! Three loops for one replica. `watch` evaluates the triggers, casts this replica's votes and carries out
//! what is decided, through the same transitions as everybody (`carry_out`). `probe` keeps slow hours
//! measured by reads of its own, `canary` by writes. `tell` says what was done, on the hub and by webhook,
//! behind the back of the rest: nobody who listens holds a rollback up.
//!
//! The guard decides on the pictures that this replica has; whether they still hold, the gate says: a
//! decision is void once the epoch has moved, so of several replicas that decide at once one acts.

mod canary;
mod carry_out;
mod probe;
mod tell;
mod watch;
mod webhook;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::Phase;
use crate::guard::{GuardHandle, Situation};
use crate::repository::{Parts, Repository};
use crate::stage::Backend;
use crate::tls::Trust;

pub use canary::Canary;

use tell::Announcement;

/// Announcements that wait to be told: rollbacks are rare, and each is in the audit anyway.
const ANNOUNCEMENTS_MAX: usize = 16;

/// How the sentinel works. The triggers' own settings are the guard's.
#[derive(Clone, Debug)]
pub struct SentinelOptions {
    /// The database that requests name.
    pub db: String,
    /// The broker of the message hub, if there is one. Not reloaded.
    pub hub_url: Option<String>,
    /// Who is told by HTTP POST, if anybody.
    pub webhook: Option<String>,
    /// Whom the hub and the webhook must be to be told.
    pub trust: Arc<Trust>,
    /// Writes in slow hours, if any.
    pub canary: Option<Canary>,
}

/// One per replica.
#[derive(Debug)]
pub struct Sentinel {
    parts: Parts,
    repository: Arc<Repository>,
    options: ArcSwap<SentinelOptions>,
    announce: mpsc::Sender<Announcement>,
    /// Taken by the one that runs.
    announced: tokio::sync::Mutex<mpsc::Receiver<Announcement>>,
    probes: TaskTracker,
}

impl Sentinel {
    /// Puts the parts together. `parts` are for background work, `repository` for canary writes.
    #[must_use]
    pub fn new(parts: Parts, repository: Arc<Repository>, options: SentinelOptions) -> Arc<Self> {
        let (announce, announced) = mpsc::channel(ANNOUNCEMENTS_MAX);
        Arc::new(Self {
            parts,
            repository,
            options: ArcSwap::from_pointee(options),
            announce,
            announced: tokio::sync::Mutex::new(announced),
            probes: TaskTracker::new(),
        })
    }

    /// Replaces the options.
    pub fn set_options(&self, options: SentinelOptions) {
        self.options.store(Arc::new(options));
    }

    /// Watches until `shutdown`; then tells what is still to be told. One task per replica.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::join!(
            self.watch(&shutdown),
            self.probe(&shutdown),
            self.canaries(&shutdown),
            self.tell(&shutdown)
        );
        self.probes.close();
        self.probes.wait().await;
    }

    fn guard(&self) -> &Arc<GuardHandle> {
        self.parts.observer.guard()
    }

    /// Where the migration stands, as this replica knows it.
    fn situation(&self) -> Situation {
        let control = &self.parts.control;
        let snapshot = control.snapshot();
        let on_the_way_back = match snapshot.phase {
            Phase::Steady => false,
            Phase::Draining => snapshot.drain_to.is_some_and(|to| to < snapshot.stage),
            Phase::Recovering => true,
        };
        Situation {
            epoch: snapshot.epoch,
            stage: snapshot.stage,
            latched: snapshot.latched,
            legacy_stale: snapshot.legacy_stale,
            storage_stale: snapshot.storage_stale,
            hands_off: snapshot.pinned || on_the_way_back,
            maintenance: control.under_maintenance(Backend::Storage),
        }
    }
}
