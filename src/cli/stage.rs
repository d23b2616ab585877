//! `stage`: moves to a stage, or tells what stands in the way.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::print::{Mood, blockers, paint, say, shown};
use super::{AdminArgs, AdminClient, Failure};
use crate::stage::Stage;

/// Arguments of `stage`.
#[derive(Args, Debug)]
pub struct StageArgs {
    /// The stage to move to: off, dual_write, shadow, live, ramp_down, complete.
    to: Stage,
    /// Why; goes into the audit.
    #[arg(long)]
    reason: String,
    /// The change ticket; goes into the audit.
    #[arg(long)]
    ticket: Option<String>,
    /// Refuse unless this is the epoch.
    #[arg(long, value_name = "N")]
    expected_epoch: Option<i64>,
    /// Only tell what would happen and what blocks it.
    #[arg(long)]
    dry_run: bool,
    /// Override every blocker but those that would lose writes; marked so in the audit.
    #[arg(long, conflicts_with = "dry_run")]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &StageArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let answer = client.post("/admin/stage", &args.body()).await?;
    if args.dry_run {
        return say_readiness(&answer);
    }
    say_arrival(&answer)?;
    Ok(ExitCode::SUCCESS)
}

impl StageArgs {
    fn body(&self) -> Value {
        let mut body = json!({ "to": self.to, "reason": self.reason });
        if let Some(ticket) = &self.ticket {
            body["ticket"] = json!(ticket);
        }
        if let Some(epoch) = self.expected_epoch {
            body["expected_epoch"] = json!(epoch);
        }
        if self.dry_run {
            body["dry_run"] = json!(true);
        }
        if self.force {
            body["force"] = json!(true);
        }
        body
    }
}

/// Where a transition led.
pub(super) fn say_arrival(answer: &Value) -> Result<(), Failure> {
    say(&format!(
        "stage {} (epoch {})",
        paint(&shown(answer.get("stage")), Mood::Strong),
        shown(answer.get("epoch"))
    ))
}

/// Whether the move is possible; exit code 1 while it is not.
fn say_readiness(answer: &Value) -> Result<ExitCode, Failure> {
    let blockers = blockers(answer.get("readiness").or(Some(answer)));
    if blockers.is_empty() {
        say(&paint("ready: nothing stands in the way", Mood::Good))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&paint("not ready:", Mood::Bad))?;
    for blocker in blockers {
        say(&format!("  {blocker}"))?;
    }
    Ok(ExitCode::from(1))
}
