//! `schema`: what it takes.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `schema`.
#[derive(Args, Debug)]
pub struct SchemaArgs {
    /// Print the DDL of the control schema and its triggers, with the grants they need, instead of storage's.
    #[arg(long)]
    pub control: bool,
    /// The configuration file; without one the embedded default is meant.
    #[arg(long, env = "CUTOVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}
