//! `cutover storage`: the reference storage service as a process of its own.

use tokio_util::sync::CancellationToken;

use super::{AppError, wait_for_signal};
use crate::cli::StorageArgs;
use crate::reference::{self, Broker, Options};
use crate::storage::Capability;

/// The topic exchange that its events go to.
const EVENTS: &str = "message_hub";

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// See [`AppError`].
pub async fn run_storage_service(args: StorageArgs) -> Result<(), AppError> {
    let ddl = args
        .ddl
        .map(|path| {
            std::fs::read_to_string(&path).map_err(|source| AppError::File { path, source })
        })
        .transpose()?;
    let options = Options {
        database: args.database,
        db: args.db,
        http: args.listen,
        faults: args.faults,
        broker: args.amqp.map(|url| Broker {
            url,
            queue: args.queue,
            exchange: EVENTS.to_owned(),
        }),
        ddl,
        without: capabilities(&args.without)?,
        soft_delete: Vec::new(),
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        stop.cancel();
    });
    Ok(reference::run(options, shutdown).await?)
}

fn capabilities(names: &[String]) -> Result<Vec<Capability>, AppError> {
    names
        .iter()
        .map(|name| {
            let known = Capability::ALL.into_iter().find(|one| one.as_str() == name);
            known.ok_or_else(|| {
                let all: Vec<&str> = Capability::ALL.iter().map(|one| one.as_str()).collect();
                AppError::Refused(format!(
                    "--without {name}: capabilities are {}",
                    all.join(", ")
                ))
            })
        })
        .collect()
}
