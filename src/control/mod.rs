//! The control state: stage, epoch, transitions, leases, audit.

mod stage;

pub use stage::{Backend, Stage};
