//! `storage`: what it takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::Failure;
use crate::reference::{Broker, Options};
use crate::server::Tls;
use crate::storage::Capability;
use crate::tls::{Trust, TrustFiles};

/// The topic exchange that its events go to.
const EVENTS: &str = "message_hub";

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
    /// PEM files: the certificate of the HTTP port, then those that signed it, and its private key.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_chain: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "tls_chain")]
    pub tls_key: Option<PathBuf>,
    /// Roots that the broker's certificate may be signed by, besides the public ones (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
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

impl StorageArgs {
    /// The service that the arguments describe.
    ///
    /// # Errors
    /// A file that cannot be read, a capability that does not exist.
    pub fn options(self) -> Result<Options, Failure> {
        let ddl = self.ddl.map(|path| {
            std::fs::read_to_string(&path)
                .map_err(|error| bad_file(&format!("{}: {error}", path.display())))
        });
        let tls = self.tls_chain.zip(self.tls_key);
        let tls = tls.map(|(chain, key)| Tls::load(chain, key).map(Arc::new));
        let trust = Arc::new(trust(self.ca_file)?);
        Ok(Options {
            database: self.database,
            db: self.db,
            http: self.listen,
            tls: tls.transpose().map_err(|error| bad_file(&error))?,
            faults: self.faults,
            broker: self.amqp.map(|url| Broker {
                url,
                queue: self.queue,
                exchange: EVENTS.to_owned(),
                trust,
            }),
            ddl: ddl.transpose()?,
            without: capabilities(&self.without)?,
            soft_delete: Vec::new(),
        })
    }
}

/// Whom a command believes: the public roots, and those in the file.
pub(super) fn trust(ca: Option<PathBuf>) -> Result<Trust, Failure> {
    let files = TrustFiles { ca, identity: None };
    Trust::load(files).map_err(|error| bad_file(&error))
}

fn bad_file(error: &dyn std::fmt::Display) -> Failure {
    Failure::Usage {
        message: error.to_string(),
        hint: None,
    }
}

fn capabilities(names: &[String]) -> Result<Vec<Capability>, Failure> {
    names
        .iter()
        .map(|name| {
            let known = Capability::ALL.into_iter().find(|one| one.as_str() == name);
            known.ok_or_else(|| {
                let all: Vec<&str> = Capability::ALL.iter().map(|one| one.as_str()).collect();
                Failure::Usage {
                    message: format!("--without {name}: there is no such capability"),
                    hint: Some(format!("capabilities are {}", all.join(", "))),
                }
            })
        })
        .collect()
}
