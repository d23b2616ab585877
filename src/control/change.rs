//! Every change of the control state, as a pure function from the state before to the state after.
//!
//! A request can take two steps (a drain, then the move), each of them one epoch and one transaction;
//! repairs of the state itself (re-arm, stale marks, recovery) are changes like any other, so that the
//! epoch and the audit know no second way in.

use serde_json::{Value, json};

use crate::clock::micros;
use crate::contract::Epoch;

use super::convert::Conversion;
use super::options::ControlOptions;
use super::plan::{Refused, TransitionRequest, plan};
use super::state::{Phase, State};
use crate::stage::{Backend, Stage};

/// One wish for one change.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Ask {
    /// Move, or begin to drain when the move needs it.
    Move(TransitionRequest),
    /// Move now that it is drained; `drain` is the epoch of the draining phase.
    FinishDrain {
        request: TransitionRequest,
        drain: Epoch,
    },
    /// Back to rest, in the stage before.
    GiveUpDrain {
        drain: Epoch,
        actor: String,
        reason: String,
    },
    /// Lift the latch.
    Rearm { actor: String, reason: String },
    /// A backend lacks, or no longer lacks, acknowledged writes.
    Judge {
        backend: Backend,
        stale: bool,
        /// Refused unless this is the epoch still: the verdict was reached under it.
        reached: Option<Epoch>,
        actor: String,
        reason: String,
        evidence: Value,
    },
    /// The configuration says otherwise about writers that bypass the proxy.
    Bypass { refused: bool, actor: String },
    /// History was lost: `seen` is the highest epoch this replica knows.
    Lost { seen: Epoch, actor: String },
    /// An operator declares which backend holds the truth after lost history.
    Recover {
        authority: Backend,
        seen: Epoch,
        actor: String,
        reason: String,
    },
}

/// What the transaction finds besides the state row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Facts {
    /// The database's clock.
    pub(super) now_us: i64,
    /// Open entries of this generation, counted no further than a bound.
    pub(super) owed: i64,
    /// Replicas that may come back with debts that the journal does not hold, or have not confirmed the epoch.
    pub(super) unconfirmed: i64,
    /// Replicas that died with such debts.
    pub(super) lost_debts: i64,
    /// The history the database says this is.
    pub(super) lineage: String,
}

/// A change to commit.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Change {
    pub(super) after: State,
    pub(super) conversion: Conversion,
    pub(super) entry: AuditEntry,
}

/// What the audit record of a change says beyond the two states.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct AuditEntry {
    /// Which change: `move`, `drain`, `give_up`, `rearm`, …
    pub(super) step: &'static str,
    /// Whose hand.
    pub(super) kind: &'static str,
    pub(super) ticket: Option<String>,
    pub(super) forced: bool,
    pub(super) evidence: Value,
}

impl Ask {
    /// Decides.
    pub(super) fn decide(
        &self,
        current: &State,
        facts: &Facts,
        options: &ControlOptions,
    ) -> Result<Change, Refused> {
        match self {
            Self::Move(request) => decide_move(current, request, facts, options),
            Self::FinishDrain { request, drain } => {
                finish_drain(current, request, *drain, facts, options)
            }
            Self::GiveUpDrain {
                drain,
                actor,
                reason,
            } => {
                still(current, *drain)?;
                let after = steady(current, facts, actor, reason);
                Ok(change(after, "give_up", "control", Value::Null))
            }
            Self::Rearm { actor, reason } => rearm(current, actor, reason),
            Self::Judge {
                backend,
                stale,
                reached,
                actor,
                reason,
                evidence,
            } => {
                if let Some(epoch) = reached {
                    still(current, *epoch)?;
                }
                let mut after = noted(current, actor, reason);
                match backend {
                    Backend::Legacy => after.legacy_stale = *stale,
                    Backend::Storage => after.storage_stale = *stale,
                }
                let step = if *stale { "stale" } else { "verified" };
                let evidence = json!({"backend": backend.as_str(), "evidence": evidence});
                Ok(change(after, step, "control", evidence))
            }
            Self::Bypass { refused, actor } => {
                let mut after = noted(current, actor, "legacy.bypass was configured");
                after.bypass_refused = *refused || refuses_bypass(current.stage, options);
                Ok(change(after, "bypass", "control", Value::Null))
            }
            Self::Lost { seen, actor } => lost(current, *seen, facts, actor),
            Self::Recover {
                authority,
                seen,
                actor,
                reason,
            } => recover(current, *authority, *seen, facts, options, actor, reason),
        }
    }
}

fn decide_move(
    current: &State,
    request: &TransitionRequest,
    facts: &Facts,
    options: &ControlOptions,
) -> Result<Change, Refused> {
    let plan = plan(current, request)?;
    if !plan.drains {
        return Ok(moved(current, request, facts, options));
    }
    if facts.lost_debts > 0 {
        return Err(Refused::Stale(Backend::Legacy));
    }
    let after = State {
        phase: Phase::Draining,
        drain_deadline_us: Some(facts.now_us.saturating_add(micros(options.flip_max_pause))),
        drain_to: Some(plan.to),
        coordinator: Some(options.replica_id.clone()),
        ..steady(current, facts, &request.actor, &request.reason)
    };
    let mut change = change(
        after,
        "drain",
        request.kind.as_str(),
        request.evidence.clone(),
    );
    change.entry.ticket.clone_from(&request.ticket);
    change.entry.forced = request.force;
    Ok(change)
}

/// P9 and P15: what the move needs is checked in the transaction that makes it.
fn finish_drain(
    current: &State,
    request: &TransitionRequest,
    drain: Epoch,
    facts: &Facts,
    options: &ControlOptions,
) -> Result<Change, Refused> {
    still(current, drain)?;
    if facts.lost_debts > 0 {
        return Err(Refused::Stale(Backend::Legacy));
    }
    if facts.owed > 0 {
        return Err(Refused::Owed(facts.owed));
    }
    // Shadow's writers prove their epoch at the gate; ramp_down's write to storage alone.
    if current.stage.authority() == Backend::Storage && facts.unconfirmed > 0 {
        return Err(Refused::Unconfirmed(facts.unconfirmed));
    }
    // The request was judged when the drain began; only what may have changed since is judged again.
    plan(
        &State {
            phase: Phase::Steady,
            ..current.clone()
        },
        &TransitionRequest {
            expected_epoch: None,
            ..request.clone()
        },
    )?;
    Ok(moved(current, request, facts, options))
}

fn moved(
    current: &State,
    request: &TransitionRequest,
    facts: &Facts,
    options: &ControlOptions,
) -> Change {
    let (from, to) = (current.stage, request.to);
    let conversion = Conversion::between(from, to);
    let mut after = State {
        stage: to,
        bypass_refused: refuses_bypass(to, options),
        latched: current.latched || latches(request),
        ..steady(current, facts, &request.actor, &request.reason)
    };
    if conversion == Conversion::Void {
        after.generation += 1;
    }
    after.storage_stale |= to == Stage::Off;
    after.legacy_stale |= to == Stage::Complete;
    let mut change = change(
        after,
        "move",
        request.kind.as_str(),
        request.evidence.clone(),
    );
    change.conversion = conversion;
    change.entry.ticket.clone_from(&request.ticket);
    change.entry.forced = request.force;
    change
}

fn latches(request: &TransitionRequest) -> bool {
    use super::plan::TransitionKind::{File, Guard, Operator, Proxy, Rollback};
    match request.kind {
        Guard | Rollback => true,
        Operator | File | Proxy => false,
    }
}

fn rearm(current: &State, actor: &str, reason: &str) -> Result<Change, Refused> {
    if reason.trim().is_empty() {
        return Err(Refused::NoReason);
    }
    if !current.latched {
        return Err(Refused::NotLatched);
    }
    let after = State {
        latched: false,
        ..noted(current, actor, reason)
    };
    Ok(change(after, "rearm", "operator", Value::Null))
}

/// The epoch rises past everything this replica has seen, so that whatever was issued before is old.
fn lost(current: &State, seen: Epoch, facts: &Facts, actor: &str) -> Result<Change, Refused> {
    if current.phase == Phase::Recovering && current.epoch >= seen {
        return Err(Refused::Recovering);
    }
    let after = State {
        epoch: current.epoch.max(seen).next(),
        phase: Phase::Recovering,
        ..steady(current, facts, actor, "history was lost")
    };
    let evidence = json!({
        "epoch_seen": seen.0,
        "epoch_found": current.epoch.0,
        "lineage_seen": current.lineage,
        "lineage_found": facts.lineage,
    });
    Ok(change(after, "lost", "control", evidence))
}

/// The side that is not believed is stale and what was owed is void: only a full backfill and verify makes it whole.
fn recover(
    current: &State,
    authority: Backend,
    seen: Epoch,
    facts: &Facts,
    options: &ControlOptions,
    actor: &str,
    reason: &str,
) -> Result<Change, Refused> {
    if reason.trim().is_empty() {
        return Err(Refused::NoReason);
    }
    if current.phase != Phase::Recovering {
        return Err(Refused::NotRecovering);
    }
    let stage = match authority {
        Backend::Legacy => Stage::Off,
        Backend::Storage => Stage::RampDown,
    };
    let after = State {
        epoch: current.epoch.max(seen).next(),
        stage,
        generation: current.generation + 1,
        bypass_refused: refuses_bypass(stage, options),
        latched: true,
        legacy_stale: authority == Backend::Storage,
        storage_stale: authority == Backend::Legacy,
        lineage: facts.lineage.clone(),
        ..steady(current, facts, actor, reason)
    };
    let evidence = json!({"authority": authority.as_str(), "epoch_seen": seen.0});
    let mut change = change(after, "recover", "operator", evidence);
    change.conversion = Conversion::Void;
    Ok(change)
}

/// From `live` on nobody writes past the proxy, whatever is configured.
fn refuses_bypass(stage: Stage, options: &ControlOptions) -> bool {
    options.bypass_always_refused || stage >= Stage::Live
}

fn still(current: &State, drain: Epoch) -> Result<(), Refused> {
    if current.epoch == drain {
        Ok(())
    } else {
        Err(Refused::EpochMoved {
            expected: drain,
            actual: current.epoch,
        })
    }
}

/// The next epoch, otherwise as it is; who and why are of this change, since when is not.
fn noted(current: &State, actor: &str, reason: &str) -> State {
    State {
        epoch: current.epoch.next(),
        actor: actor.to_owned(),
        reason: reason.to_owned(),
        ..current.clone()
    }
}

/// The next epoch, at rest from now on.
fn steady(current: &State, facts: &Facts, actor: &str, reason: &str) -> State {
    State {
        phase: Phase::Steady,
        since_us: facts.now_us,
        drain_deadline_us: None,
        drain_to: None,
        coordinator: None,
        ..noted(current, actor, reason)
    }
}

fn change(after: State, step: &'static str, kind: &'static str, evidence: Value) -> Change {
    Change {
        after,
        conversion: Conversion::Keep,
        entry: AuditEntry {
            step,
            kind,
            ticket: None,
            forced: false,
            evidence,
        },
    }
}
