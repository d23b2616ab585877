//! `backfill`: fills storage with what legacy has.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::follow::follow;
use super::print::{items, say, say_json, table};
use super::{AdminArgs, AdminClient, Failure};

/// Arguments of `backfill`.
#[derive(Args, Debug)]
pub struct BackfillArgs {
    /// Only this table; may be given several times.
    #[arg(long = "table", value_name = "T")]
    tables: Vec<String>,
    /// At most this many rows a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
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
    let job = follow(&client, "/admin/backfill", &body).await?;
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
