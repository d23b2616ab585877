//! `divergences`: what differs between the sides, and the audited way to say that it may.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::print::{Mood, items, paint, say, say_json, say_more, table};
use super::{AdminArgs, AdminClient, Failure};

/// Arguments of `divergences`.
#[derive(Args, Debug)]
pub struct DivergencesArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// For scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List them (the default); exit code 1 when there are any.
    List,
    /// Accept one for a time; it then blocks no advance.
    Explain {
        /// Its id, from the list.
        id: i64,
        /// Why it may be; goes into the audit.
        #[arg(long)]
        reason: String,
        /// Until when, as RFC 3339: 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "T")]
        until: String,
    },
}

pub(super) async fn run(args: &DivergencesArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    if let Some(Action::Explain { id, reason, until }) = &args.action {
        let path = format!("/admin/divergences/{id}/explain");
        client
            .post(&path, &json!({ "reason": reason, "until": until }))
            .await?;
        say(&format!("divergence {id} is explained until {until}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer = client.get("/admin/divergences").await?;
    let found = items(&answer, "divergences");
    if args.json {
        say_json(&answer)?;
    } else if found.is_empty() {
        say(&paint(
            "none: the sides agree as far as they were compared",
            Mood::Good,
        ))?;
    } else {
        let columns = [
            "id",
            "at",
            "table",
            "kind",
            "key",
            "fields",
            "explained_until",
        ];
        say(&table(&columns, found))?;
        say_more(found.len(), answer.get("open"), "unexplained")?;
    }
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}
