//! The background life of a replica: it beats, and does what nobody else may be left to do.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use std::sync::atomic::Ordering;

use crate::sql::Fault;

use super::change::Ask;
use super::control::Control;
use super::error::TransitionError;
use super::replica;
use super::state::Phase;
use crate::stage::{Backend, Stage};

/// How often rows of replicas that are gone are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

impl Control {
    /// Beats every `heartbeat` until `shutdown`, then takes leave. One task per replica.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut beat = interval(self.inner.options.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pruned_at = Instant::now();
        let mut in_touch = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = beat.tick() => {}
            }
            let result = self.keep(&mut pruned_at).await;
            match &result {
                Err(fault) if in_touch => {
                    tracing::warn!(%fault, "the control state is out of reach")
                }
                Ok(()) if !in_touch => tracing::info!("the control state is in reach again"),
                Ok(()) | Err(_) => {}
            }
            in_touch = result.is_ok();
        }
        self.take_leave().await;
    }

    async fn keep(&self, pruned_at: &mut Instant) -> Result<(), Fault> {
        self.refresh().await?;
        self.end_an_orphaned_drain().await;
        self.account_for_lost_debts().await?;
        if pruned_at.elapsed() >= PRUNE_EVERY {
            *pruned_at = Instant::now();
            replica::prune(&self.inner.db).await?;
        }
        Ok(())
    }

    /// A draining phase whose coordinator died would hold writers up for ever.
    async fn end_an_orphaned_drain(&self) {
        let overdue = {
            let pulse = self.inner.pulse.lock().await;
            pulse.state.as_ref().and_then(|state| {
                let due = state.drain_deadline_us? < pulse.now_us;
                (state.phase == Phase::Draining && due).then_some(state.epoch)
            })
        };
        if let Some(epoch) = overdue {
            self.give_up(epoch, "the drain's time was up").await;
        }
    }

    /// P15: a debt that was dropped, or died with its replica, makes legacy stale.
    async fn account_for_lost_debts(&self) -> Result<(), Fault> {
        let dropped = self.inner.debt_dropped.load(Ordering::SeqCst);
        let snapshot = self.snapshot();
        let matters = snapshot.stage == Stage::RampDown && !snapshot.legacy_stale;
        let died = matters && replica::died_dirty(&self.inner.db).await?;
        if !dropped && !died {
            return Ok(());
        }
        let reason = if dropped {
            "a write was not carried over to legacy"
        } else {
            "a replica died with writes that legacy may lack"
        };
        let ask = Ask::Judge {
            backend: Backend::Legacy,
            stale: true,
            reached: None,
            actor: self.inner.options.replica_id.clone(),
            reason: reason.to_owned(),
            evidence: serde_json::Value::Null,
        };
        match self.change(ask).await {
            Ok(_epoch) => {
                if dropped {
                    self.inner.debt_dropped.store(false, Ordering::SeqCst);
                }
                tracing::error!(reason, "legacy is stale");
                Ok(())
            }
            Err(TransitionError::Fault(fault)) => Err(fault),
            Err(error) => Err(Fault::Unavailable(error.to_string())),
        }
    }

    /// A replica that says goodbye is not waited for; one with debts stays on the list, for the others to judge.
    async fn take_leave(&self) {
        let owing = self.inner.debts.load(Ordering::SeqCst) > 0
            || self.inner.debt_dropped.load(Ordering::SeqCst);
        if owing {
            return;
        }
        // No beat may bring the row back.
        let _no_more_beats = self.inner.pulse.lock().await;
        if let Err(fault) = replica::leave(&self.inner.db, &self.inner.options.replica_id).await {
            tracing::warn!(%fault, "could not take leave; the others wait for the lease");
        }
    }
}
