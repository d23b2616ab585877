//! `cutover`: a dual-write shadow proxy that moves an application from a database to a storage service
//! without losing a write.
//!
//! A map of the house, in the order a request walks through it.

pub mod clock;
pub mod contract;
pub mod schema;

pub mod sql;

pub mod storage;

pub mod control;
