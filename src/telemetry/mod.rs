//! What the proxy tells about itself: metrics, log, trace context.
//!
//! Metric names and labels are the interface of dashboards and alerts, so they live in one place and labels are
//! closed sets: no value of a row and no text of a caller can become a label (trap 10, and bounded cardinality).

mod labels;
mod log;
mod metrics;
mod register;
mod series;
mod trace;
mod walks;

pub use labels::{
    ActorKind, AmqpAnswer, Backfilled, Comparison, DivergenceKind, Door, DriftKind, ErrorKind, Op,
    Payment, Peer, ReplicaState, Shed, Trigger,
};
pub use log::{LogControl, LogError, LogFormat, init};
pub use metrics::{JournalGauges, Metrics, TriggerGauges};
pub use trace::TraceParent;
