//! What a request does, stage by stage: the table of DESIGN as code.
//!
//! A request is admitted under one snapshot of the control state and uses it to its end. Writes run in
//! tasks of their own: a caller that goes away must not leave half a write behind.

mod call;
mod errors;
mod live;
mod observe;
mod read;
mod solo;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

pub use call::{Answer, Call, Door};
pub use observe::{Observer, Pairing};

use crate::contract::Query;
use crate::control::{Control, Snapshot};
use crate::legacy::Legacy;
use crate::schema::{BindLimits, Bound, bind};
use crate::storage::Storage;

/// How the repository behaves; the hot part is read from `policy` for every request.
#[derive(Clone, Debug)]
pub struct RepositoryOptions {
    /// The `db` that requests must name.
    pub db: String,
    /// Limits on what a request may ask.
    pub limits: BindLimits,
    /// How long a read may take.
    pub read_deadline: Duration,
    /// How long a write may take, waiting for its turn included.
    pub write_deadline: Duration,
    /// How long one call to storage may run.
    pub rpc_deadline: Duration,
    /// Clocks may differ by this much.
    pub clock_skew_max: Duration,
    /// A service that cannot refuse late requests gets this long after a doubt.
    pub quiet_period: Duration,
    /// Shadow reads under way at once; more are shed.
    pub background_max: usize,
    /// The share of reads that are compared, 0 to 1.
    pub sample: f64,
    /// How long to wait before a suspect is read again.
    pub recheck_delay: Duration,
    /// Whether a replica without a lease goes on reading from storage, or refuses.
    pub refuse_without_lease: bool,
}

/// The two backends and the rules between them.
#[derive(Debug)]
pub struct Repository {
    control: Arc<Control>,
    legacy: Arc<Legacy>,
    storage: Arc<Storage>,
    observer: Arc<Observer>,
    options: arc_swap::ArcSwap<RepositoryOptions>,
    /// Rung after a commit that appended to the journal, so that the usual delay of a payment is small.
    owed: Arc<Notify>,
    background: Arc<Semaphore>,
}

impl Repository {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        control: Arc<Control>,
        legacy: Arc<Legacy>,
        storage: Arc<Storage>,
        observer: Arc<Observer>,
        options: RepositoryOptions,
        owed: Arc<Notify>,
    ) -> Arc<Self> {
        let background = Arc::new(Semaphore::new(options.background_max));
        Arc::new(Self {
            control,
            legacy,
            storage,
            observer,
            options: arc_swap::ArcSwap::from_pointee(options),
            owed,
            background,
        })
    }

    /// Replaces the hot part of the options.
    pub fn set_options(&self, options: RepositoryOptions) {
        self.options.store(Arc::new(options));
    }

    /// Runs one request to its answer.
    pub async fn execute(self: &Arc<Self>, call: Call) -> Answer {
        let started = Instant::now();
        let stage = self.control.snapshot().stage;
        let (door, op) = (call.door, call.request.query.op());
        let table = self.observer.table_label(&call.request.query);
        let answer = self.answer(call).await;
        self.observer
            .request(door, op, &table, stage, &answer, started.elapsed());
        answer
    }

    async fn answer(self: &Arc<Self>, call: Call) -> Answer {
        let snapshot = self.control.snapshot();
        let bound = match self.bind(&call.request.db, &call.request.query) {
            Ok(bound) => bound,
            Err(error) => return Answer::refused(&snapshot, error),
        };
        match bound {
            Bound::Read(read) => self.read(call, read).await,
            Bound::Write(write) => {
                // Detached: the write goes on if the caller is gone.
                let this = Arc::clone(self);
                let task = tokio::spawn(async move { this.write(call, write).await });
                match task.await {
                    Ok(answer) => answer,
                    Err(_) => Answer::refused(&snapshot, errors::task_failed()),
                }
            }
        }
    }

    fn bind(&self, db: &str, query: &Query) -> Result<Bound, crate::contract::Error> {
        let options = self.options.load();
        if db != options.db {
            return Err(errors::unknown_db(&options.db));
        }
        bind(query, &self.legacy.schema(), &options.limits)
    }

    /// The snapshot's answer when the stage's authority answered.
    fn answered(
        snapshot: &Snapshot,
        result: Result<crate::contract::Reply, crate::contract::Error>,
        backend: crate::stage::Backend,
        time: Duration,
    ) -> Answer {
        Answer {
            result,
            backend: Some(backend),
            epoch: snapshot.epoch,
            stage: snapshot.stage,
            op_id: None,
            backend_time: Some(time),
            lease_expired: false,
        }
    }
}
