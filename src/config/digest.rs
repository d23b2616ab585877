//! What two configurations have in common: the digest that replicas publish, and what a reload would change.
//!
//! Both look at the configuration as a flat list of keys and values. The digest leaves out secrets, so that it
//! may be published, and what may rightly differ from replica to replica (where it listens, how it logs).

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Config, Transport};

/// What a reload does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reload {
    /// Changed keys that take effect at once.
    pub applied: Vec<String>,
    /// Changed keys that wait for a restart.
    pub needs_restart: Vec<String>,
}

/// Keys, or sections, that each replica has for itself.
const OWN: [&str; 6] = [
    "http.listen",
    "http.tls",
    "admin.listen",
    "admin.tls",
    "flag.file",
    "log",
];

/// Keys of hot sections whose consumers read them once, when they start.
const READ_AT_START: [&str; 5] = [
    "compare.background_max",
    "limits.header_timeout",
    "limits.idle_timeout",
    "limits.shutdown_grace",
    "log.format",
];

/// Keys, or sections, that are read anew for every use.
const HOT: [&str; 10] = [
    "compare",
    "guard",
    "readiness",
    "backfill",
    "verify",
    "limits",
    "log",
    "flag.pin",
    "http.tokens",
    "admin.tokens",
];

impl Config {
    /// SHA-256, in hexadecimal, of everything that replicas must agree on; without secrets.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for (key, value) in self.keys() {
            if !OWN.iter().any(|own| is_within(&key, own)) {
                hasher.update(format!("{key}={value}\n"));
            }
        }
        hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Which keys differ, and what becomes of them when `new` is loaded while this configuration runs.
    #[must_use]
    pub fn reloadable_diff(&self, new: &Self) -> Reload {
        let (old_keys, new_keys) = (self.keys(), new.keys());
        let mut changed: Vec<String> = old_keys
            .keys()
            .chain(new_keys.keys().filter(|key| !old_keys.contains_key(*key)))
            .filter(|key| old_keys.get(*key) != new_keys.get(*key))
            .cloned()
            .collect();
        for (key, differs) in self.secret_differences(new) {
            if differs && !changed.iter().any(|known| known == key) {
                changed.push(key.to_owned());
            }
        }
        changed.sort();
        let (applied, needs_restart) = changed.into_iter().partition(|key| is_hot(key));
        Reload {
            applied,
            needs_restart,
        }
    }

    /// Every key with its value, as the file spells keys; secrets are hidden.
    fn keys(&self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::new();
        // Strings, numbers and lists of them always serialize.
        let value = serde_json::to_value(self).unwrap_or_default();
        flatten("", &value, &mut keys);
        keys.into_iter()
            .map(|(key, value)| (spelled(&key), value))
            .collect()
    }

    /// The configuration for people to look at, key by key; without secrets.
    #[must_use]
    pub fn view(&self) -> serde_json::Value {
        serde_json::json!(self.keys())
    }

    fn secret_differences(&self, new: &Self) -> [(&'static str, bool); 7] {
        let amqp = |config: &Self| config.amqp.as_ref().map(|door| door.url.clone());
        [
            ("legacy.url", self.legacy.url != new.legacy.url),
            ("storage.amqp_url", self.amqp_url() != new.amqp_url()),
            ("storage.base_url", self.base_url() != new.base_url()),
            ("amqp.url", amqp(self) != amqp(new)),
            (
                "guard.webhook",
                self.hot.guard.webhook != new.hot.guard.webhook,
            ),
            ("http.tokens", self.hot.http_tokens != new.hot.http_tokens),
            (
                "admin.tokens",
                self.hot.admin_tokens != new.hot.admin_tokens,
            ),
        ]
    }

    fn amqp_url(&self) -> Option<&super::Address> {
        match &self.storage.transport {
            Transport::Amqp { amqp_url, .. } => Some(amqp_url),
            Transport::Http { .. } => None,
        }
    }

    fn base_url(&self) -> Option<&super::Address> {
        match &self.storage.transport {
            Transport::Http { base_url } => Some(base_url),
            Transport::Amqp { .. } => None,
        }
    }
}

/// Tables of keys are walked; lists are values.
fn flatten(path: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    let Value::Object(entries) = value else {
        keys.insert(path.to_owned(), value.to_string());
        return;
    };
    for (name, value) in entries {
        let path = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        flatten(&path, value, keys);
    }
}

/// The file's spelling of a path through the checked types.
fn spelled(path: &str) -> String {
    let moved = [
        ("hot.pin", "flag.pin"),
        ("hot.http_tokens", "http.tokens"),
        ("hot.admin_tokens", "admin.tokens"),
        ("storage.transport.amqp.", "storage."),
        ("storage.transport.http.", "storage."),
        ("hot.", ""),
    ];
    for (inner, outer) in moved {
        if let Some(rest) = path.strip_prefix(inner) {
            return format!("{outer}{rest}");
        }
    }
    path.to_owned()
}

fn is_hot(key: &str) -> bool {
    HOT.iter().any(|hot| is_within(key, hot)) && !READ_AT_START.contains(&key)
}

fn is_within(key: &str, section: &str) -> bool {
    key.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
