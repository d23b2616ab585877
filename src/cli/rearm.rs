//! `rearm`: lifts the latch.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::print::say;
use super::{AdminArgs, AdminClient, Failure};

/// Arguments of `rearm`.
#[derive(Args, Debug)]
pub struct RearmArgs {
    /// Why; goes into the audit.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &RearmArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    client
        .post("/admin/rearm", &json!({ "reason": args.reason }))
        .await?;
    say("re-armed: stages can advance again")?;
    Ok(ExitCode::SUCCESS)
}
