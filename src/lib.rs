//! `cutover`: a dual-write shadow proxy that moves an application from a database to a storage service
//! without losing a write.
//!
//! A map of the house: each row imports only from rows above it. A request walks it from the bottom up and
//! back: `front` → `repository` → `legacy` and `storage`.

// The words everybody speaks.
pub mod clock;
pub mod contract;
pub mod stage;
pub mod tls;

// What can be said without a backend, and the libraries behind one door each.
pub mod compare;
pub mod hub;
pub mod schema;
pub mod server;
pub mod sql;
pub mod telemetry;

// The two backends, and what one owes the other.
pub mod divergence;
pub mod evidence;
pub mod journal;
pub mod legacy;
pub mod storage;

// Who decides which of them is the authority, and who watches.
pub mod control;
pub mod drift;
pub mod guard;
pub mod observe;

// What a request does, and what happens behind its back.
pub mod applier;
pub mod backfill;
pub mod repository;
pub mod shadow;
pub mod verify;
pub mod walk;

// The doors, and what people look at.
pub mod admin;
pub mod drill;
pub mod front;
pub mod jobs;
pub mod sentinel;

// Wiring.
pub mod app;
pub mod cli;
pub mod config;
pub mod reference;
