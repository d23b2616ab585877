//! The command line: what can be typed, one file per command.
//!
//! Commands that look or change speak to a running proxy over its admin API, so that what they do is allowed,
//! audited and refused exactly as in the console. Exit codes: 0 done, 1 found differences or refused, 2 wrong
//! usage or configuration, 3 could not reach the proxy.

mod backfill;
mod check_config;
mod client;
mod divergences;
mod drill;
mod failure;
mod follow;
mod history;
mod journal;
mod maintenance;
mod print;
mod rearm;
mod recover;
mod rollback;
mod schema;
mod serve;
mod stage;
mod status;
mod storage;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use client::{AdminClient, ClientError};
pub use failure::Failure;
pub use rollback::{GateWaits, RollbackArgs};
pub use schema::SchemaArgs;
pub use serve::ServeArgs;
pub use storage::StorageArgs;

/// A dual-write shadow proxy: moves an application from a database to a storage service without losing a write.
#[derive(Parser, Debug)]
#[command(name = "cutover", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the proxy (SIGHUP reloads, SIGTERM drains).
    Serve(ServeArgs),
    /// Run the reference storage service.
    Storage(StorageArgs),
    /// Show stage, authority, debts, backends, what blocks the next stage.
    Status(status::StatusArgs),
    /// Move to a stage.
    Stage(stage::StageArgs),
    /// Give the authority back to legacy.
    Rollback(RollbackArgs),
    /// Lift the latch that a rollback left.
    Rearm(rearm::RearmArgs),
    /// Go on after a restore or a failover that lost history.
    Recover(recover::RecoverArgs),
    /// Rehearse a rollback in `live`: provoke a trigger of the guard safely, and see what happens when.
    Drill(drill::DrillArgs),
    /// Expect an outage of a backend or the broker.
    Maintenance(maintenance::MaintenanceArgs),
    /// Fill storage with what legacy has.
    Backfill(backfill::BackfillArgs),
    /// Compare both sides row by row; exit code 1 when they differ.
    Verify(verify::VerifyArgs),
    /// Show what differs between the sides, or explain it.
    Divergences(divergences::DivergencesArgs),
    /// Show what is owed, or settle what is stuck.
    Journal(journal::JournalArgs),
    /// Show every transition and action, who and why.
    History(history::HistoryArgs),
    /// Print the DDL for a backend, or show the drift between the two.
    Schema(SchemaArgs),
    /// Check a configuration file.
    CheckConfig(check_config::CheckConfigArgs),
}

/// Where the proxy's admin plane is, and who asks.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// The proxy's admin address.
    #[arg(
        long,
        env = "CUTOVER_ADMIN",
        default_value = "http://127.0.0.1:8081",
        global = true
    )]
    pub admin: String,
    /// The bearer token; without one, data/operator.token is read.
    #[arg(long, env = "CUTOVER_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// Roots that an https:// address may be signed by, besides the public ones (PEM).
    #[arg(long, env = "CUTOVER_CA_FILE", value_name = "FILE", global = true)]
    pub ca_file: Option<PathBuf>,
}

impl Command {
    /// Runs a command that needs no engine of its own. Those that do come back, for the caller to run.
    ///
    /// # Errors
    /// The command itself, when it is one of `serve`, `storage`, `schema` and `rollback --database`.
    pub async fn run_client(self) -> Result<ExitCode, Self> {
        let done = match self {
            Self::Schema(ref args) if args.diff => schema::diff(args).await,
            Self::Serve(_) | Self::Storage(_) | Self::Schema(_) => return Err(self),
            Self::Rollback(ref args) if args.database.is_some() => return Err(self),
            Self::Rollback(args) => rollback::run(&args).await,
            Self::Status(args) => status::run(&args).await,
            Self::Stage(args) => stage::run(&args).await,
            Self::Rearm(args) => rearm::run(&args).await,
            Self::Recover(args) => recover::run(&args).await,
            Self::Drill(args) => drill::run(&args).await,
            Self::Maintenance(args) => maintenance::run(&args).await,
            Self::Backfill(args) => backfill::run(&args).await,
            Self::Verify(args) => verify::run(&args).await,
            Self::Divergences(args) => divergences::run(&args).await,
            Self::Journal(args) => journal::run(&args).await,
            Self::History(args) => history::run(&args).await,
            Self::CheckConfig(args) => check_config::run(&args),
        };
        Ok(done.unwrap_or_else(|failure| failure.report()))
    }
}

#[cfg(test)]
mod tests;
