//! URLs of databases and brokers, which hold passwords.
//!
//! The text is only handed out by `expose`, named so that a reader of a call sees what leaves. Everything that
//! prints or serializes an address (logs, `/admin/config`, the digest) gets it without password and parameters.

use std::fmt;

use serde::{Serialize, Serializer};

/// A URL whose password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    pub(super) fn new(url: String) -> Self {
        Self(url)
    }

    /// The whole URL, password included: for opening a connection.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL without password and without parameters (which may hold one).
    #[must_use]
    pub fn redacted(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return "(not a URL)".to_owned();
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let Some((user, host)) = authority.rsplit_once('@') else {
            return format!("{scheme}://{rest}");
        };
        let user = user.split(':').next().unwrap_or_default();
        format!("{scheme}://{user}@{host}{path}")
    }

    /// Scheme and host alone.
    #[must_use]
    pub fn origin(&self) -> String {
        let redacted = self.redacted();
        let (scheme, rest) = redacted.split_once("://").unwrap_or(("", &redacted));
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}")
    }

    /// The part before `://`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.split("://").next().unwrap_or_default()
    }

    /// Whether both are the same virtual host of the same broker, as far as their names tell.
    #[must_use]
    pub fn is_same_broker(&self, other: &Self) -> bool {
        self.broker() == other.broker()
    }

    /// `(host, port, virtual host)` of an AMQP URI (<https://www.rabbitmq.com/docs/uri-spec>).
    fn broker(&self) -> (String, String, String) {
        let default_port = if self.scheme() == "amqps" {
            "5671"
        } else {
            "5672"
        };
        let redacted = self.redacted();
        let rest = redacted.split_once("://").map_or("", |(_, rest)| rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "%2f"));
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let (host, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port),
            _ => (host, default_port),
        };
        let host = match host.to_ascii_lowercase().as_str() {
            "localhost" | "[::1]" => "127.0.0.1".to_owned(),
            other => other.to_owned(),
        };
        (
            host,
            port.to_owned(),
            path.to_ascii_lowercase().replace("%2f", "/"),
        )
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.redacted())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::new(url.to_owned())
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = address("postgres://user:pa@ss@host:5432/db?password=other");
        assert_eq!(url.to_string(), "postgres://user@host:5432/db");
        assert!(!format!("{url:?}").contains("pa@ss"));
        assert_eq!(
            address("sqlite://data/legacy.db").to_string(),
            "sqlite://data/legacy.db"
        );
    }

    #[test]
    fn an_origin_has_neither_user_nor_path() {
        let hook = address("http://bot:pw@hooks.internal:8000/T0/secret?x=1");
        assert_eq!(hook.origin(), "http://hooks.internal:8000");
    }

    #[test]
    fn a_broker_is_recognised_under_its_other_names() {
        let a = address("amqp://guest:guest@127.0.0.1:5672/%2f");
        assert!(a.is_same_broker(&address("amqp://someone@localhost")));
        assert!(a.is_same_broker(&address("amqp://localhost:5672/%2F")));
        assert!(!a.is_same_broker(&address("amqp://localhost/other")));
        assert!(!a.is_same_broker(&address("amqp://localhost:5673/%2f")));
    }
}
