//! `schema`: the DDL for either side, read from legacy by the configuration; or the drift between the sides, as
//! a running proxy sees it, because it is the proxy that reaches storage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::print::{Mood, items, paint, say, say_json, shown, table};
use super::{AdminArgs, AdminClient, Failure};

/// Arguments of `schema`.
#[derive(Args, Debug)]
pub struct SchemaArgs {
    /// Print the DDL of the control schema and its triggers, with the grants they need, instead of storage's.
    #[arg(long)]
    pub control: bool,
    /// Show where storage's schema differs from legacy's, as the running proxy sees it now; exit code 1 when it does.
    #[arg(long, conflicts_with = "control")]
    pub diff: bool,
    /// With --diff: for scripts.
    #[arg(long, requires = "diff")]
    json: bool,
    /// The configuration file; without one the embedded default is meant.
    #[arg(long, env = "CUTOVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Shows the drift.
pub(super) async fn diff(args: &SchemaArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let found = client.get("/admin/schema").await?;
    if args.json {
        say_json(&found)?;
    } else {
        show(&found)?;
    }
    let (drift, unknown) = (items(&found, "drift"), items(&found, "unknown"));
    // What storage is only looser in is told, and is no failure.
    let blocks = drift.iter().any(|one| one["blocks"] == true);
    if !blocks && !unknown.is_empty() {
        return Err(Failure::Lost {
            message: format!("{} tables of storage could not be looked at", unknown.len()),
            hint: "`cutover status` tells whether storage is up".to_owned(),
        });
    }
    Ok(ExitCode::from(u8::from(blocks)))
}

fn show(found: &Value) -> Result<(), Failure> {
    let (drift, unknown) = (items(found, "drift"), items(found, "unknown"));
    if !drift.is_empty() {
        say(&table(&["table", "kind", "column", "message"], drift))?;
    }
    for one in unknown {
        let (table, why) = (shown(one.get("table")), shown(one.get("why")));
        say(&format!("not known: {table}: {why}"))?;
    }
    let blocks = |one: &&Value| one["blocks"] == true;
    if drift.iter().find(blocks).is_none() && unknown.is_empty() {
        return say(&paint(
            "no drift: storage takes what legacy takes",
            Mood::Good,
        ));
    }
    Ok(())
}
