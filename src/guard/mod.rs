//! The guard: when storage's behaviour calls for giving the authority back.
//!
//! Four triggers watch sliding windows (`window`, `latency`) and the run of failed calls (`run`). Everything
//! here is pure: samples come in with their time (`Guard::record`), verdicts go out (`Guard::evaluate`), and
//! of those that fired at most one becomes a decision (`Guard::decide`), by what the stage allows
//! (`remedy`) and what the other replicas see (`quorum`). A decision stands, with the evidence it was made
//! on, until the control state has moved; carrying it out is the sentinel's business.
//!
//! No data decides nothing: a trigger with too few samples is `blind`, and says so.

#[expect(
    clippy::module_inception,
    reason = "the type that the module is named for"
)]
mod guard;
mod handle;
mod latency;
mod quorum;
mod remedy;
mod run;
mod settings;
#[cfg(test)]
mod tests;
mod verdict;
mod weakening;
mod window;

pub use crate::telemetry::Trigger;
pub use guard::{Guard, Sample};
pub use handle::{GuardHandle, Traffic};
pub use quorum::{Electorate, Quorum};
pub use remedy::{Remedy, Situation};
pub use settings::{Action, Limit, Outage, Settings};
pub use verdict::{Decision, Standing, Verdict};
pub use weakening::{Weakening, weakenings};
