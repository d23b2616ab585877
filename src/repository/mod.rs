//! What a request does, stage by stage: the table of DESIGN as code.
//!
//! A request is admitted under one snapshot of the control state and uses it to its end. A write runs to its
//! end too, whatever becomes of its caller (`detach`).

mod bonds;
mod call;
mod detach;
mod errors;
mod live;
mod read;
mod solo;
mod write;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

pub use call::{Answer, Call, OpIdSource};

pub use solo::repeats_weakened;

use detach::{Detach, Panicked};

use crate::contract::{Error, Reply, Request};
use crate::control::{Control, Snapshot};
use crate::drift::Drift;
use crate::legacy::{Hint, Legacy};
use crate::observe::{CallKind, Observer};
use crate::schema::{BindLimits, Bound, Schema, bind};
use crate::shadow::Comparer;
use crate::stage::Backend;
use crate::storage::Storage;

/// How the repository behaves; hot-reloadable.
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
    /// Whether a replica without a lease on the epoch refuses reads of storage instead of answering them.
    pub refuse_without_lease: bool,
}

/// The parts that the repository stands between.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Stage, epoch, leases.
    pub control: Arc<Control>,
    /// The legacy database.
    pub legacy: Arc<Legacy>,
    /// The storage service.
    pub storage: Arc<Storage>,
    /// Where everything is reported.
    pub observer: Arc<Observer>,
    /// Holds answers against the other side.
    pub comparer: Arc<Comparer>,
    /// Where the sides' schemas differ.
    pub drift: Arc<Drift>,
    /// Rung after a commit that appended to the journal, so that the usual delay of a payment is small.
    pub owed: Arc<Notify>,
}

/// Debts towards legacy that wait to be written down in `ramp_down`; more are dropped, and legacy is stale.
const DEBTS_MAX: usize = 1_000;

/// The two backends and the rules between them.
#[derive(Debug)]
pub struct Repository {
    control: Arc<Control>,
    legacy: Arc<Legacy>,
    storage: Arc<Storage>,
    observer: Arc<Observer>,
    comparer: Arc<Comparer>,
    drift: Arc<Drift>,
    owed: Arc<Notify>,
    options: ArcSwap<RepositoryOptions>,
    debts: Arc<Semaphore>,
    /// What was done here lately where storage answers alone.
    recent: Arc<solo::Recent>,
    /// Whether legacy may be asked there.
    circuit: solo::Circuit,
    tasks: TaskTracker,
}

impl Repository {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts, options: RepositoryOptions) -> Arc<Self> {
        Arc::new(Self {
            control: parts.control,
            legacy: parts.legacy,
            storage: parts.storage,
            observer: parts.observer,
            comparer: parts.comparer,
            drift: parts.drift,
            owed: parts.owed,
            options: ArcSwap::from_pointee(options),
            debts: Arc::new(Semaphore::new(DEBTS_MAX)),
            recent: Arc::default(),
            circuit: solo::Circuit::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Replaces the options.
    pub fn set_options(&self, options: RepositoryOptions) {
        self.options.store(Arc::new(options));
    }

    /// Waits for writes whose callers are gone and for debts to be written down.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs one request to its answer.
    pub async fn execute(self: &Arc<Self>, call: Call) -> Answer {
        let (known, bound) = match self.bind(&call.request).await {
            Ok(bound) => bound,
            Err(error) => return Answer::refused(&self.control.snapshot(), error),
        };
        let received = call.received;
        let (kind, answer) = match bound {
            Bound::Read(read) => (CallKind::Read, self.read(&call, known, read).await),
            Bound::Write(write) => {
                let this = Arc::clone(self);
                let work = async move { this.write(call, known, write).await };
                let answer = match Detach::new(work, &self.tasks).await {
                    Ok(answer) => answer,
                    Err(Panicked) => {
                        Answer::refused(&self.control.snapshot(), errors::task_failed())
                    }
                };
                (CallKind::Write, answer)
            }
        };
        if answer.result.is_ok() {
            self.observer
                .answered(kind, answer.stage, received.elapsed());
            if answer.backend == Some(Backend::Legacy) {
                self.observer.legacy_answered(answer.epoch);
            }
        }
        answer
    }

    /// Binds a request. A name that is not known may be a new one: the tables are looked at once more then.
    async fn bind(&self, request: &Request) -> Result<(Arc<Schema>, Bound), Error> {
        let known = self.legacy.schema();
        match self.bind_to(&known, request) {
            Ok(bound) => Ok((known, bound)),
            Err(error) if errors::may_be_of_newer_tables(&error) => {
                let newer = self.legacy.schema_after(&known, Hint::Caller).await;
                let newer = newer.ok_or(error)?;
                let bound = self.bind_to(&newer, request)?;
                Ok((newer, bound))
            }
            Err(error) => Err(error),
        }
    }

    /// Binds a request anew after the database met other tables than it was bound to.
    ///
    /// # Errors
    /// What is wrong with it now; or that nothing newer is known.
    async fn bind_anew(
        &self,
        used: &Arc<Schema>,
        request: &Request,
    ) -> Result<(Arc<Schema>, Bound), Error> {
        let newer = self.legacy.schema_after(used, Hint::Database).await;
        let newer = newer.ok_or_else(errors::tables_are_changing)?;
        let bound = self.bind_to(&newer, request)?;
        Ok((newer, bound))
    }

    fn bind_to(&self, schema: &Schema, request: &Request) -> Result<Bound, Error> {
        let options = self.options.load();
        if request.db != options.db {
            return Err(errors::unknown_db(&options.db));
        }
        bind(&request.query, schema, &options.limits)
    }

    /// The answer that a backend gave under a snapshot.
    fn answered(
        snapshot: &Snapshot,
        result: Result<Reply, Error>,
        backend: Backend,
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
