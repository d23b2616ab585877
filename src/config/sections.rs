//! The checked sections that need a restart.
//!
//! Sections whose keys are all plain are read straight into these types; those that name secrets or depend on
//! another key have a raw shape of their own in `raw`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::{Address, duration};
use crate::storage::{Capabilities, Capability};

/// `[legacy]`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Legacy {
    /// `postgres://…` or `sqlite://path`.
    pub url: Address,
    /// What becomes of writes that bypass the proxy, until `shadow`; from `live` on they are always refused.
    pub bypass: Bypass,
    /// Connections for requests, at most.
    pub connections_max: u32,
    /// Connections for what happens behind callers' backs, at most: payments, comparisons, jobs.
    pub background_connections_max: u32,
    /// How long a request waits for a connection.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// PostgreSQL `statement_timeout` of the proxy's sessions.
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    /// PostgreSQL `lock_timeout` of the proxy's sessions.
    #[serde(with = "duration")]
    pub lock_timeout: Duration,
}

/// What becomes of writes that do not come through the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bypass {
    /// They are captured and counted.
    Capture,
    /// The database refuses them.
    Refuse,
}

/// `[storage]`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Storage {
    /// How it is reached.
    pub transport: Transport,
    /// Roots that servers may be signed by, besides the public ones: storage, brokers, the webhook. PEM.
    pub ca_file: Option<PathBuf>,
    /// What is shown to a server that asks for a certificate.
    pub identity: Option<TlsFiles>,
    /// What it can do.
    #[serde(serialize_with = "capability_names")]
    pub capabilities: Capabilities,
    /// How long a call may take; also the deadline that the call carries.
    #[serde(with = "duration")]
    pub rpc_deadline: Duration,
}

/// How the storage service is reached.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// RPC over AMQP 0-9-1.
    Amqp {
        /// The broker.
        amqp_url: Address,
        /// The exchange; empty is the default exchange.
        exchange: String,
        /// The routing key; with the default exchange it is the queue.
        routing_key: String,
    },
    /// `POST {base_url}/query`.
    Http {
        /// The service, without `/query`.
        base_url: Address,
    },
}

/// `[http]`; its tokens are in `Hot`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Http {
    /// Where the door listens.
    pub listen: SocketAddr,
    /// TLS, where the door speaks it.
    pub tls: Option<TlsFiles>,
}

/// A certificate and its key: a listener's, or what is shown to servers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM: the certificate, then those that signed it.
    pub chain: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// `[amqp]`, when it is enabled.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AmqpDoor {
    /// The broker.
    pub url: Address,
    /// The queue that requests come from.
    pub queue: String,
    /// Unacknowledged requests at a time: the door's bound on work in flight.
    pub prefetch: u16,
    /// Requests older than this are refused.
    #[serde(with = "duration")]
    pub max_age: Duration,
}

/// `[admin]`; its tokens are in `Hot`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Admin {
    /// Where the admin plane listens.
    pub listen: SocketAddr,
    /// Whether `/metrics` asks for a token.
    pub protect_metrics: bool,
    /// TLS, where the admin plane speaks it.
    pub tls: Option<TlsFiles>,
}

/// `[flag]`; its pin is in `Hot`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Flag {
    /// The flag file; it need not exist.
    pub file: PathBuf,
}

/// `[flip]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flip {
    /// How long an advance to `live` may hold writers before it gives up.
    #[serde(with = "duration")]
    pub max_pause: Duration,
}

/// `[control]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// How long a replica may answer reads without having renewed its lease on the epoch.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often the lease is renewed.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// The largest difference of clocks that is tolerated.
    #[serde(with = "duration")]
    pub clock_skew_max: Duration,
    /// What a replica that cannot renew its lease does with reads in `live`.
    pub without_lease: WithoutLease,
}

/// What a replica without a lease does with reads in `live`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutLease {
    /// Goes on reading from storage, and says so.
    ReadStorage,
    /// Refuses them.
    Refuse,
}

/// `[operations]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operations {
    /// How long an operation id is remembered after its last entry settled.
    #[serde(with = "duration")]
    pub retention: Duration,
}

/// `[journal]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Open entries before the stage falls to `off`.
    pub max_entries: u64,
    /// Bytes of open entries before the stage falls to `off`.
    pub max_bytes: u64,
}

/// `[applier]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Applier {
    /// Entries claimed at once.
    pub batch: u32,
    /// Payments on the way at a time.
    pub concurrency: u32,
    /// The longest pause between two attempts at one entry.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// How long a doubt rests where storage neither refuses late writes nor recognises attempts.
    #[serde(with = "duration")]
    pub quiet_period: Duration,
}

/// One `[[tables]]`: columns by name; the database itself says everything else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePolicy {
    /// The table, as requests name it.
    pub name: String,
    /// The column that a delete sets to the time.
    pub soft_delete: Option<String>,
    /// The column that counts a row's versions.
    pub version: Option<String>,
    /// Columns that are not compared.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Columns that storage may fill in by itself.
    #[serde(default)]
    pub filled_by_storage: Vec<String>,
    /// Columns of JSON whose `null` document counts as SQL NULL.
    #[serde(default)]
    pub null_documents: Vec<String>,
    /// Whether divergence samples may hold values.
    #[serde(default)]
    pub show_values: bool,
    /// Whether divergence samples hold hashes instead of keys.
    #[serde(default)]
    pub hash_keys: bool,
}

impl Default for Flip {
    fn default() -> Self {
        Self {
            max_pause: Duration::from_secs(3),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(1),
            heartbeat: Duration::from_millis(250),
            clock_skew_max: Duration::from_millis(250),
            without_lease: WithoutLease::ReadStorage,
        }
    }
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            max_entries: 1_000_000,
            max_bytes: 1 << 30,
        }
    }
}

impl Default for Applier {
    fn default() -> Self {
        Self {
            batch: 100,
            concurrency: 8,
            backoff_max: Duration::from_secs(30),
            quiet_period: Duration::from_secs(10),
        }
    }
}

fn capability_names<S: Serializer>(
    capabilities: &Capabilities,
    output: S,
) -> Result<S::Ok, S::Error> {
    output.collect_seq(
        Capability::ALL
            .into_iter()
            .filter(|capability| capabilities.has(*capability))
            .map(Capability::as_str),
    )
}
