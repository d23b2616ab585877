//! The applier: the one place that pays what the journal says is owed.
//!
//! Write-through, retry, crash recovery and repair are all the same loop: claim entries, read the
//! authority's rows, give them to the secondary, settle. Applying is idempotent, so an entry may be paid
//! twice; it is never forgotten.

mod batch;
mod cycle;
mod housekeeping;
mod payable;
mod removals;
mod to_legacy;
mod to_storage;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use batch::BatchSize;
use turns::{Turn, Turns};

use crate::control::{Control, Phase};
use crate::drift::Drift;
use crate::journal::{self, Claim, ClaimOptions, Direction, LowWater, Outlook};
use crate::legacy::Legacy;
use crate::observe::Observer;
use crate::repository::Parts;
use crate::shadow::Comparer;
use crate::sql::Fault;
use crate::stage::Stage;
use crate::storage::Storage;

/// How the applier works.
#[derive(Clone, Debug)]
pub struct ApplierOptions {
    /// Keys claimed together at most, and sent in one batch where the service can.
    pub batch_max: usize,
    /// Claims under way at once.
    pub concurrency: usize,
    /// How often to look without being woken.
    pub poll: Duration,
    /// The longest wait between tries while the secondary is unavailable.
    pub backoff_max: Duration,
    /// How long one call to storage may run.
    pub rpc_deadline: Duration,
    /// Clocks may differ by this much.
    pub clock_skew_max: Duration,
    /// Added to the deadline of a payment where the service cannot refuse late requests.
    pub quiet_period: Duration,
    /// Open entries at which the stage falls to `off`.
    pub journal_entries_max: i64,
    /// Room they take, estimated, at which it does so too.
    pub journal_bytes_max: i64,
    /// How long operation records are kept.
    pub operations_retention: Duration,
}

/// Pays the journal.
#[derive(Debug)]
pub struct Applier {
    control: Arc<Control>,
    legacy: Arc<Legacy>,
    storage: Arc<Storage>,
    observer: Arc<Observer>,
    comparer: Arc<Comparer>,
    drift: Arc<Drift>,
    options: ApplierOptions,
    batch: BatchSize,
    turns: Turns,
    /// For claims, and for the take-over of intents: each looks for itself.
    outlook: Outlook,
    low_water_of_intents: LowWater,
    owed: Arc<Notify>,
}

/// What a round found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    /// Something was paid: look again at once.
    Paid,
    /// Nothing to pay now.
    Idle,
    /// The secondary is not there: wait longer each time.
    Unavailable,
}

impl Round {
    /// What two looks found together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Paid, _) | (_, Self::Paid) => Self::Paid,
            (Self::Unavailable, _) | (_, Self::Unavailable) => Self::Unavailable,
            (Self::Idle, Self::Idle) => Self::Idle,
        }
    }
}

impl Applier {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts, options: ApplierOptions) -> Arc<Self> {
        Arc::new(Self {
            control: parts.control,
            legacy: parts.legacy,
            storage: parts.storage,
            observer: parts.observer,
            comparer: parts.comparer,
            drift: parts.drift,
            owed: parts.owed,
            batch: BatchSize::new(options.batch_max),
            turns: Turns::new(options.concurrency, options.poll, options.backoff_max),
            outlook: Outlook::default(),
            low_water_of_intents: LowWater::default(),
            options,
        })
    }

    /// Runs until `shutdown`; finishes the payment under way first.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..self.options.concurrency.max(1) {
            workers.spawn(Arc::clone(&self).work(shutdown.clone()));
        }
        workers.spawn(Arc::clone(&self).keep_house(shutdown));
        while workers.join_next().await.is_some() {}
    }

    async fn work(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let mut turn = tokio::select! {
                () = shutdown.cancelled() => return,
                turn = self.turns.next(&self.owed) => turn,
            };
            let found = self.round(&mut turn, &shutdown).await;
            turn.end(found, &self.owed);
        }
    }

    /// One look at the journal.
    async fn round(&self, turn: &mut Turn<'_>, shutdown: &CancellationToken) -> Round {
        let snapshot = self.control.snapshot();
        if snapshot.phase == Phase::Recovering {
            // Which side is right is for an operator to say: a payment would overwrite what may be the only copy.
            return Round::Idle;
        }
        match snapshot.stage {
            Stage::Off | Stage::Complete => Round::Idle,
            Stage::DualWrite | Stage::Shadow => match self.pay_storage(turn).await {
                Round::Idle => self.tend_storage(turn, shutdown).await,
                round => round,
            },
            Stage::Live | Stage::RampDown => {
                let round = self.pay_legacy(turn).await;
                round.and(self.tend_legacy(turn, snapshot.stage, shutdown).await)
            }
        }
    }

    /// Parked entries.
    async fn tend_storage(&self, turn: &mut Turn<'_>, shutdown: &CancellationToken) -> Round {
        match turn.tend() {
            Some(_tending) => turn.during(self.pay_parked(shutdown)).await,
            None => Round::Idle,
        }
    }

    /// Intents; in `live` also what legacy refused: storage gets legacy's rows back (P13).
    async fn tend_legacy(
        &self,
        turn: &mut Turn<'_>,
        stage: Stage,
        shutdown: &CancellationToken,
    ) -> Round {
        let Some(_tending) = turn.tend() else {
            return Round::Idle;
        };
        let resolved = turn.during(self.resolve_intents()).await;
        if stage == Stage::RampDown {
            return resolved;
        }
        let given_back = match self.pay_storage(turn).await {
            Round::Idle => turn.during(self.pay_parked(shutdown)).await,
            round => round,
        };
        resolved.and(given_back)
    }

    /// Claims entries that are due. Within a turn: two at once would choose the same, and one of them in vain.
    async fn claim(&self, direction: Direction) -> Result<Option<Claim>, Fault> {
        journal::claim(
            self.legacy.db(),
            &self.claim_options(direction),
            &self.outlook,
        )
        .await
    }

    /// Claims parked entries: those that had rested by then, where it is given.
    async fn claim_parked(&self, rested_us: Option<i64>) -> Result<Option<Claim>, Fault> {
        let options = self.claim_options(Direction::ToStorage);
        journal::claim_parked(self.legacy.db(), &options, &self.outlook, rested_us).await
    }

    fn claim_options(&self, direction: Direction) -> ClaimOptions {
        ClaimOptions {
            direction,
            batch_max: self.batch.get(),
            lease: self.lease(),
            clock_skew_max: self.options.clock_skew_max,
            epoch_min: self.control.snapshot().epoch,
        }
    }

    /// How long a claim lasts: as long as its request may run.
    fn lease(&self) -> Duration {
        if self.storage.refuses_late() {
            self.options.rpc_deadline
        } else {
            self.options.rpc_deadline + self.options.quiet_period
        }
    }
}
