//! `check-config`: what is wrong with a configuration, with line and hint.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::print::say;
use crate::config::Config;

/// Arguments of `check-config`.
#[derive(Args, Debug)]
pub struct CheckConfigArgs {
    /// The file.
    file: PathBuf,
}

pub(super) fn run(args: &CheckConfigArgs) -> Result<ExitCode, Failure> {
    match Config::load(Some(&args.file)) {
        Ok(config) => {
            say(&format!(
                "{}: valid, digest {}",
                args.file.display(),
                config.digest()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        // The problems as they are: editors and CI read `file:line:` at the start of a line.
        Err(error) => {
            eprintln!("{error}");
            Ok(ExitCode::from(2))
        }
    }
}
