//! Writing down what the replica saw, before a restart forgets it: comparisons, and callers' latency in `off`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::config::Hot;
use crate::contract::Epoch;
use crate::control::{self, Control};
use crate::evidence::{self, Baseline, CallersLately};
use crate::legacy::Legacy;
use crate::observe::{CallKind, Observer};
use crate::sql::Fault;
use crate::stage::Stage;

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// Who saw it, and who is told.
pub(super) struct Witness {
    control: Arc<Control>,
    legacy: Arc<Legacy>,
    observer: Arc<Observer>,
    hot: Arc<ArcSwap<Hot>>,
}

impl Engine {
    pub(super) fn witness(&self) -> Witness {
        Witness {
            control: Arc::clone(&self.parts.control),
            legacy: Arc::clone(&self.parts.legacy),
            observer: Arc::clone(&self.parts.observer),
            hot: Arc::clone(&self.hot),
        }
    }
}

impl Witness {
    /// Writes down what there is, every two seconds and once more at the end.
    pub(super) async fn testify(self, shutdown: CancellationToken) {
        let mut last = false;
        while !last {
            last = shutdown.is_cancelled();
            if let Err(fault) = self.testify_once().await {
                tracing::debug!(%fault, "what was seen could not be written down yet");
            }
            if !last {
                shutdown
                    .run_until_cancelled(tokio::time::sleep(EVERY))
                    .await;
            }
        }
    }

    async fn testify_once(&self) -> Result<(), Fault> {
        self.tell_of_callers();
        let snapshot = self.control.snapshot();
        if snapshot.stage == Stage::Off {
            self.baseline().await?;
        }
        self.comparisons(snapshot.epoch).await
    }

    /// What callers waited lately, for the readiness that any replica may be asked for.
    fn tell_of_callers(&self) {
        let lately = CallKind::ALL.map(|kind| {
            let since = self.observer.caller_latency(kind).since;
            CallersLately {
                kind: kind.as_str().to_owned(),
                samples: i64::try_from(since.samples).unwrap_or(i64::MAX),
                p95_us: (since.p95_ms * 1000.0) as i64,
            }
        });
        self.control.tell_of_callers(CallersLately::tell(&lately));
    }

    /// Callers' latency while legacy is alone, once it rests on enough calls.
    async fn baseline(&self) -> Result<(), Fault> {
        let samples_min = self.hot.load().readiness.baseline_samples_min.max(1);
        for kind in CallKind::ALL {
            let alone = self.observer.caller_latency(kind).alone;
            let samples = i64::try_from(alone.samples).unwrap_or(i64::MAX);
            if samples < i64::from(samples_min) {
                continue;
            }
            let baseline = Baseline {
                kind: kind.as_str().to_owned(),
                samples,
                p50_us: (alone.p50_ms * 1000.0) as i64,
                p95_us: (alone.p95_ms * 1000.0) as i64,
                at_us: 0,
            };
            evidence::record_baseline(self.legacy.db(), &baseline).await?;
        }
        Ok(())
    }

    async fn comparisons(&self, epoch: Epoch) -> Result<(), Fault> {
        let tallies = self.observer.take_tallies();
        if tallies.is_empty() {
            return Ok(());
        }
        let db = self.legacy.db();
        let entered = control::entered(db, Stage::Shadow).await;
        let since = entered.as_ref().map_or(Epoch(0), |entered| {
            entered.map_or(Epoch(0), |one| one.epoch)
        });
        let mut result = entered.map(drop);
        for tally in &tallies {
            if result.is_ok() {
                result = evidence::record_compared(db, epoch, since, tally).await;
            }
            if result.is_err() {
                self.observer.give_tally_back(tally);
            }
        }
        result
    }
}
