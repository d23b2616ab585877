//! `rollback`: gives the authority back to legacy.

use std::collections::HashSet;
use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::print::plain;
use super::{AdminArgs, AdminClient, Failure, stage};
use crate::control::GateHolder;
use crate::stage::Stage;

/// How often it is looked what a rollback waits for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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

/// What was said about a gate that is held: each holder once.
#[derive(Debug, Default)]
pub struct GateWaits {
    said: HashSet<i64>,
}

impl GateWaits {
    /// Says on standard error who is waited for, if that is news.
    pub fn tell(&mut self, holders: &[GateHolder]) {
        for holder in holders {
            if self.said.insert(holder.pid) {
                let line = format!("waiting for the gate, which is held by {holder}");
                eprintln!("{}", plain(&line));
            }
        }
    }
}

/// Asks the proxy, and says what it waits for.
pub(super) async fn run(args: &RollbackArgs) -> Result<ExitCode, Failure> {
    let mut body = json!({ "reason": args.reason });
    if let Some(to) = args.to {
        body["to"] = json!(to);
    }
    let client = AdminClient::new(&args.admin)?;
    let answer = tokio::select! {
        answer = client.post("/admin/rollback", &body) => answer?,
        never = tell(&client) => match never {},
    };
    stage::say_arrival(&answer)?;
    Ok(ExitCode::SUCCESS)
}

/// Until the answer is there. A proxy that cannot tell is not asked for more than that.
async fn tell(client: &AdminClient) -> Infallible {
    let mut waits = GateWaits::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let status = client.get("/admin/status").await.unwrap_or_default();
        let holders = status.get("gate_held_by").cloned().unwrap_or_default();
        waits.tell(&serde_json::from_value::<Vec<_>>(holders).unwrap_or_default());
    }
}
