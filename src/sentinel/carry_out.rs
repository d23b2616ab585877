//! Carrying out a decision: the one transition, retried until it is made or void.

use std::time::Duration;

use serde_json::{Value, json};

use super::Sentinel;
use super::tell::Announcement;
use crate::contract::Epoch;
use crate::control::{FreezeWish, Refused, TransitionError, TransitionKind, TransitionRequest};
use crate::guard::{Decision, Remedy, Situation};

/// After a refusal: the situation must be seen anew first, and a log line per round would help nobody.
const REST: Duration = Duration::from_secs(1);
/// After a drain that gave up: writers were held meanwhile.
const REST_AFTER_DRAIN: Duration = Duration::from_secs(5);
/// How far back to look for a move whose commit was in doubt.
const HISTORY: u32 = 8;

/// What became of a try.
enum Tried {
    /// The epoch it began.
    Made(Epoch),
    /// The decision is void; what still fires decides anew, after a rest.
    Void(Duration),
    /// Not now; the decision stands.
    Later,
}

impl Sentinel {
    /// Tries once; returns how long not to try again.
    pub(super) async fn carry_out(&self, decision: &Decision, situation: &Situation) -> Duration {
        let evidence = self.evidence(decision, situation);
        let control = &self.parts.control;
        let (actor, reason) = (decision.verdict.trigger.to_string(), decision.reason());
        let result = match decision.remedy {
            Remedy::Freeze => {
                let wish = FreezeWish {
                    expected_epoch: decision.epoch,
                    actor,
                    reason,
                    evidence: evidence.clone(),
                };
                control.freeze(wish).await
            }
            Remedy::Rollback(to) => {
                let request = TransitionRequest {
                    to,
                    kind: TransitionKind::Guard,
                    actor,
                    reason,
                    ticket: None,
                    expected_epoch: Some(decision.epoch),
                    force: false,
                    dry_run: false,
                    evidence: evidence.clone(),
                };
                let made = control.transition(request).await;
                made.map(|made| made.epoch)
            }
        };
        match self.tried(result, decision).await {
            Tried::Made(epoch) => {
                self.made(decision, situation, epoch, evidence);
                self.guard().withdraw();
                Duration::ZERO
            }
            Tried::Void(rest) => {
                self.guard().withdraw();
                rest
            }
            Tried::Later => Duration::ZERO,
        }
    }

    /// The one reaction to each way in which a try can end.
    async fn tried(&self, result: Result<Epoch, TransitionError>, decision: &Decision) -> Tried {
        let error = match result {
            Ok(epoch) => return Tried::Made(epoch),
            Err(error) => error,
        };
        match error {
            TransitionError::Refused(Refused::EpochMoved { .. } | Refused::Latched) => {
                if let Err(fault) = self.parts.control.refresh().await {
                    tracing::debug!(%fault, "the state that moved could not be read yet");
                }
                match self.was_made(decision).await {
                    true => Tried::Made(decision.epoch.next()),
                    // Another hand was faster, on this replica or another.
                    false => Tried::Void(Duration::ZERO),
                }
            }
            TransitionError::Refused(refused) => {
                tracing::error!(%refused, reason = decision.reason(), "what the guard decided was refused");
                Tried::Void(REST)
            }
            TransitionError::NotDrained(refused) => {
                tracing::error!(%refused, reason = decision.reason(), "a rollback of the guard waits for what legacy is owed");
                Tried::Void(REST_AFTER_DRAIN)
            }
            error @ (TransitionError::GateHeld { .. } | TransitionError::Fault(_)) => {
                tracing::error!(%error, reason = decision.reason(), "what the guard decided is not done yet");
                Tried::Later
            }
        }
    }

    /// Whether the epoch that follows is this decision's, its commit's answer having been lost.
    async fn was_made(&self, decision: &Decision) -> bool {
        let Ok(history) = self.parts.control.history(HISTORY).await else {
            return false;
        };
        let own_id = &self.parts.control.options().replica_id;
        history.iter().any(|record| {
            record.epoch == decision.epoch.next()
                && record.kind == TransitionKind::Guard.as_str()
                && record.evidence.contains(own_id.as_str())
        })
    }

    fn evidence(&self, decision: &Decision, situation: &Situation) -> Value {
        let mut evidence = decision.evidence();
        evidence["stage"] = json!(situation.stage.as_str());
        if let Some(rehearsing) = self.parts.storage.rehearsing() {
            evidence["drill"] = json!(rehearsing.drill());
        }
        evidence["replica"] = json!(self.parts.control.options().replica_id);
        evidence
    }

    /// Says so, everywhere.
    fn made(&self, decision: &Decision, situation: &Situation, epoch: Epoch, evidence: Value) {
        let (event, to) = match decision.remedy {
            Remedy::Freeze => ("freeze", situation.stage),
            Remedy::Rollback(to) => {
                let trigger = decision.verdict.trigger;
                self.parts.observer.metrics().rolled_back(trigger);
                ("rollback", to)
            }
        };
        let (from, reason) = (situation.stage, decision.reason());
        let verdict = &decision.verdict;
        tracing::error!(
            event, %from, %to, epoch = epoch.0, trigger = %verdict.trigger, value = verdict.value,
            threshold = verdict.threshold, samples = verdict.samples, window = ?verdict.window,
            votes = decision.votes, replicas = decision.replicas, reason,
            "the guard acted: nothing advances until an operator re-arms"
        );
        let mut body = evidence;
        body["event"] = json!(event);
        body["db"] = json!(self.options.load().db);
        body["from"] = json!(from.as_str());
        body["to"] = json!(to.as_str());
        body["epoch"] = json!(epoch.0);
        body["at"] = json!(crate::clock::rfc3339_now());
        body["reason"] = json!(reason);
        let announcement = Announcement {
            event,
            body: body.to_string(),
        };
        if self.announce.try_send(announcement).is_err() {
            tracing::error!(
                event,
                "too much is still to be told: nobody is told of this"
            );
        }
    }
}
