//! What a request is admitted under: one immutable picture of the control state, used to the request's end.

use serde::Serialize;

use crate::contract::Epoch;

use super::state::{Phase, State};
use crate::stage::{Backend, Stage};

/// The control state as one replica knows it. Times are Unix microseconds by the database's clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Snapshot {
    /// Proven at the gate by every commit.
    pub epoch: Epoch,
    /// How far the migration is.
    pub stage: Stage,
    /// Whether the stage is at rest.
    pub phase: Phase,
    /// The stage that a draining phase leads to.
    pub drain_to: Option<Stage>,
    /// When a draining phase is given up.
    pub drain_deadline_us: Option<i64>,
    /// Journal entries of an older generation are void.
    pub generation: i64,
    /// Since when the stage and phase are what they are.
    pub since_us: i64,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// Nothing advances until an operator re-arms.
    pub latched: bool,
    /// The database refuses writes that bypass the proxy.
    pub bypass_refused: bool,
    /// Legacy lacks acknowledged writes.
    pub legacy_stale: bool,
    /// Storage lacks acknowledged writes.
    pub storage_stale: bool,
    /// A backfill starts only after this (P11).
    pub deadline_last_us: i64,
    /// The stage is this replica's configuration, not the database's word.
    pub pinned: bool,
}

impl Snapshot {
    /// The picture of a row.
    pub(super) fn of(state: &State, pin: Option<Stage>) -> Self {
        Self {
            epoch: state.epoch,
            stage: pin.unwrap_or(state.stage),
            // A pin is for the day when nobody may be left to end a phase.
            phase: pin.map_or(state.phase, |_| Phase::Steady),
            drain_to: state.drain_to,
            drain_deadline_us: state.drain_deadline_us,
            generation: state.generation,
            since_us: state.since_us,
            reason: state.reason.clone(),
            actor: state.actor.clone(),
            latched: state.latched,
            bypass_refused: state.bypass_refused,
            legacy_stale: state.legacy_stale,
            storage_stale: state.storage_stale,
            deadline_last_us: state.deadline_last_us,
            pinned: pin.is_some(),
        }
    }

    /// Whether that side lacks acknowledged writes.
    #[must_use]
    pub fn is_stale(&self, side: Backend) -> bool {
        match side {
            Backend::Legacy => self.legacy_stale,
            Backend::Storage => self.storage_stale,
        }
    }

    /// The picture of a pinned replica that has never reached the database.
    pub(super) fn pinned_blind(pin: Stage) -> Self {
        let state = State {
            epoch: Epoch(0),
            ..State::initial(0, String::new())
        };
        Self::of(&state, Some(pin))
    }

    /// The backend whose commit is the truth.
    #[must_use]
    pub fn authority(&self) -> Backend {
        self.stage.authority()
    }

    /// Whether new writes must wait, and backfill and repair pause.
    #[must_use]
    pub fn holds_writes(&self) -> bool {
        self.phase != Phase::Steady
    }
}
