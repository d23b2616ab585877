//! Moves from stage to stage: made at once, or a drain and then the move. Pure.
//!
//! Whether a move is possible at all is `plan`'s to say. Here it becomes the state after it, and what it needs of
//! the database is looked at in the transaction that makes it.

use serde_json::Value;

use super::change::{Cause, Change, Facts, change, expect, steady};
use super::convert::Conversion;
use super::options::ControlOptions;
use super::plan::{Plan, Refused, TransitionRequest, plan};
use super::state::{Phase, State};
use crate::clock::micros;
use crate::contract::Epoch;
use crate::stage::{Backend, Stage};

/// Moves at once, or begins to drain.
pub(super) fn begin(
    current: &State,
    request: &TransitionRequest,
    facts: &Facts,
    options: &ControlOptions,
) -> Result<Change, Refused> {
    let plan = plan(current, request)?;
    nothing_pending(plan.to, facts)?;
    if !plan.drains {
        return Ok(moved(current, request, &plan, facts, options));
    }
    if facts.lost_debts > 0 {
        return Err(Refused::Stale(Backend::Legacy));
    }
    let after = State {
        phase: Phase::Draining,
        drain_deadline_us: Some(facts.now_us.saturating_add(micros(options.flip_max_pause))),
        drain_to: Some(plan.to),
        coordinator: Some(options.replica_id.clone()),
        ..steady(current, facts, &Cause::of(request))
    };
    Ok(requested(after, "drain", request, &plan))
}

/// Where storage answers callers it must have the rows of every table.
fn nothing_pending(to: Stage, facts: &Facts) -> Result<(), Refused> {
    if to == Stage::Live && facts.pending_tables > 0 {
        return Err(Refused::Pending(facts.pending_tables));
    }
    Ok(())
}

/// P9 and P15: what the move needs is checked in the transaction that makes it.
pub(super) fn finish_drain(
    current: &State,
    request: &TransitionRequest,
    drain: Epoch,
    facts: &Facts,
    options: &ControlOptions,
) -> Result<Change, Refused> {
    expect(current, drain)?;
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
    nothing_pending(request.to, facts)?;
    // The request was judged when the drain began; only what may have changed since is judged again.
    let plan = plan(
        &State {
            phase: Phase::Steady,
            ..current.clone()
        },
        &TransitionRequest {
            expected_epoch: None,
            ..request.clone()
        },
    )?;
    Ok(moved(current, request, &plan, facts, options))
}

fn moved(
    current: &State,
    request: &TransitionRequest,
    plan: &Plan,
    facts: &Facts,
    options: &ControlOptions,
) -> Change {
    let (from, to) = (plan.from, plan.to);
    let conversion = Conversion::between(from, to);
    let mut after = State {
        stage: to,
        bypass_refused: refuses_bypass(to, options),
        latched: current.latched || plan.latches,
        ..steady(current, facts, &Cause::of(request))
    };
    if conversion == Conversion::Void {
        after.generation += 1;
    }
    after.storage_stale |= to == Stage::Off;
    after.legacy_stale |= to == Stage::Complete;
    Change {
        conversion,
        ..requested(after, "move", request, plan)
    }
}

/// From `live` on nobody writes past the proxy, whatever is configured.
pub(super) fn refuses_bypass(stage: Stage, options: &ControlOptions) -> bool {
    options.bypass_always_refused || stage >= Stage::Live
}

/// A change that somebody asked for, with what they said.
fn requested(after: State, step: &'static str, request: &TransitionRequest, plan: &Plan) -> Change {
    let kind = request.kind.as_str();
    let mut change = change(
        after,
        step,
        kind,
        &Cause::of(request),
        request.evidence.clone(),
    );
    change.entry.ticket.clone_from(&request.ticket);
    change.entry.forced = request.force;
    change.entry.overridden = overridden(request, plan);
    change
}

/// What the requester says it overrides, and what the control let it override besides.
fn overridden(request: &TransitionRequest, plan: &Plan) -> Vec<String> {
    let said = request.evidence.get("overridden").and_then(Value::as_array);
    let said = said.into_iter().flatten().filter_map(Value::as_str);
    let mut all: Vec<String> = said.map(str::to_owned).collect();
    for refused in &plan.overridden {
        let name = refused.name().to_owned();
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}
