//! Which changes of the settings let more happen before the guard acts. Each is on record: after an
//! incident somebody will ask.

use std::time::Duration;

use super::{Limit, Outage, Quorum, Settings};

/// One setting that became weaker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weakening {
    /// Its key in the configuration.
    pub key: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// Collects them.
#[derive(Default)]
struct Found(Vec<Weakening>);

/// What became weaker from one to the other.
#[must_use]
pub fn weakenings(from: &Settings, to: &Settings) -> Vec<Weakening> {
    let mut found = Found::default();
    found.limit("failure_rate", from.failure_rate, to.failure_rate);
    found.limit("inconsistency", from.inconsistency, to.inconsistency);
    found.limit("latency_delta", from.latency_delta, to.latency_delta);
    found.outage(from.unavailable, to.unavailable);
    found.more(
        "quorum",
        strictness(from.quorum),
        strictness(to.quorum),
        quorum,
    );
    found.more(
        "evaluate_every",
        from.evaluate_every,
        to.evaluate_every,
        duration,
    );
    found.more(
        "canary",
        !from.canary_writes,
        !to.canary_writes,
        |reads_only| match reads_only {
            true => "reads only".to_owned(),
            false => "reads and writes".to_owned(),
        },
    );
    found.0
}

/// How many must agree: any, the default, a majority.
fn strictness(quorum: Option<Quorum>) -> u8 {
    match quorum {
        Some(Quorum::Any) => 0,
        None => 1,
        Some(Quorum::Majority) => 2,
    }
}

fn quorum(strictness: u8) -> String {
    ["any", "by the number of replicas", "majority"][usize::from(strictness.min(2))].to_owned()
}

fn duration(duration: Duration) -> String {
    format!("{duration:?}")
}

impl Found {
    fn limit(&mut self, name: &str, from: Limit, to: Limit) {
        let key = |key: &str| format!("{name}.{key}");
        self.more(
            &key("threshold"),
            from.threshold,
            to.threshold,
            |threshold| threshold.to_string(),
        );
        self.more(&key("window"), from.window, to.window, duration);
        self.more(
            &key("min_samples"),
            from.min_samples,
            to.min_samples,
            |samples| samples.to_string(),
        );
        self.more(
            &key("consecutive"),
            from.consecutive,
            to.consecutive,
            |windows| windows.to_string(),
        );
        self.less_strong(&key("action"), from.action, to.action);
    }

    fn outage(&mut self, from: Outage, to: Outage) {
        self.more(
            "unavailable.failures",
            from.failures,
            to.failures,
            |failures| failures.to_string(),
        );
        self.more("unavailable.over", from.over, to.over, duration);
        self.less_strong("unavailable.action", from.action, to.action);
    }

    fn less_strong(&mut self, key: &str, from: super::Action, to: super::Action) {
        if to < from {
            self.add(key, from.as_str().to_owned(), to.as_str().to_owned());
        }
    }

    fn more<T: PartialOrd + Copy>(&mut self, key: &str, from: T, to: T, told: fn(T) -> String) {
        if to > from {
            self.add(key, told(from), told(to));
        }
    }

    fn add(&mut self, key: &str, from: String, to: String) {
        let key = format!("guard.{key}");
        self.0.push(Weakening { key, from, to });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Action;

    fn keys(from: &Settings, to: &Settings) -> Vec<String> {
        let found = weakenings(from, to);
        found.into_iter().map(|one| one.key).collect()
    }

    #[test]
    fn everything_that_lets_more_happen_is_a_weakening_and_its_reverse_is_none() {
        let strict = Settings {
            canary_writes: true,
            quorum: Some(Quorum::Any),
            ..Settings::default()
        };
        let mut weak = strict.clone();
        weak.failure_rate.threshold = 0.5;
        weak.failure_rate.min_samples = 1000;
        weak.latency_delta.window *= 2;
        weak.latency_delta.consecutive = 9;
        weak.inconsistency.action = Action::Observe;
        weak.unavailable.over *= 2;
        weak.unavailable.failures = 50;
        weak.quorum = None;
        weak.evaluate_every *= 10;
        weak.canary_writes = false;
        assert_eq!(keys(&strict, &weak).len(), 10);
        assert!(keys(&weak, &strict).is_empty());
        assert!(keys(&weak, &weak).is_empty());
        let first = &weakenings(&strict, &weak)[0];
        assert_eq!(
            (first.key.as_str(), first.from.as_str(), first.to.as_str()),
            ("guard.failure_rate.threshold", "0.01", "0.5")
        );
    }
}
