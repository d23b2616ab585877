//! Comparing the two sides soundly (invariant I10).
//!
//! A first mismatch is only a suspect: the secondary is paid a moment later than the authority. Before it
//! is confirmed, both sides are read again, after everything the journal knew of the rows was settled, and
//! the authority must have stood still around the reading of the secondary, twice. What never stands still
//! is `transient`; what could not be read is `one_sided_error`, never a divergence.

mod above;
mod recheck;
mod reference;
mod rows;

pub use recheck::Checked;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::compare::{Difference, DifferenceKind, replies_equal};
use crate::contract::{AttemptId, Epoch, Key, Reply};
use crate::control::{Control, Phase};
use crate::divergence::Finding;
use crate::legacy::Legacy;
use crate::observe::Observer;
use crate::schema::{Filter, Read, ReadKind, Relation, Table, read_query};

use crate::stage::Backend;
use crate::storage::{self, Capability, Storage, UnixMs};
use crate::telemetry::{Comparison as Compared, DivergenceKind, Op};

/// How reads are compared; hot-reloadable.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The share of reads that are compared, 0 to 1.
    pub sample: f64,
    /// How long to wait before a suspect is read again.
    pub recheck_delay: Duration,
    /// How often a suspect is read again before it counts as `transient`.
    pub recheck_max: u32,
    /// How long one call to storage may run.
    pub rpc_deadline: Duration,
}

/// Compares what the two backends answer, behind the caller's back.
#[derive(Debug)]
pub struct Comparer {
    control: Arc<Control>,
    legacy: Arc<Legacy>,
    storage: Arc<Storage>,
    observer: Arc<Observer>,
    options: ArcSwap<CompareOptions>,
    /// Background reads under way; more are shed, never queued.
    background: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// What the authority answered, to be held against the other side.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Who answered.
    pub authority: Backend,
    /// What was read.
    pub read: Read,
    /// The answer.
    pub reply: Reply,
    /// How long it took.
    pub time: Duration,
    /// The epoch it was answered under.
    pub epoch: Epoch,
    /// W3C trace context, passed on.
    pub traceparent: Option<String>,
}

impl Comparer {
    /// Puts the parts together; at most `background_max` reads at once.
    #[must_use]
    pub fn new(
        control: Arc<Control>,
        legacy: Arc<Legacy>,
        storage: Arc<Storage>,
        observer: Arc<Observer>,
        options: CompareOptions,
        background_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            control,
            legacy,
            storage,
            observer,
            options: ArcSwap::from_pointee(options),
            background: Arc::new(Semaphore::new(background_max)),
            tasks: TaskTracker::new(),
        })
    }

    /// Replaces the options.
    pub fn set_options(&self, options: CompareOptions) {
        self.options.store(Arc::new(options));
    }

    /// Waits for the comparisons under way; no new ones start.
    pub async fn drain(&self) {
        self.background.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Reads the other side in the background and compares. Returns at once.
    pub fn compare(self: &Arc<Self>, answered: Answered) {
        let (table, op) = (answered.read.table.name.clone(), op(&answered.read));
        // After lost history the sides differ for a known reason; a recovery is followed by a full verify.
        let recovering = self.control.snapshot().phase == Phase::Recovering;
        // What storage was not filled with is missing there for a known reason.
        let pending = self.control.pending_tables().contains(&table);
        if recovering || pending || !sampled(self.options.load().sample) {
            return self.observer.compared(&table, op, Compared::Unsampled);
        }
        let Ok(permit) = Arc::clone(&self.background).try_acquire_owned() else {
            return self.observer.compared(&table, op, Compared::Shed);
        };
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let _permit = permit;
            let result = this.compare_now(answered, op).await;
            this.observer.compared(&table, op, result);
        });
    }

    /// Checks one row that a write's outcome made suspect. Returns at once.
    pub fn suspect(self: &Arc<Self>, table: &Arc<Table>, key: Vec<Value>, op: Op) {
        let Ok(permit) = Arc::clone(&self.background).try_acquire_owned() else {
            return self.observer.compared(&table.name, op, Compared::Shed);
        };
        let (this, table) = (Arc::clone(self), Arc::clone(table));
        self.tasks.spawn(async move {
            let _permit = permit;
            let checked = this.check_row(&table, key).await;
            this.observer.compared(&table.name, op, checked.into());
        });
    }

    /// Holds one row that is suspect against the other side, as long as it takes; what is confirmed is
    /// written down.
    pub async fn check_row(&self, table: &Arc<Table>, key: Vec<Value>) -> Checked {
        let checked = self.check_rows(table, &[key]).await;
        checked.first().copied().unwrap_or(Checked::Unread)
    }

    /// The same for what one row refers to: confirmed where it refers to nothing on one side only. A row that
    /// one side lacks is not judged here.
    pub async fn check_reference(&self, relation: &Relation, key: Vec<Value>) -> Checked {
        let filter = Filter::Keys(vec![key.clone()]);
        let row = Read::whole_rows(&relation.child, filter, None);
        self.recheck_reference(&row, relation, key).await
    }

    async fn compare_now(&self, answered: Answered, op: Op) -> Compared {
        let started = std::time::Instant::now();
        let other = match answered.authority {
            Backend::Legacy => {
                self.read_storage(&answered.read, answered.epoch, answered.traceparent.clone())
                    .await
            }
            Backend::Storage => self.read_legacy(&answered.read).await,
        };
        let time = started.elapsed();
        let Some(other) = other else {
            return Compared::OneSidedError;
        };
        let (legacy, storage) = match answered.authority {
            Backend::Legacy => (answered.time, time),
            Backend::Storage => (time, answered.time),
        };
        self.observer.paired(op, legacy, storage);
        match verdict(&answered.read, &answered.reply, &other) {
            Verdict::Same => Compared::Match,
            Verdict::Ignored => Compared::Ignored,
            Verdict::Differs(first) => self.recheck(&answered.read, first).await,
        }
    }

    /// Storage's answer, or none: an outage is neither consistency nor divergence.
    async fn read_storage(
        &self,
        read: &Read,
        epoch: Epoch,
        traceparent: Option<String>,
    ) -> Option<Reply> {
        let call = storage::Call {
            query: read_query(read, self.storage.capabilities().has(Capability::OrderBy)),
            attempt: AttemptId::fresh(),
            deadline: UnixMs::after(self.options.load().rpc_deadline),
            epoch,
            traceparent,
            fences: Vec::new(),
        };
        let started = std::time::Instant::now();
        let result = self.storage.call(&call).await;
        self.observer
            .storage(op(read), started.elapsed(), result.as_ref().err());
        if let Err(error) = &result {
            tracing::debug!(%error, table = read.table.name, "storage did not answer the comparer");
        }
        result.ok()
    }

    async fn read_legacy(&self, read: &Read) -> Option<Reply> {
        let started = std::time::Instant::now();
        let result = self.legacy.read(read).await;
        self.observer
            .legacy(op(read), started.elapsed(), result.as_ref().err());
        if let Err(fault) = &result {
            tracing::debug!(%fault, table = read.table.name, "legacy did not answer the comparer");
        }
        result.ok()
    }

    /// Legacy refused for good what storage had taken under these keys: one finding for each table.
    pub async fn refused(&self, keys: &[(String, Key)], rule: &str) {
        let schema = self.legacy.schema();
        let mut told: Vec<&str> = Vec::new();
        for (name, key) in keys {
            let Some(table) = schema
                .table(name)
                .filter(|_| !told.contains(&name.as_str()))
            else {
                continue;
            };
            told.push(name);
            let finding = Finding {
                table: name.clone(),
                kind: DivergenceKind::Refused,
                key: Some(key.clone()),
                fields: vec![rule.to_owned()],
            };
            self.confirmed(table, finding).await;
        }
    }

    /// Writes a confirmed divergence down: counted, logged, listed.
    pub async fn confirmed(&self, table: &Table, finding: Finding) {
        let recorded = crate::divergence::record(self.legacy.db(), table, &finding).await;
        let explained = *recorded.as_ref().unwrap_or(&false);
        self.observer
            .diverged(&finding.table, finding.kind, explained);
        tracing::error!(table = finding.table, kind = finding.kind.as_str(), fields = ?finding.fields, "confirmed divergence");
        if let Err(fault) = recorded {
            tracing::warn!(%fault, "a divergence could not be written down");
        }
    }
}

/// The `op` label of a read.
fn op(read: &Read) -> Op {
    match read.kind {
        ReadKind::Rows { .. } => Op::Select,
        ReadKind::Count => Op::Count,
    }
}

/// Two answers to one read, held against each other.
enum Verdict {
    Same,
    /// They differ only in columns that the config says to ignore.
    Ignored,
    Differs(Difference),
}

fn verdict(read: &Read, authority: &Reply, secondary: &Reply) -> Verdict {
    if authority.as_json() == secondary.as_json() {
        return Verdict::Same;
    }
    let (Ok(authority), Ok(secondary)) = (authority.parse(), secondary.parse()) else {
        return Verdict::Differs(Difference {
            kind: DifferenceKind::Shape,
            rows: 1,
            samples: Vec::new(),
        });
    };
    match replies_equal(read, &authority, &secondary) {
        Ok(ignored) if ignored.is_empty() => Verdict::Same,
        Ok(_) => Verdict::Ignored,
        Err(difference) => Verdict::Differs(difference),
    }
}

/// Whether this read is one of the sampled share.
fn sampled(share: f64) -> bool {
    if share >= 1.0 {
        return true;
    }
    let lot = (uuid::Uuid::new_v4().as_u128() % 1_000_000) as f64 / 1_000_000.0;
    lot < share
}
