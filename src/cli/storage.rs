//! `storage`: what it takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Arguments of `storage`.
#[derive(Args, Debug)]
pub struct StorageArgs {
    /// The service's own database: postgres://… or sqlite://path.
    #[arg(
        long,
        env = "CUTOVER_STORAGE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database: String,
    /// The broker to serve on as well.
    #[arg(
        long,
        env = "CUTOVER_STORAGE_AMQP",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub amqp: Option<String>,
    /// The queue to consume.
    #[arg(long, default_value = "storage.query", requires = "amqp")]
    pub queue: String,
    /// Where to serve HTTP.
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// Where faults are asked for (`/faults`); nowhere without it.
    #[arg(long, value_name = "ADDRESS")]
    pub faults: Option<SocketAddr>,
    /// The database that requests name.
    #[arg(long, default_value = "campaign_db")]
    pub db: String,
    /// SQL to run first, such as CREATE TABLE.
    #[arg(long, value_name = "FILE")]
    pub ddl: Option<PathBuf>,
    /// A capability to do without; may be repeated.
    #[arg(long, value_name = "CAPABILITY")]
    pub without: Vec<String>,
}
