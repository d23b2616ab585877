//! `POST /admin/recover`: the way on after history was lost under the proxy.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use serde::Deserialize;

use super::AdminState;
use super::act::run_to_end;
use super::auth::Actor;
use super::body;
use super::failed::{Answer, ok};
use crate::contract::Epoch;
use crate::control::{LostBy, RecoverWish};
use crate::stage::Backend;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    after: LostBy,
    authority: Backend,
    reason: String,
    seen_epoch: Option<Epoch>,
    #[serde(default)]
    dry_run: bool,
}

/// Believes one side, or says what that would lose.
pub(super) async fn recover(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    request: Request,
) -> Answer {
    let body: Body = body::read(request).await?;
    let wish = RecoverWish {
        after: body.after,
        authority: body.authority,
        seen_epoch: body.seen_epoch,
        actor: actor.0,
        reason: body::reason(&body.reason)?.to_owned(),
        dry_run: body.dry_run,
    };
    run_to_end(async move { ok(&state.control.recover(wish).await?) }).await
}
