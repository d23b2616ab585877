//! The background life of a replica: it beats, and does what nobody else may be left to do.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::sql::{Fault, Listener};

use super::change::{Ask, Cause, Verdict};
use super::control::Control;
use super::error::TransitionError;
use super::gate::CHANNEL;
use super::replica;
use super::state::Phase;
use crate::stage::{Backend, Stage};

/// How often rows of replicas that are gone are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How often expected outages are looked for.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(1);
/// How long after a lost connection, or a failed attempt, to listen again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// When the rarer duties were last done.
struct Chores {
    pruned_at: Instant,
    maintenance_read_at: Option<Instant>,
}

impl Default for Chores {
    fn default() -> Self {
        Self {
            pruned_at: Instant::now(),
            maintenance_read_at: None,
        }
    }
}

impl Control {
    /// Beats every `heartbeat` and whenever a transition is announced, until `shutdown`; then takes leave. One task
    /// per replica.
    pub async fn run(&self, shutdown: CancellationToken) {
        // Side by side and not in turns: a wait for an announcement is not cut off in the middle by a beat.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.beat_for_ever() => {}
            () = self.listen_for_ever() => {}
        }
        self.take_leave().await;
    }

    async fn beat_for_ever(&self) {
        let mut beat = interval(self.inner.options.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut chores = Chores::default();
        let mut in_touch = true;
        loop {
            beat.tick().await;
            let result = self.keep(&mut chores).await;
            match &result {
                Err(fault) if in_touch => {
                    tracing::warn!(%fault, "the control state is out of reach");
                }
                Ok(()) if !in_touch => tracing::info!("the control state is in reach again"),
                Ok(()) | Err(_) => {}
            }
            in_touch = result.is_ok();
        }
    }

    /// Announcements only make it faster: what is missed here, the next beat brings.
    async fn listen_for_ever(&self) {
        loop {
            match Listener::start(&self.inner.db, CHANNEL).await {
                Ok(mut listener) => self.listen(&mut listener).await,
                Err(fault) => tracing::debug!(%fault, "cannot listen for transitions yet"),
            }
            sleep(LISTEN_AGAIN).await;
        }
    }

    /// Until the connection is lost. Listening comes first and reading after, so nothing falls in between.
    async fn listen(&self, listener: &mut Listener) {
        loop {
            if let Err(fault) = self.refresh().await {
                tracing::debug!(%fault, "a transition was announced and could not be read yet");
            }
            if let Err(fault) = listener.recv().await {
                tracing::debug!(%fault, "announcements of transitions may have been missed");
                return;
            }
        }
    }

    async fn keep(&self, chores: &mut Chores) -> Result<(), Fault> {
        self.refresh().await?;
        self.end_an_orphaned_drain().await;
        self.account_for_lost_debts().await?;
        if chores
            .maintenance_read_at
            .is_none_or(|at| at.elapsed() >= MAINTENANCE_EVERY)
        {
            chores.maintenance_read_at = Some(Instant::now());
            self.read_maintenance().await?;
        }
        if chores.pruned_at.elapsed() >= PRUNE_EVERY {
            chores.pruned_at = Instant::now();
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
        let ramping_down = self.snapshot().stage == Stage::RampDown;
        let died = ramping_down && replica::died_dirty(&self.inner.db).await?;
        if !dropped && !died {
            return Ok(());
        }
        let reason = if dropped {
            "a write was not carried over to legacy"
        } else {
            "a replica died with writes that legacy may lack"
        };
        let verdict = Verdict {
            backend: Backend::Legacy,
            stale: true,
            expected_epoch: None,
            evidence: serde_json::Value::Null,
        };
        let cause = Cause::new(&self.inner.options.replica_id, reason);
        let ask = Ask::Judge { verdict, cause };
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
    pub async fn take_leave(&self) {
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
