//! Expected outages: what is known beforehand must not flip anything, wake nobody, and end by itself.
//!
//! One row per backend, open until a time by the database's clock. Every replica reads it each second and
//! keeps the end on its own boot clock, so that a maintenance of legacy itself ends while legacy is away.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit;
use super::control::Control;
use super::error::TransitionError;
use super::plan::Refused;
use super::state::{self, State};
use super::task;
use crate::clock::{boottime, micros, rfc3339};
use crate::sql::{Db, Fault};
use crate::stage::{Backend, Stage};

/// The longest maintenance: whoever needs more says so again.
pub const MAINTENANCE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What may be under maintenance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maintained {
    /// The legacy database.
    Legacy,
    /// The storage service.
    Storage,
    /// The broker.
    Broker,
}

/// A wish for an expected outage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaintenanceWish {
    /// Of what.
    pub of: Maintained,
    /// For how long.
    pub lasting: Duration,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// An expected outage under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Maintenance {
    /// Of what.
    pub of: Maintained,
    /// When it ends, in Unix microseconds by the database's clock.
    pub until_us: i64,
    /// When it ends, on this machine's boot clock.
    ends_at: Duration,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Maintained {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Legacy, Self::Storage, Self::Broker];

    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Storage => "storage",
            Self::Broker => "broker",
        }
    }

    /// What calls to `backend` pass through.
    fn on_the_way_to(backend: Backend, storage_over_broker: bool) -> &'static [Self] {
        match (backend, storage_over_broker) {
            (Backend::Legacy, _) => &[Self::Legacy],
            (Backend::Storage, false) => &[Self::Storage],
            (Backend::Storage, true) => &[Self::Storage, Self::Broker],
        }
    }
}

impl fmt::Display for Maintained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names nothing that can be under maintenance.
#[derive(Debug, thiserror::Error)]
#[error("no such backend; backends are legacy, storage, broker")]
pub struct UnknownBackend;

impl FromStr for Maintained {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        let known = Self::ALL.into_iter().find(|one| one.as_str() == text);
        known.ok_or(UnknownBackend)
    }
}

impl Maintenance {
    /// Until when, and why, for people.
    #[must_use]
    pub fn told(&self) -> String {
        let until = rfc3339(self.until_us);
        format!(
            "{} is under maintenance until {until}: {}",
            self.of, self.reason
        )
    }

    /// How long it goes on.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.ends_at.saturating_sub(boottime())
    }
}

impl Control {
    /// The expected outages under way, as this replica last read them.
    #[must_use]
    pub fn maintenance(&self) -> Vec<Maintenance> {
        let known = self.inner.maintenance.load();
        let open = known.iter().filter(|one| !one.left().is_zero());
        open.cloned().collect()
    }

    /// Whether calls to a backend are expected to fail: it, or the broker on the way to it, is under maintenance.
    #[must_use]
    pub fn under_maintenance(&self, backend: Backend) -> bool {
        let over_broker = self.inner.options.storage_over_broker;
        let path = Maintained::on_the_way_to(backend, over_broker);
        self.maintenance().iter().any(|one| path.contains(&one.of))
    }

    /// Begins one, or gives the one under way another end. It is on record as an action.
    ///
    /// # Errors
    /// Refused in `live` for what storage needs: callers would fail for as long. Roll back first.
    pub async fn start_maintenance(
        &self,
        wish: MaintenanceWish,
    ) -> Result<Maintenance, TransitionError> {
        let db = self.inner.db.clone();
        let over_broker = self.inner.options.storage_over_broker;
        let of = wish.of;
        task::run_to_end(async move { start(&db, &wish, over_broker).await }).await?;
        let known = self.read_maintenance().await?;
        let begun = known.into_iter().find(|one| one.of == of);
        begun.ok_or_else(|| {
            let ended = "the maintenance was ended by somebody else at once";
            Fault::Unavailable(ended.to_owned()).into()
        })
    }

    /// Ends one before its time. `false`: there was none.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn end_maintenance(
        &self,
        of: Maintained,
        actor: &str,
        reason: &str,
    ) -> Result<bool, Fault> {
        let db = self.inner.db.clone();
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let ended = task::run_to_end(async move { end(&db, of, &actor, &reason).await }).await?;
        self.read_maintenance().await?;
        Ok(ended)
    }

    /// Reads what is under way.
    pub(super) async fn read_maintenance(&self) -> Result<Vec<Maintenance>, Fault> {
        let open = open(&self.inner.db).await?;
        self.inner.maintenance.store(open.clone().into());
        Ok(open)
    }
}

async fn start(db: &Db, wish: &MaintenanceWish, over_broker: bool) -> Result<(), TransitionError> {
    let mut tx = db.begin().await?;
    // Locked, so that nothing goes live beside it.
    let state = State::lock(&mut tx).await?;
    let needed = Maintained::on_the_way_to(Backend::Storage, over_broker);
    if state.stage == Stage::Live && needed.contains(&wish.of) {
        return Err(Refused::MaintenanceInLive(wish.of).into());
    }
    let now_us = state::now_us(&mut tx).await?;
    let until_us = now_us.saturating_add(micros(wish.lasting.min(MAINTENANCE_MAX)));
    tx.control(
        "INSERT INTO cutover.maintenance (backend, since_us, until_us, actor, reason)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (backend) DO UPDATE SET since_us = excluded.since_us, until_us = excluded.until_us,
         actor = excluded.actor, reason = excluded.reason",
        vec![
            wish.of.as_str().into(),
            now_us.into(),
            until_us.into(),
            wish.actor.clone().into(),
            wish.reason.clone().into(),
        ],
    )
    .await?;
    let details = json!({"backend": wish.of, "until": rfc3339(until_us), "stage": state.stage});
    audit::record_action(
        &mut tx,
        &wish.actor,
        "maintenance_start",
        &wish.reason,
        &details,
    )
    .await?;
    Ok(tx.commit().await?)
}

async fn end(db: &Db, of: Maintained, actor: &str, reason: &str) -> Result<bool, Fault> {
    let mut tx = db.begin().await?;
    let rows = tx
        .control(
            "DELETE FROM cutover.maintenance WHERE backend = $1 RETURNING until_us, cutover.now_us()",
            vec![of.as_str().into()],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let open = row.some_int(0)? > row.some_int(1)?;
    if open {
        let details = json!({ "backend": of });
        audit::record_action(&mut tx, actor, "maintenance_end", reason, &details).await?;
    }
    tx.commit().await?;
    Ok(open)
}

async fn open(db: &Db) -> Result<Vec<Maintenance>, Fault> {
    let asked_at = boottime();
    let rows = db
        .control(
            "SELECT backend, until_us, until_us - cutover.now_us(), actor, reason
             FROM cutover.maintenance WHERE until_us > cutover.now_us() ORDER BY backend",
            vec![],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let of = row.some_text(0)?.parse::<Maintained>();
            let left_us = u64::try_from(row.some_int(2)?).unwrap_or(0);
            Ok(Maintenance {
                of: of.map_err(|error| Fault::Unexpected(error.to_string()))?,
                until_us: row.some_int(1)?,
                ends_at: asked_at + Duration::from_micros(left_us),
                actor: row.some_text(3)?,
                reason: row.some_text(4)?,
            })
        })
        .collect()
}
