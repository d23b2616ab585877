//! `cutover`: a dual-write shadow proxy that moves an application from a database to a storage service
//! without losing a write.
//!
//! A map of the house, in the order a request walks through it.

pub mod clock;
pub mod contract;
pub mod stage;

pub mod hub;
pub mod schema;
pub mod server;
pub mod sql;
pub mod telemetry;

pub mod divergence;
pub mod journal;
pub mod legacy;
pub mod storage;

pub mod control;

pub mod observe;

pub mod admin;

pub mod config;
