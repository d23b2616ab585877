//! The integration tests: real PostgreSQL, real RabbitMQ, the real binary.
//!
//! One binary, because linking is what tests of this size cost most; `tests/run` starts the servers. A
//! file is a subject, a test is a sentence about it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test, and the fixture for it, fails by panicking"
)]

mod fixture;
mod flips;
mod house;
mod house_rules;
mod itself;
mod stages;
mod walk;
