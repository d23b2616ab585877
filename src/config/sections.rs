//! The checked sections. Sections whose keys are all plain are read straight into these types; those that name
//! secrets or depend on another key have a raw shape of their own in `raw`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::{Address, duration};
use crate::storage::{Capabilities, Capability};
use crate::telemetry::LogFormat;

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

/// `[compare]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compare {
    /// The share of reads that are repeated on the secondary, 0 to 1.
    pub sample: f64,
    /// How long a suspect waits before both sides are read again, when no entry of its key is open.
    #[serde(with = "duration")]
    pub recheck_delay: Duration,
    /// Reads on the secondary at a time; more are shed.
    pub background_max: usize,
}

/// `[backfill]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backfill {
    /// Rows a second at most, unless a run says otherwise; 0 is no limit.
    pub rate: u32,
    /// Entries outstanding at most.
    pub window: u32,
    /// It waits while the oldest payable entry is older than this.
    #[serde(with = "duration")]
    pub lag_max: Duration,
}

/// `[verify]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// A verify begins by itself when the last full one is older than this; 0 is never.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Rows a second at most; 0 is no limit.
    pub rate: u32,
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

/// `[limits]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A request's body, in bytes.
    pub body_bytes_max: usize,
    /// Nesting of a request's JSON.
    pub json_depth_max: usize,
    /// Rows of one write.
    pub rows_write_max: usize,
    /// Rows of one select's answer.
    pub rows_select_max: usize,
    /// Requests in work per door; more are refused with `overloaded`.
    pub in_flight_max: usize,
    /// How long a read may take.
    #[serde(with = "duration")]
    pub read_deadline: Duration,
    /// How long a write may take.
    #[serde(with = "duration")]
    pub write_deadline: Duration,
    /// How long a client may take for a request's headers. Needs a restart.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long a client may take for a request's body.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a connection may wait for its next request. Needs a restart.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long requests in flight may go on after SIGTERM. Needs a restart.
    #[serde(with = "duration")]
    pub shutdown_grace: Duration,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A filter as `tracing-subscriber` reads it: `info`, or `info,cutover::applier=debug`.
    pub level: String,
    /// How lines look. Needs a restart.
    pub format: LogFormat,
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

impl Default for Compare {
    fn default() -> Self {
        Self {
            sample: 1.0,
            recheck_delay: Duration::from_millis(500),
            background_max: 64,
        }
    }
}

impl Default for Backfill {
    fn default() -> Self {
        Self {
            rate: 0,
            window: 10_000,
            lag_max: Duration::from_secs(30),
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

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            json_depth_max: 32,
            rows_write_max: 1_000,
            rows_select_max: 10_000,
            in_flight_max: 512,
            read_deadline: Duration::from_secs(2),
            write_deadline: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
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
