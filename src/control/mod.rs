//! The control state: stage, epoch, transitions, leases, audit.
