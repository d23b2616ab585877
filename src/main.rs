//! The `cutover` binary: parses the command line, and gives each command what it needs.

use std::process::ExitCode;

use clap::Parser;
use cutover::app;
use cutover::cli::{
    Cli, Command, Failure, GateWaits, RollbackArgs, SchemaArgs, ServeArgs, StorageArgs,
};
use cutover::config::{Config, ConfigError};
use cutover::telemetry::{self, LogFormat};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> ExitCode {
    let command = match command.run_client().await {
        Ok(code) => return code,
        Err(command) => command,
    };
    let done = match command {
        Command::Serve(args) => serve(args).await,
        Command::Storage(args) => storage(args).await,
        Command::Schema(args) => schema(args).await,
        Command::Rollback(args) => rollback(args).await,
        _ => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn serve(args: ServeArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref()).map_err(bad_config)?;
    let log = telemetry::init(&config.hot.log.level, config.hot.log.format)
        .map_err(|error| usage(&error))?;
    app::serve(config, args.config, log)
        .await
        .map_err(|error| refused(&error))
}

async fn storage(args: StorageArgs) -> Result<(), Failure> {
    telemetry::init("info", LogFormat::Auto).map_err(|error| usage(&error))?;
    app::run_storage_service(args.options()?)
        .await
        .map_err(|error| refused(&error))
}

async fn schema(args: SchemaArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref()).map_err(bad_config)?;
    let sql = if args.control {
        app::control_schema(&config).await
    } else {
        app::storage_schema(&config).await
    }
    .map_err(|error| refused(&error))?;
    print!("{sql}");
    Ok(())
}

async fn rollback(args: RollbackArgs) -> Result<(), Failure> {
    let url = args.database.unwrap_or_default();
    let mut waits = GateWaits::default();
    let (stage, epoch) =
        app::rollback_in_database(&url, args.to, &args.reason, |holders| waits.tell(holders))
            .await
            .map_err(|error| refused(&error))?;
    println!("{stage} (epoch {epoch})");
    Ok(())
}

fn bad_config(error: ConfigError) -> Failure {
    Failure::Usage {
        message: error.to_string().trim_end().to_owned(),
        hint: None,
    }
}

fn usage(error: &dyn std::error::Error) -> Failure {
    Failure::Usage {
        message: error.to_string(),
        hint: None,
    }
}

fn refused(error: &dyn std::error::Error) -> Failure {
    Failure::Refused {
        message: error.to_string(),
        hint: None,
    }
}
