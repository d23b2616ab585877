//! `maintenance`: an outage that is expected flips nothing and wakes nobody, until it ends by itself.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::print::{say, shown};
use super::{AdminArgs, AdminClient, Failure};
use crate::control::Maintained;

/// Arguments of `maintenance`.
#[derive(Args, Debug)]
pub struct MaintenanceArgs {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Subcommand, Debug)]
enum Act {
    /// Expect an outage: triggers of the guard rest and alerts are silent for so long.
    Start {
        /// What will be away: legacy, storage, broker.
        #[arg(long)]
        backend: Maintained,
        /// For how long at most, such as 30m or 2h; then it ends by itself.
        #[arg(long = "for", value_name = "D")]
        lasting: String,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
    },
    /// End it before its time.
    End {
        /// What is back: legacy, storage, broker.
        #[arg(long)]
        backend: Maintained,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(args: &MaintenanceArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let answer = client.post("/admin/maintenance", &args.act.body()).await?;
    match &args.act {
        Act::Start { backend, .. } => {
            let until = shown(answer.get("until"));
            say(&format!("{backend} is under maintenance until {until}"))?;
        }
        Act::End { backend, .. } => say(&format!("the maintenance of {backend} is over"))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Act {
    fn body(&self) -> Value {
        match self {
            Self::Start {
                backend,
                lasting,
                reason,
            } => json!({"action": "start", "backend": backend, "for": lasting, "reason": reason}),
            Self::End { backend, reason } => {
                json!({"action": "end", "backend": backend, "reason": reason})
            }
        }
    }
}
