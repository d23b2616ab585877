//! `/admin/drill`: a rehearsal begins, is followed, or ends before its time.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use serde::Deserialize;

use super::AdminState;
use super::act::run_to_end;
use super::auth::Actor;
use super::body;
use super::failed::{Answer, ok};
use super::status;
use crate::config::parse_duration;
use crate::contract::{Code, Error};
use crate::drill::DRILL_MAX;
use crate::telemetry::Trigger;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    trigger: String,
    reason: String,
    /// At most so long: `30s`, `2m`.
    #[serde(rename = "for")]
    lasting: Option<String>,
}

/// Begins one, where it is safe.
pub(super) async fn begin(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    request: Request,
) -> Answer {
    let body: Body = body::read(request).await?;
    let trigger = trigger(&body.trigger)?;
    let reason = body::reason(&body.reason)?.to_owned();
    let lasting = body.lasting.as_deref().map(lasting).transpose()?;
    run_to_end(async move {
        let asked = status::ask(&state).await;
        let rollback = status::rollback(&state.control.snapshot(), asked.as_ref());
        let begun = state
            .drills
            .begin(trigger, &actor.0, &reason, lasting, &rollback)
            .await?;
        ok(&begun)
    })
    .await
}

/// The latest, from whichever replica.
pub(super) async fn latest(State(state): State<Arc<AdminState>>) -> Answer {
    let latest = state.drills.latest().await?;
    let none = || Error::new(Code::NotFound, "there never was a drill");
    ok(&latest.ok_or_else(none)?)
}

/// Ends the one under way.
pub(super) async fn cancel(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
) -> Answer {
    run_to_end(async move { ok(&state.drills.cancel(&actor.0).await?) }).await
}

fn trigger(text: &str) -> Result<Trigger, Error> {
    let known = Trigger::ALL.iter().find(|one| one.as_str() == text);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = Trigger::ALL.iter().map(|one| one.as_str()).collect();
        let message = format!("trigger: one of {}", names.join(", "));
        Error::new(Code::InvalidRequest, message)
    })
}

fn lasting(text: &str) -> Result<Duration, Error> {
    parse_duration(text)
        .filter(|time| !time.is_zero() && *time <= DRILL_MAX)
        .ok_or_else(|| {
            let message = "for: how long at most, such as 30s or 2m, not over 15m";
            Error::new(Code::InvalidRequest, message)
        })
}
