//! The way out of a cycle: rows that hold each other's unique values are removed from storage and put again
//! in one transaction (P13).
//!
//! A removal in storage takes along what references the row there, if its foreign keys say so: rows that
//! nothing is owed of, and that nobody would ever pay again. So the same rows of legacy are looked up first,
//! taken into the claim, and put again in that same transaction: no moment without them is ever seen.

use std::sync::Arc;
use std::time::Duration;

use super::to_storage::{PARKED_DELAY, Reaction, SCHEMA_DELAY, cause, react};
use super::{Applier, Round};
use crate::backfill;
use crate::contract::Key;
use crate::journal::{Claim, Claimed, Direction, Parked};
use crate::sql::Fault;

/// Rows that a cycle may take along; a larger one is a person's to solve.
const SWEPT_MAX: usize = 1_000;
/// How often a cycle is tried that stands still because something else is owed of a row it takes along.
const HELD_TRIES: i64 = 100;

/// What became of a cycle.
struct Outcome {
    reaction: Reaction,
    /// Why it was not paid, if it was not.
    why: String,
    /// The entries that were taken along.
    along: Vec<Claimed>,
    /// Those that remove rows.
    removals: Vec<i64>,
}

/// Why a cycle was not tried: something else is owed of a row that it takes along.
const HELD: &str = "something else is owed of what hangs on them";
/// The same: it takes more along than `SWEPT_MAX`.
const TOO_MANY: &str = "too much hangs on them";

/// Whether the rows that a cycle takes along are ours to put again.
enum Along {
    /// They are in the claim now.
    Claimed(Vec<Claimed>),
    /// Something is owed of one: later.
    Held,
    /// They are too many.
    TooMany,
}

impl Outcome {
    /// Storage was not asked.
    fn untried(reaction: Reaction, why: &str) -> Self {
        Self {
            reaction,
            why: why.to_owned(),
            along: Vec::new(),
            removals: Vec::new(),
        }
    }
}

impl Applier {
    /// All parked entries at once: removed and put again in one transaction.
    pub(super) async fn break_cycle(&self) -> Round {
        let claim = match self.claim_parked(None).await {
            Ok(Some(claim)) => claim,
            Ok(None) => return Round::Idle,
            Err(fault) => return self.trouble("claiming parked entries", &fault),
        };
        let outcome = match self.take_along(&claim).await {
            Ok(Along::Claimed(along)) => self.replace(&claim, along).await,
            Ok(Along::Held)
                if claim
                    .entries
                    .iter()
                    .all(|entry| entry.attempts < HELD_TRIES) =>
            {
                Ok(Outcome::untried(Reaction::Release, HELD))
            }
            Ok(Along::Held) => Ok(Outcome::untried(Reaction::Quarantine, HELD)),
            Ok(Along::TooMany) => Ok(Outcome::untried(Reaction::Quarantine, TOO_MANY)),
            Err(fault) => Err(fault),
        };
        let done = match outcome {
            Ok(outcome) => self.end_cycle(&claim, outcome).await,
            Err(fault) => Err(fault),
        };
        match done {
            Ok(()) => Round::Paid,
            Err(fault) => self.trouble("breaking a cycle", &fault),
        }
    }

    async fn take_along(&self, claim: &Claim) -> Result<Along, Fault> {
        let schema = self.legacy.schema();
        let removed: Vec<_> = claim
            .entries
            .iter()
            .filter_map(|entry| {
                let table = schema.table(&entry.table)?;
                Some((Arc::clone(table), entry.key.clone()))
            })
            .collect();
        let Some(swept) = self.legacy.swept_along(&removed, SWEPT_MAX).await? else {
            return Ok(Along::TooMany);
        };
        if swept.rows.is_empty() {
            return Ok(Along::Claimed(Vec::new()));
        }
        let keys: Vec<(String, Key)> = swept
            .rows
            .iter()
            .map(|row| (row.table.name.clone(), row.key.clone()))
            .collect();
        let claimed = claim
            .extend(self.legacy.db(), Direction::ToStorage, &keys)
            .await?;
        let Some(mut claimed) = claimed else {
            return Ok(Along::Held);
        };
        // Nearest first, as they must come back: what they reference is there before them.
        claimed.sort_by_key(|entry| {
            keys.iter()
                .position(|(table, key)| *table == entry.table && *key == entry.key)
        });
        Ok(Along::Claimed(claimed))
    }

    /// Asks storage; says what is to be done.
    async fn replace(&self, claim: &Claim, along: Vec<Claimed>) -> Result<Outcome, Fault> {
        let together = Claim {
            entries: along.clone(),
            ..claim.clone()
        };
        let (named, cycle) = self.payable(claim).await?;
        let (_, swept) = self.payable(&together).await?;
        let outcome = self.storage.replace_all(&cycle, &swept).await;
        let entries = named.entries.iter().zip(&cycle);
        let removals = entries.filter(|(_, payment)| payment.row.is_none());
        Ok(Outcome {
            reaction: react(outcome.as_ref().copied()),
            why: outcome.as_ref().err().map(cause).unwrap_or_default(),
            along,
            removals: removals.map(|(entry, _)| entry.seq).collect(),
        })
    }

    /// Whether storage was never filled with some table's rows: then a refusal for a relation is not final.
    async fn rows_are_yet_to_come(&self) -> bool {
        let snapshot = self.control.snapshot();
        let schema = self.legacy.schema();
        let tables: Vec<String> = schema.tables.keys().cloned().collect();
        // Where that cannot be told, nothing is given up.
        snapshot.storage_stale
            && !backfill::pending(self.legacy.db(), &tables, snapshot.generation)
                .await
                .is_ok_and(|pending| pending.is_empty())
    }

    async fn end_cycle(&self, claim: &Claim, outcome: Outcome) -> Result<(), Fault> {
        let db = self.legacy.db();
        let mut seqs: Vec<i64> = claim.entries.iter().map(|entry| entry.seq).collect();
        let along: Vec<i64> = outcome.along.iter().map(|entry| entry.seq).collect();
        let (delay, parked) = match outcome.reaction {
            Reaction::Settle => {
                let all = [seqs, along].concat();
                return claim.settle(db, &all).await.map(drop);
            }
            Reaction::Leave => return Ok(()),
            Reaction::Release => (PARKED_DELAY, Parked::Constraint),
            Reaction::AwaitSchema => (SCHEMA_DELAY, Parked::Constraint),
            // What they wait for may be a row that no backfill has owed yet, however many hang on them.
            Reaction::Park | Reaction::Quarantine if self.rows_are_yet_to_come().await => {
                (PARKED_DELAY, Parked::Constraint)
            }
            Reaction::Park | Reaction::Quarantine => {
                // A removal may only have waited for those that are given up.
                if outcome.removals.len() < seqs.len() {
                    seqs.retain(|seq| !outcome.removals.contains(seq));
                    let parked = Some(Parked::Constraint);
                    claim
                        .release(db, &outcome.removals, PARKED_DELAY, parked)
                        .await?;
                }
                let entries = seqs.len();
                let (first, why) = (seqs.first(), outcome.why);
                tracing::error!(
                    entries,
                    first,
                    why,
                    "entries that no order can pay are quarantined"
                );
                (Duration::ZERO, Parked::Quarantined)
            }
        };
        claim.release(db, &seqs, delay, Some(parked)).await?;
        // Nothing happened to these: to pay them is harmless.
        claim.release(db, &along, Duration::ZERO, None).await
    }
}
