//! `journal`: what is owed, and the audited way out for what is stuck.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::print::{Mood, items, paint, say, say_json, say_more, table};
use super::{AdminArgs, AdminClient, Failure};

/// Arguments of `journal`.
#[derive(Args, Debug)]
pub struct JournalArgs {
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
    /// List open entries (the default).
    List,
    /// Show one entry with its attempts.
    Show {
        /// Its number, from the list.
        seq: i64,
    },
    /// Pay a quarantined entry again.
    Retry {
        /// Its number, from the list.
        seq: i64,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
    },
    /// Settle an entry without paying it: the sides may then differ.
    Accept {
        /// Its number, from the list.
        seq: i64,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(args: &JournalArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let settle = |seq: &i64, verb: &str| format!("/admin/journal/{seq}/{verb}");
    match &args.action {
        None | Some(Action::List) => {
            let answer = client.get("/admin/journal").await?;
            let entries = items(&answer, "entries");
            if args.json {
                say_json(&answer)?;
            } else if entries.is_empty() {
                say(&paint("nothing is owed", Mood::Good))?;
            } else {
                let columns = [
                    "seq",
                    "to",
                    "table",
                    "key",
                    "kind",
                    "state",
                    "age_seconds",
                    "attempts",
                ];
                say(&table(&columns, entries))?;
                say_more(entries.len(), answer.pointer("/journal/owed"), "owed")?;
            }
        }
        Some(Action::Show { seq }) => {
            say_json(&client.get(&format!("/admin/journal/{seq}")).await?)?;
        }
        Some(Action::Retry { seq, reason }) => {
            client
                .post(&settle(seq, "retry"), &json!({ "reason": reason }))
                .await?;
            say(&format!("entry {seq} will be paid again"))?;
        }
        Some(Action::Accept { seq, reason }) => {
            client
                .post(&settle(seq, "accept"), &json!({ "reason": reason }))
                .await?;
            say(&format!("entry {seq} is settled without payment"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
