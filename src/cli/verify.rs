//! `verify`: holds every row of one side against the other.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::follow::{Interrupted, follow};
use super::print::{Mood, items, paint, say, say_json, shown, table};
use super::{AdminArgs, AdminClient, Failure};

/// What is shown of each table.
const COLUMNS: [&str; 10] = [
    "table",
    "legacy_rows",
    "storage_rows",
    "match",
    "missing",
    "extra",
    "field",
    "transient",
    "unread",
    "repaired",
];

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Only this table; may be given several times.
    #[arg(long = "table", value_name = "T")]
    tables: Vec<String>,
    /// Owe the secondary every row that is confirmed to differ.
    #[arg(long)]
    repair: bool,
    /// Why; goes into the audit.
    #[arg(long, default_value = "")]
    reason: String,
    /// For scripts.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let body = json!({ "tables": args.tables, "repair": args.repair, "reason": args.reason });
    let job = follow(&client, "/admin/verify", &body, Interrupted::Cancels).await?;
    let report = &job["result"];
    if args.json {
        say_json(report)?;
    } else {
        show(report)?;
    }
    Ok(ExitCode::from(u8::from(report["clean"] != true)))
}

fn show(report: &Value) -> Result<(), Failure> {
    say(&table(&COLUMNS, items(report, "tables")))?;
    for unchecked in items(report, "unchecked") {
        say(&format!("not checked: {}", shown(Some(unchecked))))?;
    }
    let quarantined = report["quarantined"].as_i64().unwrap_or(0);
    if quarantined > 0 {
        say(&format!(
            "{quarantined} entries need an operator: `cutover journal`"
        ))?;
    }
    if report["clean"] != true {
        return say(&paint(
            "not clean: look at `cutover divergences`, or repair with --repair",
            Mood::Bad,
        ));
    }
    let verdict = if report["recorded"] == true {
        "clean; on record"
    } else {
        "clean as far as it was looked at; not on record"
    };
    say(&paint(verdict, Mood::Good))
}
