//! What the callers of one replica waited lately, as it tells the others with its heartbeat.
//!
//! Percentiles of several replicas cannot be added up, and need not be: that callers wait longer is found
//! where it is worst, so each replica's own number is held against the baseline.

use serde::{Deserialize, Serialize};

/// Callers' latency since `off` was left, for one kind of call on one replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallersLately {
    /// `read` or `write`.
    pub kind: String,
    /// How many calls it rests on.
    pub samples: i64,
    /// 95th percentile, microseconds.
    pub p95_us: i64,
}

impl CallersLately {
    /// As a heartbeat carries it.
    #[must_use]
    pub fn tell(all: &[Self]) -> String {
        serde_json::to_string(all).unwrap_or_default()
    }

    /// What a heartbeat carried. Nothing from a version that tells nothing, or something else.
    #[must_use]
    pub fn hear(told: &str) -> Vec<Self> {
        serde_json::from_str(told).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_and_what_is_not_understood_is_nothing() {
        let read = CallersLately {
            kind: "read".to_owned(),
            samples: 20,
            p95_us: 5_100,
        };
        let told = CallersLately::tell(std::slice::from_ref(&read));
        assert_eq!(CallersLately::hear(&told), [read]);
        assert_eq!(CallersLately::hear(""), []);
        assert_eq!(CallersLately::hear("{"), []);
    }
}
