//! `rollback`: gives the authority back to legacy.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{AdminArgs, AdminClient, Failure, stage};
use crate::stage::Stage;

/// Arguments of `rollback`.
#[derive(Args, Debug)]
pub struct RollbackArgs {
    /// Why; goes into the audit.
    #[arg(long)]
    pub reason: String,
    /// The stage to fall to; the proxy's own choice without it.
    #[arg(long, value_name = "STAGE")]
    pub to: Option<Stage>,
    /// Change the state in this legacy database directly, when no proxy answers.
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Where the proxy is.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Asks the proxy.
pub(super) async fn run(args: &RollbackArgs) -> Result<ExitCode, Failure> {
    let mut body = json!({ "reason": args.reason });
    if let Some(to) = args.to {
        body["to"] = json!(to);
    }
    let client = AdminClient::new(&args.admin)?;
    let answer = client.post("/admin/rollback", &body).await?;
    stage::say_arrival(&answer)?;
    Ok(ExitCode::SUCCESS)
}
