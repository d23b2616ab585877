//! The configuration: one TOML file, overridden by environment variables, checked before anything starts.
//!
//! It is read in three steps, each a file: `source` (text and variables become one tree that remembers where
//! every value came from), `raw` (the tree becomes structs that refuse unknown keys: a key that is misspelt, or
//! that this version does nothing with, is an error), and `check` (raw structs become the checked types that the
//! rest of the program sees, once every rule between keys holds). Errors say file, line, what is wrong and what
//! to write instead; all rule violations are reported at once.

mod address;
mod change_window;
mod check;
mod digest;
mod duration;
mod guard;
mod hot;
mod problem;
mod raw;
mod readiness;
mod secrets;
mod sections;
mod source;
mod token;

use std::path::Path;

use serde::Serialize;

pub use address::Address;
pub use change_window::{ChangeWindow, NoWindow};
pub use digest::Reload;
pub use duration::parse as parse_duration;
pub use guard::{Canary, FailureRate, Guard, Inconsistency, LatencyDelta, Unavailable};
pub use hot::{Backfill, Compare, Hot, Limits, Log, Verify};
pub use problem::{ConfigError, Problem};
pub use readiness::Readiness;
pub use sections::{
    Admin, AmqpDoor, Applier, Bypass, Control, Flag, Flip, Http, Journal, Legacy, Operations,
    Storage, TablePolicy, TlsFiles, Transport, WithoutLease,
};
pub use token::{Access, AdminToken, DoorToken, Role, TokenHash};

/// What `serve` runs without a file: SQLite and the reference storage service, nothing else needed.
pub const DEFAULT: &str = include_str!("../../config/default.toml");

/// How the embedded default names itself in errors.
const DEFAULT_NAME: &str = "(embedded default)";

/// A configuration that passed every check.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Config {
    /// The `db` that requests must name.
    pub db: String,
    /// The existing database.
    pub legacy: Legacy,
    /// The storage service.
    pub storage: Storage,
    /// The HTTP door.
    pub http: Http,
    /// The AMQP door, when it is enabled.
    pub amqp: Option<AmqpDoor>,
    /// The admin plane.
    pub admin: Admin,
    /// The flag file.
    pub flag: Flag,
    /// Transitions.
    pub flip: Flip,
    /// Leases and clocks.
    pub control: Control,
    /// The record of operations.
    pub operations: Operations,
    /// The journal's bounds.
    pub journal: Journal,
    /// How the journal is paid.
    pub applier: Applier,
    /// The tables, by name, in the file's order; at least one.
    pub tables: Vec<TablePolicy>,
    /// What a reload may change.
    pub hot: Hot,
}

impl Config {
    /// Reads a file, or the embedded default, with the process's environment on top.
    ///
    /// # Errors
    /// Everything that is wrong with it, see [`ConfigError`].
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let Some(path) = path else {
            return Self::parse(DEFAULT_NAME, DEFAULT, &environment);
        };
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text, &environment),
            Err(error) => Err(ConfigError::unreadable(name, &error)),
        }
    }

    /// Reads a configuration's text; `name` stands for the file in errors, `environment` is where overrides and
    /// `{ env = "NAME" }` secrets are looked up.
    ///
    /// # Errors
    /// Everything that is wrong with it, see [`ConfigError`].
    pub fn parse(
        name: &str,
        text: &str,
        environment: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let failed = |problems| ConfigError::new(name, problems);
        let source = source::Source::parse(text, environment).map_err(|one| failed(vec![one]))?;
        let raw = source.to_raw().map_err(|one| failed(vec![one]))?;
        check::check(raw, environment).map_err(|findings| {
            failed(
                findings
                    .into_iter()
                    .map(|finding| source.locate(finding))
                    .collect(),
            )
        })
    }
}

#[cfg(test)]
mod tests;
