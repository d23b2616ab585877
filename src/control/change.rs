//! Every change of the control state, as a pure function from the state before to the state after.
//!
//! A request can take two steps (a drain, then the move), each of them one epoch and one transaction;
//! repairs of the state itself (re-arm, stale marks, recovery) are changes like any other, so that the
//! epoch and the audit know no second way in.

use serde_json::{Value, json};

use super::convert::Conversion;
use super::freeze::{self, FreezeWish};
use super::moves::{self, refuses_bypass};
use super::options::ControlOptions;
use super::plan::{Refused, TransitionRequest};
use super::recovery::{self, RecoverWish, Seen};
use super::state::{Phase, State};
use crate::contract::Epoch;
use crate::stage::Backend;

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
    GiveUpDrain { drain: Epoch, cause: Cause },
    /// Latch, in the stage that it is.
    Freeze(FreezeWish),
    /// Lift the latch.
    Rearm(Cause),
    /// A backend lacks, or no longer lacks, acknowledged writes.
    Judge { verdict: Verdict, cause: Cause },
    /// The configuration says otherwise about writers that bypass the proxy.
    Bypass(Cause),
    /// History was lost: `seen` is the highest epoch this replica knows, `before` what it knew then.
    Lost {
        seen: Epoch,
        before: Option<Seen>,
        cause: Cause,
    },
    /// An operator declares which backend holds the truth after lost history.
    Recover { wish: RecoverWish, seen: Epoch },
}

/// Who wishes it, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cause {
    pub(super) actor: String,
    pub(super) reason: String,
}

/// What was found out about a backend.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Which.
    pub backend: Backend,
    /// Whether it lacks acknowledged writes.
    pub stale: bool,
    /// The epoch when the look began: a verdict is void if anything changed since.
    pub expected_epoch: Option<Epoch>,
    /// What the verdict rests on. Holds no row values.
    pub evidence: Value,
}

/// What the transaction finds besides the state row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// The database's clock.
    pub(super) now_us: i64,
    /// Open entries of this generation, counted no further than a bound; 0 where nobody asks (`counts_owed`).
    pub(super) owed: i64,
    /// Replicas that may come back with debts that the journal does not hold, or have not confirmed the epoch.
    pub(super) unconfirmed: i64,
    /// Replicas that died with such debts.
    pub(super) lost_debts: i64,
    /// Tables that storage is yet to be filled with.
    pub(super) pending_tables: i64,
    /// The history the database says this is.
    pub(super) lineage: String,
    /// The highest epoch that a replica has acknowledged.
    pub(super) acknowledged_max: Epoch,
    /// What was known before history was lost, while that is not recovered from.
    pub(super) lost: Option<Seen>,
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
    pub(super) cause: Cause,
    pub(super) ticket: Option<String>,
    pub(super) forced: bool,
    /// What `force` overrode, in words.
    pub(super) overridden: Vec<String>,
    pub(super) evidence: Value,
}

impl Ask {
    /// Whether what is owed decides. Only then it is counted, because writers wait meanwhile.
    pub(super) fn counts_owed(&self) -> bool {
        match self {
            Self::FinishDrain { .. } => true,
            Self::Move(_)
            | Self::GiveUpDrain { .. }
            | Self::Freeze(_)
            | Self::Rearm(_)
            | Self::Judge { .. }
            | Self::Bypass(_)
            | Self::Lost { .. }
            | Self::Recover { .. } => false,
        }
    }

    /// Decides.
    pub(super) fn decide(
        &self,
        current: &State,
        facts: &Facts,
        options: &ControlOptions,
    ) -> Result<Change, Refused> {
        match self {
            Self::Move(request) => moves::begin(current, request, facts, options),
            Self::FinishDrain { request, drain } => {
                moves::finish_drain(current, request, *drain, facts, options)
            }
            Self::GiveUpDrain { drain, cause } => {
                expect(current, *drain)?;
                let after = steady(current, facts, cause);
                Ok(change(after, "give_up", "control", cause, Value::Null))
            }
            Self::Freeze(wish) => freeze::freeze(current, wish, facts),
            Self::Rearm(cause) => rearm(current, cause),
            Self::Judge { verdict, cause } => judge(current, verdict, facts, cause),
            Self::Bypass(cause) => {
                at_rest(current)?;
                let mut after = noted(current);
                after.bypass_refused = refuses_bypass(current.stage, options);
                Ok(change(after, "bypass", "control", cause, Value::Null))
            }
            Self::Lost {
                seen,
                before,
                cause,
            } => recovery::lost(current, *seen, *before, facts, cause),
            Self::Recover { wish, seen } => recovery::recover(current, wish, *seen, facts, options),
        }
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            now_us: 0,
            owed: 0,
            unconfirmed: 0,
            lost_debts: 0,
            pending_tables: 0,
            lineage: String::new(),
            acknowledged_max: Epoch(0),
            lost: None,
        }
    }
}

impl AuditEntry {
    /// The record of a change that overrides nothing and has no ticket.
    pub(super) fn of(
        step: &'static str,
        kind: &'static str,
        cause: &Cause,
        evidence: Value,
    ) -> Self {
        Self {
            step,
            kind,
            cause: cause.clone(),
            ticket: None,
            forced: false,
            overridden: vec![],
            evidence,
        }
    }
}

impl Cause {
    pub(super) fn new(actor: &str, reason: &str) -> Self {
        Self {
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        }
    }

    pub(super) fn of(request: &TransitionRequest) -> Self {
        Self::new(&request.actor, &request.reason)
    }

    pub(super) fn given(&self) -> Result<(), Refused> {
        match self.reason.trim() {
            "" => Err(Refused::NoReason),
            _ => Ok(()),
        }
    }
}

fn rearm(current: &State, cause: &Cause) -> Result<Change, Refused> {
    cause.given()?;
    if !current.latched {
        return Err(Refused::NotLatched);
    }
    at_rest(current)?;
    let after = State {
        latched: false,
        ..noted(current)
    };
    Ok(change(after, "rearm", "operator", cause, Value::Null))
}

fn judge(
    current: &State,
    verdict: &Verdict,
    facts: &Facts,
    cause: &Cause,
) -> Result<Change, Refused> {
    if let Some(expected) = verdict.expected_epoch {
        expect(current, expected)?;
    }
    let mut after = match current.phase {
        // Whatever the drain leads to may rest on that backend.
        Phase::Draining if verdict.stale => steady(current, facts, cause),
        Phase::Draining => return Err(Refused::Draining),
        Phase::Steady | Phase::Recovering => noted(current),
    };
    match verdict.backend {
        Backend::Legacy => after.legacy_stale = verdict.stale,
        Backend::Storage => after.storage_stale = verdict.stale,
    }
    let step = if verdict.stale { "stale" } else { "verified" };
    let evidence = json!({"backend": verdict.backend.as_str(), "evidence": verdict.evidence});
    Ok(change(after, step, "control", cause, evidence))
}

/// A drain is proven by its epoch: no other change may come in between.
fn at_rest(current: &State) -> Result<(), Refused> {
    match current.phase {
        Phase::Steady => Ok(()),
        Phase::Draining => Err(Refused::Draining),
        Phase::Recovering => Err(Refused::Recovering),
    }
}

pub(super) fn expect(current: &State, expected: Epoch) -> Result<(), Refused> {
    if current.epoch == expected {
        Ok(())
    } else {
        Err(Refused::EpochMoved {
            expected,
            actual: current.epoch,
        })
    }
}

/// The next epoch, otherwise as it is: who brought the stage about, and since when, stays.
pub(super) fn noted(current: &State) -> State {
    State {
        epoch: current.epoch.next(),
        ..current.clone()
    }
}

/// The next epoch, at rest from now on.
pub(super) fn steady(current: &State, facts: &Facts, cause: &Cause) -> State {
    State {
        phase: Phase::Steady,
        since_us: facts.now_us,
        actor: cause.actor.clone(),
        reason: cause.reason.clone(),
        drain_deadline_us: None,
        drain_to: None,
        coordinator: None,
        ..noted(current)
    }
}

/// A change that leaves the journal as it is, overrides nothing and has no ticket.
pub(super) fn change(
    after: State,
    step: &'static str,
    kind: &'static str,
    cause: &Cause,
    evidence: Value,
) -> Change {
    Change {
        after,
        conversion: Conversion::Keep,
        entry: AuditEntry::of(step, kind, cause, evidence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;

    fn state(stage: Stage, phase: Phase) -> State {
        State {
            stage,
            phase,
            ..State::initial(0, "here".to_owned())
        }
    }

    fn verdict(stale: bool) -> Ask {
        Ask::Judge {
            verdict: Verdict {
                backend: Backend::Legacy,
                stale,
                expected_epoch: Some(Epoch(1)),
                evidence: Value::Null,
            },
            cause: Cause::new("ada", "a test"),
        }
    }

    fn decide(ask: &Ask, current: &State) -> Result<Change, Refused> {
        ask.decide(current, &Facts::default(), &ControlOptions::default())
    }

    #[test]
    fn a_backend_found_stale_ends_a_drain_and_good_news_waits_for_it() {
        let draining = state(Stage::RampDown, Phase::Draining);
        let ended = decide(&verdict(true), &draining).unwrap().after;
        assert_eq!((ended.phase, ended.legacy_stale), (Phase::Steady, true));
        assert_eq!(decide(&verdict(false), &draining), Err(Refused::Draining));
    }

    #[test]
    fn a_verdict_is_void_once_anything_has_changed() {
        let later = State {
            epoch: Epoch(2),
            ..state(Stage::RampDown, Phase::Steady)
        };
        assert!(matches!(
            decide(&verdict(false), &later),
            Err(Refused::EpochMoved { .. })
        ));
    }

    #[test]
    fn rearming_leaves_on_show_who_brought_the_stage_about() {
        let latched = State {
            latched: true,
            ..state(Stage::DualWrite, Phase::Steady)
        };
        let change = decide(&Ask::Rearm(Cause::new("ada", "mended")), &latched).unwrap();
        assert_eq!(change.after.reason, latched.reason);
        assert_eq!(change.entry.cause.reason, "mended");
    }
}
