//! From what is written to what holds: secrets are looked up, and every rule between keys is checked.
//!
//! All broken rules are collected: whoever mends a file wants to do it once.

use std::collections::HashSet;
use std::time::Duration;

use super::problem::Finding;
use super::raw::{Raw, RawAmqp, RawStorage, RawTransport};
use super::{Admin, AmqpDoor, Config, Flag, Hot, Http, Legacy, Storage, Transport};
use crate::storage::{Capabilities, Capability};

/// Checks everything.
pub(super) fn check(raw: Raw, environment: &[(String, String)]) -> Result<Config, Vec<Finding>> {
    let mut checker = Checker {
        environment,
        findings: Vec::new(),
    };
    let config = checker.config(raw);
    match config {
        Some(config) if checker.findings.is_empty() => Ok(config),
        _ => Err(checker.findings),
    }
}

/// Collects what is wrong while it checks.
pub(super) struct Checker<'a> {
    pub(super) environment: &'a [(String, String)],
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn config(&mut self, raw: Raw) -> Option<Config> {
        self.numbers(&raw);
        self.durations(&raw);
        self.tables(&raw);
        let http_tokens = self.door_tokens(&raw);
        let admin_tokens = self.admin_tokens(&raw);
        let amqp = self.amqp(&raw.amqp);
        let storage = self.storage(&raw.storage);
        let url = self.address(
            "legacy.url",
            raw.legacy.url.as_ref(),
            &["postgres", "postgresql", "sqlite"],
        );
        self.loops(&amqp, &storage);
        let guard = self.guard(raw.guard, &raw.tables);
        Some(Config {
            db: raw.db,
            legacy: Legacy {
                url: url?,
                bypass: raw.legacy.bypass,
                connections_max: raw.legacy.connections_max,
                background_connections_max: raw.legacy.background_connections_max,
                acquire_timeout: raw.legacy.acquire_timeout,
                statement_timeout: raw.legacy.statement_timeout,
                lock_timeout: raw.legacy.lock_timeout,
            },
            storage: storage?,
            http: Http {
                listen: raw.http.listen,
                tls: raw.http.tls,
            },
            amqp,
            admin: Admin {
                listen: raw.admin.listen,
                protect_metrics: raw.admin.protect_metrics,
                tls: raw.admin.tls,
            },
            flag: Flag {
                file: raw.flag.file,
            },
            flip: raw.flip,
            control: raw.control,
            operations: raw.operations,
            journal: raw.journal,
            applier: raw.applier,
            tables: raw.tables,
            hot: Hot {
                compare: raw.compare,
                readiness: raw.readiness,
                guard,
                backfill: raw.backfill,
                verify: raw.verify,
                limits: raw.limits,
                log: raw.log,
                pin: raw.flag.pin,
                http_tokens,
                admin_tokens,
            },
        })
    }

    fn storage(&mut self, raw: &RawStorage) -> Option<Storage> {
        let capabilities = match Capabilities::parse(raw.capabilities.iter().map(String::as_str)) {
            Ok(capabilities) => capabilities,
            Err(name) => {
                let known: Vec<&str> = Capability::ALL.iter().map(|one| one.as_str()).collect();
                self.found(
                    "storage.capabilities",
                    format!("no such capability: {name:?}"),
                    &format!("capabilities are all, {}", known.join(", ")),
                );
                Capabilities::default()
            }
        };
        let transport = match raw.transport {
            RawTransport::Amqp => {
                if raw.routing_key.is_empty() {
                    self.found(
                        "storage.routing_key",
                        "is empty",
                        "name the service's queue, such as \"storage.query\"",
                    );
                }
                Transport::Amqp {
                    amqp_url: self.address(
                        "storage.amqp_url",
                        raw.amqp_url.as_ref(),
                        &["amqp", "amqps"],
                    )?,
                    exchange: raw.exchange.clone(),
                    routing_key: raw.routing_key.clone(),
                }
            }
            RawTransport::Http => Transport::Http {
                base_url: self.address(
                    "storage.base_url",
                    raw.base_url.as_ref(),
                    &["http", "https"],
                )?,
            },
        };
        Some(Storage {
            transport,
            ca_file: raw.ca_file.clone(),
            identity: raw.identity.clone(),
            capabilities,
            rpc_deadline: raw.rpc_deadline,
        })
    }

    fn amqp(&mut self, raw: &RawAmqp) -> Option<AmqpDoor> {
        if !raw.enabled {
            return None;
        }
        let url = self.address("amqp.url", raw.url.as_ref(), &["amqp", "amqps"])?;
        Some(AmqpDoor {
            url,
            queue: raw.queue.clone(),
            prefetch: raw.prefetch,
            max_age: raw.max_age,
        })
    }

    /// The door must not consume what the proxy itself sends to the service.
    fn loops(&mut self, door: &Option<AmqpDoor>, storage: &Option<Storage>) {
        let (Some(door), Some(storage)) = (door, storage) else {
            return;
        };
        let Transport::Amqp {
            amqp_url,
            exchange,
            routing_key,
        } = &storage.transport
        else {
            return;
        };
        // With another exchange only the broker's bindings tell where a routing key leads.
        if exchange.is_empty() && *routing_key == door.queue && amqp_url.is_same_broker(&door.url) {
            self.found(
                "amqp.queue",
                format!("is storage.routing_key as well ({routing_key:?}): the proxy would consume its own calls"),
                "let the service consume another queue and name that one in storage.routing_key",
            );
        }
    }

    /// Numbers that may not be zero, and shares.
    fn numbers(&mut self, raw: &Raw) {
        let positive = [
            (
                "legacy.connections_max",
                u64::from(raw.legacy.connections_max),
            ),
            (
                "legacy.background_connections_max",
                u64::from(raw.legacy.background_connections_max),
            ),
            ("amqp.prefetch", u64::from(raw.amqp.prefetch)),
            ("journal.max_entries", raw.journal.max_entries),
            ("journal.max_bytes", raw.journal.max_bytes),
            ("backfill.window", u64::from(raw.backfill.window)),
            ("compare.background_max", raw.compare.background_max as u64),
            ("applier.batch", u64::from(raw.applier.batch)),
            ("applier.concurrency", u64::from(raw.applier.concurrency)),
            ("limits.body_bytes_max", raw.limits.body_bytes_max as u64),
            ("limits.json_depth_max", raw.limits.json_depth_max as u64),
            ("limits.rows_write_max", raw.limits.rows_write_max as u64),
            ("limits.rows_select_max", raw.limits.rows_select_max as u64),
            ("limits.in_flight_max", raw.limits.in_flight_max as u64),
        ];
        for (key, value) in positive {
            if value == 0 {
                self.found(key, "is 0", "give at least 1");
            }
        }
        // serde_json itself stops at 128 levels.
        if raw.limits.json_depth_max > 100 {
            self.found("limits.json_depth_max", "is over 100", "give at most 100");
        }
        if !(0.0..=1.0).contains(&raw.compare.sample) {
            self.found(
                "compare.sample",
                format!("is {}, not a share", raw.compare.sample),
                "give a number from 0.0 (compare nothing) to 1.0 (compare everything)",
            );
        }
    }

    /// Durations that may not be zero, and those that another must exceed.
    fn durations(&mut self, raw: &Raw) {
        let positive = [
            ("legacy.acquire_timeout", raw.legacy.acquire_timeout),
            ("legacy.statement_timeout", raw.legacy.statement_timeout),
            ("legacy.lock_timeout", raw.legacy.lock_timeout),
            ("storage.rpc_deadline", raw.storage.rpc_deadline),
            ("amqp.max_age", raw.amqp.max_age),
            ("control.heartbeat", raw.control.heartbeat),
            ("operations.retention", raw.operations.retention),
            ("readiness.verify_max_age", raw.readiness.verify_max_age),
            (
                "readiness.latency_increase_max",
                raw.readiness.latency_increase_max,
            ),
            ("readiness.drift_every", raw.readiness.drift_every),
            ("applier.backoff_max", raw.applier.backoff_max),
            ("limits.read_deadline", raw.limits.read_deadline),
            ("limits.write_deadline", raw.limits.write_deadline),
            ("limits.header_timeout", raw.limits.header_timeout),
            ("limits.body_timeout", raw.limits.body_timeout),
            ("limits.idle_timeout", raw.limits.idle_timeout),
        ];
        for (key, value) in positive {
            // PostgreSQL's timeouts are in milliseconds, and 0 would mean none.
            if value < Duration::from_millis(1) {
                self.found(key, "is shorter than 1ms", "give a duration such as \"1s\"");
            }
        }
        let doubt = raw.storage.rpc_deadline + raw.control.clock_skew_max;
        if raw.flip.max_pause <= doubt {
            self.found(
                "flip.max_pause",
                format!(
                    "{:?} does not exceed storage.rpc_deadline + control.clock_skew_max ({doubt:?}): one payment in doubt would defeat every advance",
                    raw.flip.max_pause
                ),
                "raise flip.max_pause or lower storage.rpc_deadline",
            );
        }
        if raw.control.lease < raw.control.heartbeat * 2 {
            self.found(
                "control.lease",
                format!(
                    "{:?} is less than two heartbeats of {:?}: one late heartbeat would lose the lease",
                    raw.control.lease, raw.control.heartbeat
                ),
                "raise control.lease or lower control.heartbeat",
            );
        }
        if raw.limits.write_deadline <= raw.storage.rpc_deadline {
            self.found(
                "limits.write_deadline",
                format!(
                    "{:?} does not exceed storage.rpc_deadline ({:?}): a write in live would be given up before storage answers",
                    raw.limits.write_deadline, raw.storage.rpc_deadline
                ),
                "raise limits.write_deadline or lower storage.rpc_deadline",
            );
        }
    }

    fn tables(&mut self, raw: &Raw) {
        if raw.tables.is_empty() {
            self.found(
                "tables",
                "no table is named",
                "add [[tables]] with name = \"campaigns\" for every table the proxy serves",
            );
        }
        let mut seen = HashSet::new();
        for (index, table) in raw.tables.iter().enumerate() {
            let key = format!("tables.{index}.name");
            if table.name.is_empty() {
                self.found(&key, "is empty", "name a table of the legacy database");
            } else if !seen.insert(&table.name) {
                self.found(
                    &key,
                    format!("{:?} is named twice", table.name),
                    "keep one [[tables]] of that name",
                );
            }
        }
    }

    pub(super) fn found(&mut self, key: &str, message: impl Into<String>, hint: &str) {
        self.findings.push(Finding {
            key: key.to_owned(),
            message: message.into(),
            hint: Some(hint.to_owned()),
        });
    }
}
