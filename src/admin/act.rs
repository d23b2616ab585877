//! Acts on entries of the journal and lines of the list of divergences, and how every act is recorded.

use std::future::Future;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::unix_us;
use crate::contract::{Code, Error};
use crate::control::record_action;
use crate::sql::{Fault, Tx};
use crate::{divergence, journal};

use super::AdminState;
use super::auth::Actor;
use super::body;
use super::failed::{Answer, Failed, ok};
use super::look::number;

/// An act that only needs a reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    pub(super) reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanation {
    reason: String,
    until: String,
}

/// What was done to one entry or line, for the audit.
struct Act {
    actor: Actor,
    kind: &'static str,
    reason: String,
    details: Value,
}

/// Lets a parked entry be tried again.
pub(super) async fn retry(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    Path(seq): Path<String>,
    request: Request,
) -> Answer {
    let seq = number(&seq)?;
    let body: Reason = body::read(request).await?;
    let act = Act {
        actor,
        kind: "journal_retry",
        reason: body::reason(&body.reason)?.to_owned(),
        details: json!({"seq": seq}),
    };
    let missing = "no parked entry has this number";
    run_to_end(async move {
        let mut tx = state.legacy.db().begin().await?;
        let found = journal::retry(&mut tx, seq).await?;
        finish(tx, found, act, missing).await
    })
    .await
}

/// Gives up a quarantined entry: the difference stays.
pub(super) async fn accept(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    Path(seq): Path<String>,
    request: Request,
) -> Answer {
    let seq = number(&seq)?;
    let body: Reason = body::read(request).await?;
    let act = Act {
        actor,
        kind: "journal_accept",
        reason: body::reason(&body.reason)?.to_owned(),
        details: json!({"seq": seq}),
    };
    let missing = "no quarantined entry has this number";
    run_to_end(async move {
        let mut tx = state.legacy.db().begin().await?;
        let found = journal::accept(&mut tx, seq).await?;
        finish(tx, found, act, missing).await
    })
    .await
}

/// Marks a divergence as expected until a time.
pub(super) async fn explain(
    State(state): State<Arc<AdminState>>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let id = number(&id)?;
    let body: Explanation = body::read(request).await?;
    let reason = body::reason(&body.reason)?.to_owned();
    let until_us = future_instant(&body.until)?;
    let act = Act {
        actor,
        kind: "explain",
        reason: reason.clone(),
        details: json!({"divergence": id, "until": body.until}),
    };
    let missing = "no divergence has this number";
    run_to_end(async move {
        let mut tx = state.legacy.db().begin().await?;
        let found = divergence::explain(&mut tx, id, &reason, until_us).await?;
        finish(tx, found, act, missing).await
    })
    .await
}

/// Commits an act together with its record; without anything to act on, neither.
async fn finish(mut tx: Tx, found: bool, act: Act, missing: &str) -> Answer {
    if !found {
        return Err(Error::new(Code::NotFound, missing).into());
    }
    record_action(&mut tx, &act.actor.0, act.kind, &act.reason, &act.details).await?;
    tx.commit().await?;
    ok(&json!({"done": act.kind, "details": act.details}))
}

/// Runs an act to its end even when the client goes away half-way.
pub(super) async fn run_to_end(act: impl Future<Output = Answer> + Send + 'static) -> Answer {
    let ended = tokio::spawn(act).await;
    ended.map_err(|error| Failed::from(Fault::Unexpected(error.to_string())))?
}

/// An RFC 3339 instant that is still to come, in Unix microseconds.
fn future_instant(text: &str) -> Result<i64, Error> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        Error::new(
            Code::InvalidRequest,
            "until: an RFC 3339 instant, such as 2030-01-31T12:00:00Z",
        )
    })?;
    let us = i64::try_from(instant.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
    if us <= unix_us() {
        return Err(Error::new(Code::InvalidRequest, "until: is over already"));
    }
    Ok(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_ends_at_an_instant_to_come() {
        assert_eq!(
            future_instant("2999-01-01T00:00:00Z"),
            Ok(32_472_144_000_000_000)
        );
        assert!(future_instant("2001-01-01T00:00:00Z").is_err());
        assert!(future_instant("tomorrow").is_err());
    }
}
