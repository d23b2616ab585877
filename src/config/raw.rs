//! The configuration as it is written: every key optional but the URLs, unknown keys refused, secrets not yet
//! looked up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::duration;
use super::guard::RawGuard;
use super::hot::{Backfill, Compare, Limits, Log, Verify};
use super::readiness::Readiness;
use super::sections::{Applier, Bypass, Control, Flip, Journal, Operations, TablePolicy, TlsFiles};
use super::token::{Access, Role};
use crate::stage::Stage;

/// The whole file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default = "campaign_db")]
    pub(super) db: String,
    #[serde(default)]
    pub(super) legacy: RawLegacy,
    #[serde(default)]
    pub(super) storage: RawStorage,
    #[serde(default)]
    pub(super) http: RawHttp,
    #[serde(default)]
    pub(super) amqp: RawAmqp,
    #[serde(default)]
    pub(super) admin: RawAdmin,
    #[serde(default)]
    pub(super) flag: RawFlag,
    #[serde(default)]
    pub(super) flip: Flip,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) operations: Operations,
    #[serde(default)]
    pub(super) journal: Journal,
    #[serde(default)]
    pub(super) compare: Compare,
    #[serde(default)]
    pub(super) readiness: Readiness,
    #[serde(default)]
    pub(super) guard: RawGuard,
    #[serde(default)]
    pub(super) backfill: Backfill,
    #[serde(default)]
    pub(super) verify: Verify,
    #[serde(default)]
    pub(super) applier: Applier,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) tables: Vec<TablePolicy>,
}

#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLegacy {
    pub(super) url: Option<RawSecret>,
    pub(super) bypass: Bypass,
    pub(super) connections_max: u32,
    pub(super) background_connections_max: u32,
    #[serde(deserialize_with = "duration::deserialize")]
    pub(super) acquire_timeout: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub(super) statement_timeout: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub(super) lock_timeout: Duration,
}

#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStorage {
    pub(super) transport: RawTransport,
    pub(super) amqp_url: Option<RawSecret>,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) base_url: Option<RawSecret>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) identity: Option<TlsFiles>,
    pub(super) capabilities: Vec<String>,
    #[serde(deserialize_with = "duration::deserialize")]
    pub(super) rpc_deadline: Duration,
}

#[derive(Clone, Copy, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawTransport {
    Amqp,
    Http,
}

#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) listen: SocketAddr,
    pub(super) tokens: Vec<RawDoorToken>,
    pub(super) tls: Option<TlsFiles>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDoorToken {
    pub(super) name: String,
    pub(super) token: Option<RawSecret>,
    pub(super) hash: Option<String>,
    pub(super) tables: Option<Vec<String>>,
    #[serde(default = "read_only")]
    pub(super) access: Access,
}

#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAmqp {
    pub(super) enabled: bool,
    pub(super) url: Option<RawSecret>,
    pub(super) queue: String,
    pub(super) prefetch: u16,
    #[serde(deserialize_with = "duration::deserialize")]
    pub(super) max_age: Duration,
}

#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAdmin {
    pub(super) listen: SocketAddr,
    pub(super) tokens: Vec<RawAdminToken>,
    pub(super) protect_metrics: bool,
    pub(super) tls: Option<TlsFiles>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdminToken {
    pub(super) name: String,
    pub(super) token: Option<RawSecret>,
    pub(super) hash: Option<String>,
    #[serde(default = "viewer")]
    pub(super) role: Role,
}

#[derive(Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawFlag {
    pub(super) file: PathBuf,
    pub(super) pin: Option<Stage>,
}

/// A secret as written: itself, or where to find it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum RawSecret {
    /// The text itself.
    Plain(String),
    /// `{ env = "NAME" }`.
    Env(String),
    /// `{ file = "path" }`.
    File(PathBuf),
}

impl std::fmt::Debug for RawSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawSecret(…)")
    }
}

impl<'de> Deserialize<'de> for RawSecret {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = RawSecret;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string, { env = \"NAME\" } or { file = \"path\" }")
    }

    fn visit_str<E>(self, text: &str) -> Result<RawSecret, E> {
        Ok(RawSecret::Plain(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawSecret, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Found {
            Env(String),
            File(PathBuf),
        }
        Ok(match Found::deserialize(MapAccessDeserializer::new(map))? {
            Found::Env(name) => RawSecret::Env(name),
            Found::File(path) => RawSecret::File(path),
        })
    }
}

impl Default for RawLegacy {
    fn default() -> Self {
        Self {
            url: None,
            bypass: Bypass::Capture,
            connections_max: 16,
            background_connections_max: 12,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(4),
        }
    }
}

impl Default for RawStorage {
    fn default() -> Self {
        Self {
            transport: RawTransport::Amqp,
            amqp_url: None,
            exchange: String::new(),
            routing_key: "storage.query".to_owned(),
            base_url: None,
            ca_file: None,
            identity: None,
            // What the plan shows: select, insert and update by equality, which need no capability.
            capabilities: Vec::new(),
            rpc_deadline: Duration::from_millis(1500),
        }
    }
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            tokens: Vec::new(),
            tls: None,
        }
    }
}

impl Default for RawAmqp {
    fn default() -> Self {
        Self {
            enabled: false,
            url: None,
            queue: "cutover.query".to_owned(),
            prefetch: 256,
            max_age: Duration::from_secs(30),
        }
    }
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self {
            listen: loopback(8081),
            tokens: Vec::new(),
            protect_metrics: false,
            tls: None,
        }
    }
}

impl Default for RawFlag {
    fn default() -> Self {
        Self {
            file: PathBuf::from("flag.toml"),
            pin: None,
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn campaign_db() -> String {
    "campaign_db".to_owned()
}

fn read_only() -> Access {
    Access::Read
}

fn viewer() -> Role {
    Role::Viewer
}
