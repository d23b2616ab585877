//! `history`: every transition and action, who and why, and whether the chain is intact.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::print::{Mood, items, paint, say, say_json, shown, table};
use super::{AdminArgs, AdminClient, Failure};

/// Arguments of `history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// For scripts.
    #[arg(long)]
    json: bool,
    /// Check that no record was changed, removed or put in between; exit code 1 if one was.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &HistoryArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let path = if args.verify {
        "/admin/transitions?verify=true"
    } else {
        "/admin/transitions"
    };
    let answer = client.get(path).await?;
    if args.json {
        say_json(&answer)?;
    } else {
        let columns = ["epoch", "at", "from", "to", "actor", "ticket", "reason"];
        say(&table(&columns, items(&answer, "transitions")))?;
        let actions = items(&answer, "actions");
        if answer.is_object() && !actions.is_empty() {
            say(&format!("\n{}", paint("actions", Mood::Strong)))?;
            say(&table(&["at", "actor", "action", "reason"], actions))?;
        }
    }
    match answer.get("intact").and_then(Value::as_bool) {
        _ if !args.verify => Ok(ExitCode::SUCCESS),
        Some(true) => {
            if !args.json {
                say(&paint("the chain is intact", Mood::Good))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(false) => Err(Failure::Refused {
            message: format!("the chain is broken at {}", shown(answer.get("broken_at"))),
            hint: Some("compare with the log and with the events published on the hub".to_owned()),
        }),
        None => Err(Failure::Unreachable(
            "the proxy did not say whether the chain is intact".to_owned(),
        )),
    }
}
