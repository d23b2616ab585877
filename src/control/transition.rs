//! A transition from beginning to end: the move, or the drain, the wait and the move.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::contract::Epoch;
use crate::sql::{Fault, IDLE_IN_TRANSACTION_MAX};

use super::change::{Ask, Cause, Verdict};
use super::control::{Control, Inner};
use super::error::TransitionError;
use super::flagfile::FlagDigest;
use super::freeze::FreezeWish;
use super::gate::{self, Changed};
use super::plan::{Refused, TransitionRequest};
use super::recovery::{RecoverWish, Recovered};
use super::state::{Phase, State};
use super::task;
use crate::stage::Stage;

/// How often a drain looks whether anything is still owed.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// For how long a rollback goes on trying while the gate is held. It outlasts a replica that froze in the
/// middle of a commit, whose session PostgreSQL ends, and what a statement of ours may take; whoever holds the
/// gate for longer is a stranger, and a person has to decide about him.
const INSIST: Duration = Duration::from_secs(30);
const _: () = assert!(INSIST.as_millis() > 4 * IDLE_IN_TRANSACTION_MAX.as_millis());
/// How long writers are let through in between, after each time that it was tried for `flip.max_pause`.
const INSIST_PAUSE: Duration = Duration::from_millis(500);

/// A transition that was made, or rehearsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transitioned {
    /// The epoch it began; the current one when it was only rehearsed.
    pub epoch: Epoch,
    /// The stage before.
    pub from: Stage,
    /// The stage after.
    pub to: Stage,
    /// How long writers were held up.
    pub pause: Duration,
    /// Whether it was only rehearsed.
    pub dry_run: bool,
}

impl Control {
    /// Moves to another stage, or leaves everything as it was. It runs to its end even when the caller is gone.
    ///
    /// # Errors
    /// Why it was not made.
    pub async fn transition(
        &self,
        request: TransitionRequest,
    ) -> Result<Transitioned, TransitionError> {
        self.run_transition(request, None).await
    }

    /// The same, consuming a content of the flag file in the same transaction.
    pub(super) async fn transition_by_flag(
        &self,
        request: TransitionRequest,
        flag: FlagDigest,
    ) -> Result<Transitioned, TransitionError> {
        self.run_transition(request, Some(flag)).await
    }

    /// Latches without a move: nothing advances until an operator re-arms.
    ///
    /// # Errors
    /// Why it was not latched.
    pub async fn freeze(&self, wish: FreezeWish) -> Result<Epoch, TransitionError> {
        self.change(Ask::Freeze(wish)).await
    }

    /// Lifts the latch.
    ///
    /// # Errors
    /// Why it was not lifted.
    pub async fn rearm(&self, actor: &str, reason: &str) -> Result<Epoch, TransitionError> {
        self.change(Ask::Rearm(Cause::new(actor, reason))).await
    }

    /// Declares that a backend lacks acknowledged writes, or, after a full verify, that it no longer does.
    ///
    /// # Errors
    /// Why it was not recorded.
    pub async fn judge(
        &self,
        verdict: Verdict,
        actor: &str,
        reason: &str,
    ) -> Result<Epoch, TransitionError> {
        let cause = Cause::new(actor, reason);
        self.change(Ask::Judge { verdict, cause }).await
    }

    /// Ends the phase `recovering`: one side is believed, the other is stale, and nothing advances until an
    /// operator re-arms.
    ///
    /// # Errors
    /// Why it was not ended.
    pub async fn recover(&self, wish: RecoverWish) -> Result<Recovered, TransitionError> {
        let seen = self.inner.pulse.lock().await.seen;
        let dry_run = wish.dry_run;
        let stale = wish.authority.other();
        let ask = Ask::Recover { wish, seen };
        let inner = &self.inner;
        let (current, change) = gate::rehearse(&inner.db, &ask, &inner.options).await?;
        let told = change.entry.evidence["may_lose"].as_array();
        let may_lose = told.into_iter().flatten().filter_map(|one| one.as_str());
        let recovered = Recovered {
            epoch: change.after.epoch,
            from: current.stage,
            stage: change.after.stage,
            stale,
            may_lose: may_lose.map(str::to_owned).collect(),
            dry_run,
        };
        if dry_run {
            return Ok(recovered);
        }
        let epoch = self.change(ask).await?;
        Ok(Recovered { epoch, ..recovered })
    }

    /// Lets the database refuse writes past the proxy where the configuration asks for it.
    pub(super) async fn agree_on_bypass(&self) -> Result<(), Fault> {
        let snapshot = self.snapshot();
        let refused = self.inner.options.bypass_always_refused || snapshot.stage >= Stage::Live;
        if snapshot.pinned || snapshot.phase != Phase::Steady || snapshot.bypass_refused == refused
        {
            return Ok(());
        }
        let actor = &self.inner.options.replica_id;
        let cause = Cause::new(actor, "legacy.bypass was configured");
        match self.change(Ask::Bypass(cause)).await {
            Ok(_epoch) => Ok(()),
            Err(TransitionError::Fault(fault)) => Err(fault),
            Err(error) => Err(Fault::Unavailable(error.to_string())),
        }
    }

    /// Makes one change and takes notice of it.
    pub(super) async fn change(&self, ask: Ask) -> Result<Epoch, TransitionError> {
        let inner = Arc::clone(&self.inner);
        let changed = task::run_to_end(async move { inner.make_now(&ask).await }).await?;
        self.notice().await;
        Ok(changed.after.epoch)
    }

    async fn run_transition(
        &self,
        request: TransitionRequest,
        flag: Option<FlagDigest>,
    ) -> Result<Transitioned, TransitionError> {
        let control = self.clone();
        task::run_to_end(async move {
            match request.kind.insists() {
                true => control.insist(request).await,
                false => control.conduct(request, flag).await,
            }
        })
        .await
    }

    /// Conducts it again and again while all that stands in its way is who holds the gate.
    async fn insist(&self, request: TransitionRequest) -> Result<Transitioned, TransitionError> {
        let began_at = Instant::now();
        loop {
            let error = match self.conduct(request.clone(), None).await {
                Err(error @ TransitionError::GateHeld { .. }) => error,
                done => return done,
            };
            if began_at.elapsed() + INSIST_PAUSE >= INSIST {
                return Err(error);
            }
            tracing::warn!(%error, to = %request.to, "a rollback waits for the gate, and goes on trying");
            sleep(INSIST_PAUSE).await;
        }
    }

    async fn conduct(
        &self,
        request: TransitionRequest,
        flag: Option<FlagDigest>,
    ) -> Result<Transitioned, TransitionError> {
        let inner = &self.inner;
        let to = request.to;
        let ask = Ask::Move(request.clone());
        if request.dry_run {
            let (current, _change) = gate::rehearse(&inner.db, &ask, &inner.options).await?;
            return Ok(Transitioned {
                epoch: current.epoch,
                from: current.stage,
                to,
                pause: Duration::ZERO,
                dry_run: true,
            });
        }
        let give_up_at = Instant::now() + inner.options.flip_max_pause;
        let changed = gate::make(inner, &ask, flag.as_ref(), give_up_at).await?;
        let from = changed.from;
        let (after, pause) = match changed.after.phase {
            Phase::Draining => self.drain(request, &changed.after).await?,
            Phase::Steady | Phase::Recovering => (changed.after, changed.pause),
        };
        self.notice().await;
        if let Ok(mut pauses) = self.inner.pauses.lock() {
            pauses.push(pause);
        }
        tracing::info!(%from, %to, epoch = after.epoch.0, ?pause, "the stage changed");
        Ok(Transitioned {
            epoch: after.epoch,
            from,
            to,
            pause,
            dry_run: false,
        })
    }

    /// Waits until nothing is owed and moves; or gives up, and writers go on as before.
    async fn drain(
        &self,
        request: TransitionRequest,
        draining: &State,
    ) -> Result<(State, Duration), TransitionError> {
        let began_at = Instant::now();
        let give_up_at = began_at + self.inner.options.flip_max_pause;
        let finish = Ask::FinishDrain {
            request,
            drain: draining.epoch,
        };
        // Writers hold from now on.
        self.notice().await;
        let error = loop {
            let error = match self.try_to_finish(&finish, give_up_at).await {
                Ok(changed) => return Ok((changed.after, began_at.elapsed())),
                Err(error) => error,
            };
            let refused = match error {
                TransitionError::Refused(
                    refused @ (Refused::Owed(_) | Refused::Unconfirmed(_)),
                ) => refused,
                // Somebody else has ended it: by a rollback, or because our time was up.
                TransitionError::Refused(Refused::EpochMoved { .. }) => {
                    self.notice().await;
                    return Err(error);
                }
                error => break error,
            };
            if Instant::now() + DRAIN_POLL >= give_up_at {
                break TransitionError::NotDrained(refused);
            }
            sleep(DRAIN_POLL).await;
            if matches!(refused, Refused::Unconfirmed(_)) {
                // A way back from ramp_down waits for our own acknowledgement, too.
                self.notice().await;
            }
        };
        self.give_up(draining.epoch, &error.to_string()).await;
        Err(error)
    }

    /// Looks without the gate first: a shut gate makes every writer wait.
    async fn try_to_finish(
        &self,
        finish: &Ask,
        give_up_at: Instant,
    ) -> Result<Changed, TransitionError> {
        let inner = &self.inner;
        gate::rehearse(&inner.db, finish, &inner.options).await?;
        gate::make(inner, finish, None, give_up_at).await
    }

    /// Back to rest. When even that fails, any replica does it after the drain's deadline.
    pub(super) async fn give_up(&self, drain: Epoch, why: &str) {
        let ask = Ask::GiveUpDrain {
            drain,
            cause: Cause::new(&self.inner.options.replica_id, why),
        };
        match self.inner.make_now(&ask).await {
            Ok(_) | Err(TransitionError::Refused(_)) => {}
            Err(error) => tracing::warn!(%error, "a draining phase could not be given up yet"),
        }
        self.notice().await;
    }

    /// Learns what has just changed. A failure is mended by the next heartbeat, and the gate trusts neither.
    async fn notice(&self) {
        if let Err(fault) = self.refresh().await {
            tracing::warn!(%fault, "the change is made but could not be read back yet");
        }
    }
}

impl Inner {
    /// Makes one change, with the usual patience for the gate.
    pub(super) async fn make_now(&self, ask: &Ask) -> Result<Changed, TransitionError> {
        let give_up_at = Instant::now() + self.options.flip_max_pause;
        gate::make(self, ask, None, give_up_at).await
    }
}
