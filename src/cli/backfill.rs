//! `backfill`: fills storage with what legacy has.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::follow::{Interrupted, follow};
use super::print::{items, say, say_json, table};
use super::{AdminArgs, AdminClient, Failure};

/// Arguments of `backfill`.
#[derive(Args, Debug)]
pub struct BackfillArgs {
    /// Only this table; may be given several times.
    #[arg(long = "table", value_name = "T")]
    tables: Vec<String>,
    /// At most this many rows a second; 0 is no limit. Of a backfill that runs already: from now on.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Count the rows, and tell how long they take at this rate.
    #[arg(long)]
    dry_run: bool,
    /// Why; goes into the audit.
    #[arg(long, default_value = "")]
    reason: String,
    /// For scripts.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &BackfillArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let mut body = json!({ "tables": args.tables, "reason": args.reason });
    if let Some(rate) = args.rate {
        body["rate"] = rate.into();
    }
    if args.dry_run {
        body["dry_run"] = true.into();
        return plan(args, &client.post("/admin/backfill", &body).await?);
    }
    let job = follow(&client, "/admin/backfill", &body, Interrupted::Pauses).await?;
    let report = &job["result"];
    let quarantined = report["quarantined"].as_i64().unwrap_or(0);
    if args.json {
        say_json(report)?;
        return Ok(ExitCode::from(u8::from(quarantined > 0)));
    }
    say(&table(&["table", "rows", "extra"], items(report, "tables")))?;
    if report["storage_walked"] == false {
        say("rows that only storage has were not looked for: the service has no ranges")?;
    }
    if quarantined > 0 {
        say(&format!(
            "{quarantined} entries need an operator: `cutover journal`"
        ))?;
    } else {
        say("everything is paid; `cutover verify` proves it")?;
    }
    Ok(ExitCode::from(u8::from(quarantined > 0)))
}

fn plan(args: &BackfillArgs, plan: &Value) -> Result<ExitCode, Failure> {
    if args.json {
        say_json(plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = ["table", "rows", "counted", "pending"];
    say(&table(&columns, items(plan, "tables")))?;
    match plan["seconds"].as_u64() {
        Some(seconds) => say(&format!("{} rows, {seconds} s at this rate", plan["rows"]))?,
        None => say(&format!(
            "{} rows; without a rate, as fast as storage takes them",
            plan["rows"]
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}
