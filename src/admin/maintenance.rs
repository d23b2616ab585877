//! `POST /admin/maintenance`: an outage that is expected begins, or ends before its time.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::AdminState;
use super::act::run_to_end;
use super::auth::Actor;
use super::body;
use super::failed::{Answer, ok};
use crate::clock::rfc3339;
use crate::config::parse_duration;
use crate::contract::{Code, Error};
use crate::control::{Control, MAINTENANCE_MAX, Maintained, Maintenance, MaintenanceWish};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    action: Action,
    backend: Maintained,
    /// Needed to start: `30m`, `2h`.
    #[serde(rename = "for")]
    lasting: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Start,
    End,
}

/// An expected outage under way.
#[derive(Serialize, Debug)]
pub(super) struct MaintenanceView {
    backend: Maintained,
    until: String,
    left_seconds: u64,
    actor: String,
    reason: String,
}

/// Begins or ends one.
pub(super) async fn maintenance(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    request: Request,
) -> Answer {
    let body: Body = body::read(request).await?;
    let reason = body::reason(&body.reason)?.to_owned();
    let of = body.backend;
    match body.action {
        Action::Start => {
            let wish = MaintenanceWish {
                of,
                lasting: lasting(body.lasting.as_deref())?,
                actor: actor.0,
                reason,
            };
            run_to_end(async move {
                let begun = state.control.start_maintenance(wish).await?;
                ok(&MaintenanceView::from(&begun))
            })
            .await
        }
        Action::End => {
            run_to_end(async move {
                if state.control.end_maintenance(of, &actor.0, &reason).await? {
                    return ok(&json!({"ended": of}));
                }
                let message = format!("{of} is not under maintenance");
                Err(Error::new(Code::InvalidRequest, message).into())
            })
            .await
        }
    }
}

fn lasting(text: Option<&str>) -> Result<Duration, Error> {
    let lasting = text.and_then(parse_duration);
    lasting
        .filter(|time| !time.is_zero() && *time <= MAINTENANCE_MAX)
        .ok_or_else(|| {
            let message = "for: how long, such as 30m or 2h, at most 7d";
            Error::new(Code::InvalidRequest, message)
        })
}

impl MaintenanceView {
    /// Those that this replica knows of.
    pub(super) fn all(control: &Control) -> Vec<Self> {
        control.maintenance().iter().map(Self::from).collect()
    }
}

impl From<&Maintenance> for MaintenanceView {
    fn from(one: &Maintenance) -> Self {
        Self {
            backend: one.of,
            until: rfc3339(one.until_us),
            left_seconds: one.left().as_secs(),
            actor: one.actor.clone(),
            reason: one.reason.clone(),
        }
    }
}
