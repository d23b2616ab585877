//! Moving the flag by hand: `stage`, `rollback`, `rearm`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::contract::{Code, Epoch, Error};
use crate::control::{
    Blocker, Judged, Refused, TransitionError, TransitionKind, TransitionRequest, Transitioned,
};
use crate::stage::Stage;

use super::AdminState;
use super::act::{Reason, run_to_end};
use super::auth::Actor;
use super::body;
use super::failed::{Answer, ok};
use super::readiness::{Asked, Readiness};
use super::{schema, status};

/// The longest ticket, in characters.
const TICKET_CHARS_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageBody {
    to: Stage,
    reason: String,
    ticket: Option<String>,
    expected_epoch: Option<Epoch>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    reason: String,
    to: Option<Stage>,
}

/// A move that was made.
#[derive(Serialize)]
struct Moved {
    epoch: Epoch,
    from: Stage,
    stage: Stage,
    pause_ms: u64,
}

/// A move that was only thought through.
#[derive(Serialize)]
struct Rehearsal {
    dry_run: bool,
    epoch: Epoch,
    from: Stage,
    to: Stage,
    /// It would be made.
    possible: bool,
    /// What stands in its way; some of it may yield to `force`.
    readiness: Readiness,
}

/// Moves to another stage, or says what would happen.
pub(super) async fn stage(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    request: Request,
) -> Answer {
    let body: StageBody = body::read(request).await?;
    let ticket = body.ticket.as_deref().map_or(0, |one| one.chars().count());
    if ticket > TICKET_CHARS_MAX {
        let message = format!("the ticket is longer than {TICKET_CHARS_MAX} characters");
        return Err(Error::new(Code::InvalidRequest, message).into());
    }
    let wish = TransitionRequest {
        to: body.to,
        kind: TransitionKind::Operator,
        actor: actor.0,
        reason: body::reason(&body.reason)?.to_owned(),
        ticket: body.ticket,
        expected_epoch: body.expected_epoch,
        force: body.force,
        dry_run: body.dry_run,
        evidence: Value::Null,
    };
    run_to_end(async move {
        if wish.dry_run {
            rehearse(&state, wish).await
        } else {
            advance(&state, wish).await
        }
    })
    .await
}

/// Goes back, and latches: nothing advances until an operator re-arms.
pub(super) async fn rollback(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    request: Request,
) -> Answer {
    let body: RollbackBody = body::read(request).await?;
    let from = state.control.snapshot().stage;
    let to = body.to.or_else(|| status::rollback_target(from));
    let to = to.ok_or_else(|| Error::new(Code::InvalidRequest, "from off there is no way back"))?;
    let wish = TransitionRequest {
        to,
        kind: TransitionKind::Rollback,
        actor: actor.0,
        reason: body::reason(&body.reason)?.to_owned(),
        ticket: None,
        expected_epoch: None,
        force: false,
        dry_run: false,
        evidence: Value::Null,
    };
    run_to_end(async move { make(&state, wish).await }).await
}

/// Lifts the latch.
pub(super) async fn rearm(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    request: Request,
) -> Answer {
    let body: Reason = body::read(request).await?;
    let reason = body::reason(&body.reason)?.to_owned();
    run_to_end(async move {
        let epoch = state.control.rearm(&actor.0, &reason).await?;
        ok(&json!({"epoch": epoch}))
    })
    .await
}

/// Moves, where it is forward only when ready or forced.
async fn advance(state: &AdminState, mut wish: TransitionRequest) -> Answer {
    let snapshot = state.control.snapshot();
    if wish.to <= snapshot.stage {
        return make(state, wish).await;
    }
    // The control judges the epoch and which moves exist; its word is plainer than a list of blockers.
    let rehearsed = TransitionRequest {
        dry_run: true,
        ..wish.clone()
    };
    state.control.transition(rehearsed).await?;
    let asked = ask_afresh(state).await;
    let readiness = status::readiness(state, &snapshot, asked.as_ref());
    if !readiness.ready && !wish.force {
        let mut codes: Vec<&str> = readiness.blockers.iter().map(|one| one.code).collect();
        // One code may stand for several, two blind triggers say; the details have each.
        codes.dedup();
        let message = format!("{} is not ready: {}", wish.to, codes.join(", "));
        return Err(Error::new(Code::PreconditionFailed, message)
            .with_details(json!({"readiness": readiness}))
            .into());
    }
    wish.evidence = evidence_of(&readiness, asked.as_ref());
    // What was judged is what is changed: a stage that somebody else entered meanwhile was not.
    wish.expected_epoch = Some(snapshot.epoch);
    make(state, wish).await
}

/// Asks the database, and looks at the schemas: a decision rests on what they are now.
async fn ask_afresh(state: &AdminState) -> Option<Asked> {
    let (asked, _) = tokio::join!(status::ask(state), schema::look(state));
    asked
}

/// What the decision to advance rests on: the list, what of it is overridden, and the callers' baseline.
fn evidence_of(readiness: &Readiness, asked: Option<&Asked>) -> Value {
    let overridden: Vec<&str> = readiness.blockers.iter().map(|one| one.code).collect();
    let mut evidence = json!({ "readiness": readiness });
    if !overridden.is_empty() {
        evidence["overridden"] = json!(overridden);
    }
    let baselines = asked.map_or(&[][..], |asked| &asked.baselines);
    for one in baselines {
        evidence["baseline"][one.kind.as_str()] = json!({
            "samples": one.samples,
            "p50_ms": one.p50_us as f64 / 1000.0,
            "p95_ms": one.p95_us as f64 / 1000.0,
        });
    }
    evidence
}

/// What the flag file is held to: the same list as everybody, and nothing forced. None when the database,
/// which knows most of it, does not answer.
pub async fn judge_for_flag_file(state: &AdminState) -> Option<Judged> {
    let snapshot = state.control.snapshot();
    let asked = ask_afresh(state).await?;
    let readiness = status::readiness(state, &snapshot, Some(&asked));
    Some(Judged {
        epoch: snapshot.epoch,
        evidence: evidence_of(&readiness, Some(&asked)),
        blockers: readiness.blockers,
    })
}

async fn rehearse(state: &AdminState, wish: TransitionRequest) -> Answer {
    let snapshot = state.control.snapshot();
    let (to, forced) = (wish.to, wish.force);
    let refused = state.control.transition(wish).await.err();
    let asked = ask_afresh(state).await;
    let mut readiness = status::readiness(state, &snapshot, asked.as_ref());
    if to <= snapshot.stage {
        // The way back needs no readiness, only the control's consent.
        readiness.blockers.clear();
    }
    let possible = refused.is_none() && (forced || readiness.blockers.is_empty());
    match refused {
        // Among the blockers already, by its own name.
        None | Some(TransitionError::Refused(Refused::Latched)) => {}
        Some(error) => readiness.blockers.push(Blocker {
            code: "refused",
            message: error.to_string(),
        }),
    }
    readiness.next = Some(to);
    readiness.ready = readiness.blockers.is_empty();
    ok(&Rehearsal {
        dry_run: true,
        epoch: snapshot.epoch,
        from: snapshot.stage,
        to,
        possible,
        readiness,
    })
}

/// Makes the move. The control puts it on record, and what was forced also among the acts that weaken a guard.
async fn make(state: &AdminState, wish: TransitionRequest) -> Answer {
    let Transitioned {
        epoch,
        from,
        to,
        pause,
        dry_run: _,
    } = state.control.transition(wish).await?;
    ok(&Moved {
        epoch,
        from,
        stage: to,
        pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
    })
}
