//! What the proxy cannot promise over a service that lacks a capability, and how far it may go then.

use super::{Capabilities, Capability};
use crate::stage::Stage;

/// A promise that is weaker than it would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    /// The capability that would give it.
    pub missing: Capability,
    /// What is weaker, for people.
    pub weakened: &'static str,
}

impl Capabilities {
    /// Every promise that is weaker for want of a capability, in the order of the capabilities.
    #[must_use]
    pub fn weakened(&self) -> Vec<Promise> {
        let missing = Capability::ALL.into_iter().filter(|one| !self.has(*one));
        missing
            .map(|missing| Promise {
                missing,
                weakened: without(missing),
            })
            .collect()
    }

    /// The last stage that can be reached. Without `delete` there are no tombstones, so storage can hold rows
    /// that legacy does not; without `ranges` no verify can see them, so nothing vouches for storage. In either
    /// case it must not become the authority.
    #[must_use]
    pub fn highest_stage(&self) -> Stage {
        let vouched_for = [Capability::Delete, Capability::Ranges];
        if vouched_for.into_iter().all(|needed| self.has(needed)) {
            Stage::Complete
        } else {
            Stage::Shadow
        }
    }
}

fn without(capability: Capability) -> &'static str {
    match capability {
        Capability::Delete => {
            "deletes cannot be carried over: deleted rows stay in storage, and no stage past shadow is allowed"
        }
        Capability::Count => "counts are not compared, and are unsupported once storage answers",
        Capability::Upsert => {
            "a row is put by update, then insert: two calls, and a doubt between them costs a quiet period"
        }
        Capability::Operators => {
            "conditions beyond equality are not compared, and are unsupported once storage answers; rows are read one key at a time"
        }
        Capability::OrderBy => {
            "ordered reads are not compared, and are unsupported once storage answers"
        }
        Capability::Transaction => {
            "writes of several rows, and transactions, are unsupported once storage answers; a cycle of unique values is quarantined"
        }
        Capability::Ranges => {
            "verify asks for legacy's keys only: a row that storage has and legacy never had is not found, so nothing vouches for storage and no stage past shadow is allowed"
        }
        Capability::Batch => "each payment is a call of its own: the backlog drains more slowly",
        Capability::Deadline => {
            "a late write can still commit: after a doubt the key waits for a quiet period, and a write that is later still is found by verify only"
        }
        Capability::AttemptId => {
            "a duplicated request can take effect twice: after a doubt the key waits for a quiet period"
        }
        Capability::Fencing => {
            "an old request that overtakes a newer one is refused by deadline and attempt only"
        }
        Capability::Describe => {
            "drift knows storage's tables and columns only: that it is stricter than legacy (a shorter type, NOT NULL, unique and foreign keys) is met when it refuses a row"
        }
        Capability::Resolve => {
            "what became of a doubtful write is never learnt from storage: the key waits for a quiet period and is copied"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_service_weakens_nothing_and_goes_all_the_way() {
        assert_eq!(Capabilities::all().weakened(), []);
        assert_eq!(Capabilities::all().highest_stage(), Stage::Complete);
    }

    #[test]
    fn without_delete_or_ranges_storage_never_becomes_the_authority() {
        let least = Capabilities::default();
        assert_eq!(least.highest_stage(), Stage::Shadow);
        for needed in [Capability::Delete, Capability::Ranges] {
            let without = Capabilities::all().without(needed);
            assert_eq!(without.highest_stage(), Stage::Shadow);
        }
        assert_eq!(least.weakened().len(), Capability::ALL.len());
        let only_delete_missing = Capabilities::all().without(Capability::Delete);
        assert_eq!(
            only_delete_missing.weakened()[0].missing,
            Capability::Delete
        );
    }
}
