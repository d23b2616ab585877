//! `recover`: the way on after history was lost under the proxy.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::print::{Mood, items, paint, say, shown};
use super::{AdminArgs, AdminClient, Failure, stage};
use crate::control::LostBy;
use crate::stage::Backend;

/// Arguments of `recover`.
#[derive(Args, Debug)]
pub struct RecoverArgs {
    /// How history came to be lost: restore (of a backup), failover (to a standby that lagged).
    #[arg(long)]
    after: LostBy,
    /// The side that is believed: legacy or storage. The other one must be filled and verified.
    #[arg(long, value_parser = backend)]
    authority: Backend,
    /// Why; goes into the audit.
    #[arg(long)]
    reason: Option<String>,
    /// The highest epoch that was there before, when no replica that runs remembers it.
    #[arg(long, value_name = "N")]
    seen_epoch: Option<i64>,
    /// Only tell what would happen, and which writes may be lost.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &RecoverArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let reason = args
        .reason
        .clone()
        .unwrap_or_else(|| format!("history was lost by a {}", args.after.as_str()));
    let mut body = json!({
        "after": args.after,
        "authority": args.authority,
        "reason": reason,
        "dry_run": args.dry_run,
    });
    if let Some(epoch) = args.seen_epoch {
        body["seen_epoch"] = json!(epoch);
    }
    let answer = client.post("/admin/recover", &body).await?;
    if args.dry_run {
        say(&paint(
            "nothing was changed; it would lead to:",
            Mood::Strong,
        ))?;
    }
    stage::say_arrival(&answer)?;
    say("acknowledged writes that may be lost:")?;
    for told in answer
        .get("may_lose")
        .map_or(&[][..], |list| items(list, "may_lose"))
    {
        say(&format!("  - {}", shown(Some(told))))?;
    }
    let stale = shown(answer.get("stale"));
    say(&format!(
        "{stale} is stale: it must be filled and verified as a whole; nothing advances until `cutover rearm`"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn backend(text: &str) -> Result<Backend, &'static str> {
    [Backend::Legacy, Backend::Storage]
        .into_iter()
        .find(|one| one.as_str() == text)
        .ok_or("no such side; sides are legacy, storage")
}
