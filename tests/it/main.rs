//! The integration tests: real PostgreSQL, real RabbitMQ, the real binary.
//!
//! One binary, because linking is what tests of this size cost most; `tests/run` starts the servers. A
//! file is a subject, a test is a sentence about it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test, and the fixture for it, fails by panicking"
)]

mod anti_entropy;
mod bad_input;
mod beside;
mod capture;
mod cascades;
mod control;
mod crashes;
mod created_again;
mod drill;
mod failures;
mod fixture;
mod flips;
mod floor;
mod frozen;
mod gate;
mod guard;
mod house;
mod house_rules;
mod itself;
mod keyless;
mod least_grants;
mod live;
mod moving;
mod odd_schemas;
mod plan_client;
mod ramp_down;
mod readiness;
mod recoveries;
mod relations;
mod rollback;
mod schema_changes;
mod shadow_never_hurts;
mod stages;
mod storm;
mod tls;
mod verifying;
mod walk;
