//! How many replicas must see the same before it counts.
//!
//! One replica behind a broken link sees an outage that is its own. From three replicas on a majority tells
//! it from storage's; with two nobody could. A confirmed divergence is a fact, whoever found it.

use serde::{Deserialize, Serialize};

use crate::telemetry::Trigger;

/// Whose word is enough.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// Any replica's.
    Any,
    /// That of more than half of the replicas that hold a lease.
    Majority,
}

/// From how many replicas on a majority is asked for by itself.
const MAJORITY_FROM: usize = 3;

/// The replicas that hold a lease, this one included, and what they see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Electorate {
    /// For each other replica, the triggers that fired there.
    others: Vec<Vec<Trigger>>,
}

impl Electorate {
    /// Of the votes of every *other* replica that holds a lease, each as [`ballot`](Self::ballot) wrote it.
    pub fn of<'a>(votes: impl IntoIterator<Item = &'a str>) -> Self {
        let read = |ballot: &str| {
            let names: Vec<&str> = ballot.split(',').collect();
            let all = Trigger::ALL.iter().copied();
            all.filter(|one| names.contains(&one.as_str())).collect()
        };
        Self {
            others: votes.into_iter().map(read).collect(),
        }
    }

    /// The triggers that fired, as one text.
    #[must_use]
    pub fn ballot(fired: &[Trigger]) -> String {
        let names: Vec<&str> = fired.iter().map(|one| one.as_str()).collect();
        names.join(",")
    }

    /// How many replicas there are.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.others.len() + 1
    }

    /// How many say so, given that this replica does.
    #[must_use]
    pub fn votes(&self, trigger: Trigger) -> usize {
        let others = self.others.iter();
        others.filter(|fired| fired.contains(&trigger)).count() + 1
    }

    /// Whether that is enough, given that this replica says so.
    #[must_use]
    pub fn carries(&self, trigger: Trigger, quorum: Option<Quorum>) -> bool {
        let quorum = match (trigger, quorum) {
            (Trigger::Inconsistency, _) => Quorum::Any,
            (_, Some(quorum)) => quorum,
            (_, None) if self.replicas() >= MAJORITY_FROM => Quorum::Majority,
            (_, None) => Quorum::Any,
        };
        match quorum {
            Quorum::Any => true,
            Quorum::Majority => self.votes(trigger) * 2 > self.replicas(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_three_is_not_enough_unless_configured_or_a_divergence() {
        let alone = Electorate::of(["", "failure_rate"]);
        assert!(!alone.carries(Trigger::Unavailable, None));
        assert!(alone.carries(Trigger::Unavailable, Some(Quorum::Any)));
        assert!(alone.carries(Trigger::Inconsistency, Some(Quorum::Majority)));
        assert!(alone.carries(Trigger::FailureRate, None));
    }

    #[test]
    fn of_two_either_is_enough_unless_configured() {
        let two = Electorate::of([""]);
        assert!(two.carries(Trigger::Unavailable, None));
        assert!(!two.carries(Trigger::Unavailable, Some(Quorum::Majority)));
        assert!(Electorate::default().carries(Trigger::Unavailable, Some(Quorum::Majority)));
    }

    #[test]
    fn a_ballot_is_read_as_it_was_written_and_unknown_names_are_nobody() {
        let ballot = Electorate::ballot(Trigger::ALL);
        let electorate = Electorate::of([ballot.as_str(), "of_a_later_version,"]);
        assert_eq!(electorate.replicas(), 3);
        for trigger in Trigger::ALL {
            assert_eq!(electorate.votes(*trigger), 2);
        }
    }
}
