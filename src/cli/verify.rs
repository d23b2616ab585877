//! `verify`: holds every row of one side against the other.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::follow::{Interrupted, follow};
use super::print::{Mood, items, paint, say, say_json, shown, table};
use super::{AdminArgs, AdminClient, Failure};

/// What is shown of each table.
const COLUMNS: [&str; 4] = ["table", "legacy_rows", "storage_rows", "match"];
/// What is wrong with rows; shown as well, where there is any.
const WRONG: [&str; 8] = [
    "missing",
    "extra",
    "orphan",
    "soft_delete",
    "version",
    "version_ahead",
    "field",
    "unread",
];
/// What is told besides, where there is any.
const BESIDES: [&str; 3] = ["transient", "orphans_alike", "repaired"];

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
    // What could not be checked is not proven.
    let proven = report["clean"] == true && items(report, "unchecked").is_empty();
    Ok(ExitCode::from(u8::from(!proven)))
}

fn show(report: &Value) -> Result<(), Failure> {
    let tables = items(report, "tables");
    let mut columns = COLUMNS.to_vec();
    let is_found = |name: &&str| {
        let some = |table: &Value| table[*name].as_u64().is_some_and(|rows| rows > 0);
        tables.iter().any(some)
    };
    columns.extend(WRONG.into_iter().chain(BESIDES).filter(is_found));
    say(&table(&columns, tables))?;
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
        let repaired = |table: &Value| table["repaired"].as_u64().unwrap_or(0);
        let what = match tables.iter().map(repaired).sum() {
            0 if !WRONG.iter().any(is_found) => "what needs an operator may differ".to_owned(),
            0 => "look at `cutover divergences`, or repair with --repair".to_owned(),
            rows => format!("{rows} rows are owed to the secondary: verify again to prove it"),
        };
        return say(&paint(&format!("not clean: {what}"), Mood::Bad));
    }
    let verdict = if report["recorded"] == true {
        "clean; on record"
    } else {
        "clean as far as it was looked at; not on record"
    };
    say(&paint(verdict, Mood::Good))
}
