//! What was found out about the migration so far, kept where every replica and a restart finds it.
//!
//! Readiness asks about hours and days: when was the last verify, who wrote past the proxy yesterday, how
//! slow were callers before anything changed. A counter in a process has forgotten that by the next deploy,
//! and knows nothing of the other replicas. So these few facts are rows in the control schema: the last
//! verdict of a full verify (`verified`), the writes past the proxy (`bypassed`), callers' latency in `off`
//! (`baseline`), and how much was compared under which epoch (`compared`).

mod baseline;
mod bypassed;
mod compared;
mod ddl;
#[cfg(test)]
mod tests;
mod verified;

pub use baseline::{Baseline, baselines, record_baseline};
pub use bypassed::{Bypassed, bypassed, record_bypass};
pub use compared::{Tally, compared_since, record_compared};
pub use ddl::COMPONENT;
pub use verified::{Verified, forget_verified, record_verified, verified};
