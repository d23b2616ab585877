//! The control state: stage, epoch, transitions, leases, audit.
//!
//! It lives in one row of the legacy database. Whoever changes it does so in one short transaction under the
//! gate (`gate`), by a pure decision (`plan`, `change`) that also says what becomes of the journal
//! (`convert`), with one audit record per epoch (`audit`, `chain`). Every replica keeps a picture of the row
//! (`snapshot`) that it may rely on for one lease (`lease`, `replica`), renewed in the background
//! (`keeper`). A move that needs an empty journal drains first (`transition`). Nothing here touches a row of
//! the application.

mod audit;
mod chain;
mod change;
#[expect(
    clippy::module_inception,
    reason = "the type that the module is named for"
)]
mod control;
mod convert;
mod ddl;
mod debt;
mod error;
mod flagfile;
mod freeze;
mod gate;
mod holder;
mod keeper;
mod lease;
mod maintenance;
mod moves;
mod options;
mod plan;
mod recovery;
mod replica;
mod safety;
mod snapshot;
mod state;
mod tables;
mod task;
mod transition;

#[cfg(test)]
mod tests;

pub use audit::{
    ActionRecord, Entered, TransitionRecord, actions, entered, history, record_action,
};
pub use chain::{ChainReport, verify_chain};
pub use change::Verdict;
pub use control::Control;
pub use ddl::{COMPONENT, GATE_LOCK, VERSION, install};
pub use debt::LegacyDebt;
pub use error::TransitionError;
pub use flagfile::{FlagDigest, FlagFile, FlagRequest, Judge, Judged};
pub use freeze::FreezeWish;
pub use holder::GateHolder;
pub use lease::{Held, LeaseLost};
pub use maintenance::{MAINTENANCE_MAX, Maintained, Maintenance, MaintenanceWish, UnknownBackend};
pub use options::ControlOptions;
pub use plan::{Plan, Refused, TransitionKind, TransitionRequest, plan};
pub use recovery::{LostBy, RecoverWish, Recovered};
pub use replica::{Replica, Skew};
pub use safety::{Blocker, Owed, RollbackSafety, rollback_safety};
pub use snapshot::Snapshot;
pub use state::{Phase, State};
pub use tables::Newcomer;
pub use transition::Transitioned;
