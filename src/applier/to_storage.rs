//! Paying storage, with legacy as the authority (`dual_write`, `shadow`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Applier, Round};
use crate::backfill;
use crate::compare::row_diff;
use crate::contract::{AttemptId, Code, Key, Row};
use crate::journal::{self, Claim, Claimed, Direction, Parked};
use crate::sql::Fault;
use crate::stage::Backend;
use crate::storage::{Paid, Payment, StorageError, UnixMs};
use crate::telemetry;

/// What is to be done with a claimed entry after its payment was tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reaction {
    /// Paid: settle it.
    Settle,
    /// Certainly not paid: give it back and try later.
    Release,
    /// A constraint refused it: try again after others were paid (P13).
    Park,
    /// Nobody can pay it.
    Quarantine,
    /// May have been paid, or may still be: leave the claim until its deadline, then pay the row as it is.
    Leave,
}

/// The one decision from outcome to reaction.
fn react(outcome: Result<(), &StorageError>) -> Reaction {
    match outcome {
        Ok(()) => Reaction::Settle,
        Err(StorageError::Unavailable(_)) => Reaction::Release,
        Err(StorageError::InDoubt(_)) => Reaction::Leave,
        Err(StorageError::Rejected(error)) => match error.code {
            Code::Conflict | Code::Constraint => Reaction::Park,
            // Refused for being late: it did not happen.
            Code::DeadlineExceeded | Code::Overloaded | Code::BackendUnavailable => {
                Reaction::Release
            }
            _ => Reaction::Quarantine,
        },
    }
}

/// How long a parked entry rests before it is tried again.
const PARKED_DELAY: Duration = Duration::from_millis(100);

impl Applier {
    /// Claims and pays one batch of entries whose turn it is.
    pub(super) async fn pay_storage(&self) -> Round {
        let options = self.claim_options(Direction::ToStorage);
        match journal::claim(self.legacy.db(), &options).await {
            Ok(Some(claim)) => self.pay_claim(&claim, false).await.0,
            Ok(None) => Round::Idle,
            Err(fault) => self.trouble("claiming", &fault),
        }
    }

    /// Tries every parked entry once more with the current row. When a full round over all open entries
    /// paid nothing, they stand in each other's way (or nothing will ever help): a cycle is removed and
    /// put again in one transaction where the service can, else it is quarantined.
    pub(super) async fn pay_parked(&self) -> Round {
        let options = self.claim_options(Direction::ToStorage);
        let (mut tried, mut paid) = (0, 0);
        loop {
            match journal::claim_parked(self.legacy.db(), &options).await {
                Ok(Some(claim)) => {
                    let (round, settled) = self.pay_claim(&claim, true).await;
                    tried += claim.entries.len();
                    paid += settled;
                    if round == Round::Unavailable {
                        return round;
                    }
                }
                Ok(None) => break,
                Err(fault) => return self.trouble("claiming parked entries", &fault),
            }
        }
        if tried == 0 || paid > 0 {
            return if paid > 0 { Round::Paid } else { Round::Idle };
        }
        match journal::owed(self.legacy.db()).await {
            Ok(owed)
                if owed.to_storage - owed.quarantined
                    <= i64::try_from(tried).unwrap_or(i64::MAX) =>
            {
                tokio::time::sleep(PARKED_DELAY).await;
                self.break_cycle().await
            }
            Ok(_) => Round::Idle,
            Err(fault) => self.trouble("counting what is owed", &fault),
        }
    }

    /// All parked entries at once: removed and put again in one transaction.
    async fn break_cycle(&self) -> Round {
        let options = self.claim_options(Direction::ToStorage);
        let claim = match journal::claim_parked(self.legacy.db(), &options).await {
            Ok(Some(claim)) => claim,
            Ok(None) => return Round::Idle,
            Err(fault) => return self.trouble("claiming parked entries", &fault),
        };
        let payments = match self.payments(&claim).await {
            Ok(payments) => payments,
            Err(fault) => return self.trouble("reading rows to pay", &fault),
        };
        let outcome = self.storage.replace_all(&payments).await;
        let seqs: Vec<i64> = claim.entries.iter().map(|entry| entry.seq).collect();
        let done = match react(outcome.as_ref().copied()) {
            Reaction::Settle => claim.settle(self.legacy.db(), &seqs).await.map(drop),
            Reaction::Leave => Ok(()),
            Reaction::Release => {
                claim
                    .release(
                        self.legacy.db(),
                        &seqs,
                        PARKED_DELAY,
                        Some(Parked::Constraint),
                    )
                    .await
            }
            // What they wait for may be a row that no backfill has owed yet.
            Reaction::Park if self.rows_are_yet_to_come().await => {
                let (db, parked) = (self.legacy.db(), Some(Parked::Constraint));
                match claim.release(db, &seqs, PARKED_DELAY, parked).await {
                    Ok(()) => return Round::Idle,
                    Err(fault) => Err(fault),
                }
            }
            Reaction::Park | Reaction::Quarantine => {
                tracing::error!(
                    entries = seqs.len(),
                    "entries that no order can pay are quarantined"
                );
                claim
                    .release(
                        self.legacy.db(),
                        &seqs,
                        Duration::ZERO,
                        Some(Parked::Quarantined),
                    )
                    .await
            }
        };
        match done {
            Ok(()) => Round::Paid,
            Err(fault) => self.trouble("settling", &fault),
        }
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

    /// Pays a claim; returns the round and how many entries were settled.
    async fn pay_claim(&self, claim: &Claim, was_parked: bool) -> (Round, usize) {
        for entry in &claim.entries {
            self.observer.bypassed(&entry.table, entry.bypassed);
        }
        let payments = match self.payments(claim).await {
            Ok(payments) => payments,
            Err(fault) => return (self.trouble("reading rows to pay", &fault), 0),
        };
        let rows: Vec<Option<Row>> = payments.iter().map(|payment| payment.row.clone()).collect();
        let started = Instant::now();
        let results = self.storage.pay(payments).await;
        let failed = results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .find(|error| !matches!(error, StorageError::Rejected(_)));
        self.observer
            .storage(telemetry::Op::Batch, started.elapsed(), failed);
        let mut by_reaction: HashMap<Reaction, Vec<i64>> = HashMap::new();
        let mut unavailable = false;
        for ((entry, row), result) in claim.entries.iter().zip(&rows).zip(&results) {
            let reaction = react(result.as_ref().map(drop));
            unavailable |= reaction == Reaction::Release;
            self.report(entry, row.as_ref(), result, reaction);
            by_reaction.entry(reaction).or_default().push(entry.seq);
        }
        let settled = by_reaction.get(&Reaction::Settle).map_or(0, Vec::len);
        if let Err(fault) = self.carry_out(claim, by_reaction, was_parked).await {
            return (self.trouble("settling", &fault), 0);
        }
        let round = match (unavailable, settled) {
            (true, _) => Round::Unavailable,
            (false, 0) => Round::Idle,
            (false, _) => Round::Paid,
        };
        (round, settled)
    }

    /// Counts the payment, and looks closer when storage says that it stored another row.
    fn report(
        &self,
        entry: &Claimed,
        row: Option<&Row>,
        result: &Result<Paid, StorageError>,
        reaction: Reaction,
    ) {
        self.observer
            .paid(Backend::Storage, entry, reaction.label());
        let (
            Ok(Paid {
                stored: Some(stored),
            }),
            Some(row),
        ) = (result, row)
        else {
            return;
        };
        let schema = self.legacy.schema();
        let Some(table) = schema.table(&entry.table) else {
            return;
        };
        if row_diff(table, row, stored).is_equal() {
            self.observer.compared(
                &entry.table,
                telemetry::Op::Upsert,
                telemetry::Comparison::Match,
            );
        } else if let Ok(key) = serde_json::from_str(&entry.key.0) {
            self.comparer.suspect(table, key, telemetry::Op::Upsert);
        }
    }

    async fn carry_out(
        &self,
        claim: &Claim,
        by_reaction: HashMap<Reaction, Vec<i64>>,
        was_parked: bool,
    ) -> Result<(), Fault> {
        let db = self.legacy.db();
        for (reaction, seqs) in by_reaction {
            match reaction {
                Reaction::Settle => drop(claim.settle(db, &seqs).await?),
                Reaction::Release => {
                    let parked = was_parked.then_some(Parked::Constraint);
                    claim.release(db, &seqs, Duration::ZERO, parked).await?;
                }
                Reaction::Park => {
                    claim
                        .release(db, &seqs, PARKED_DELAY, Some(Parked::Constraint))
                        .await?;
                }
                Reaction::Quarantine => {
                    claim
                        .release(db, &seqs, Duration::ZERO, Some(Parked::Quarantined))
                        .await?;
                }
                Reaction::Leave => {}
            }
        }
        Ok(())
    }

    /// The authority's rows of a claim, as payments; an absent row is a removal.
    async fn payments(&self, claim: &Claim) -> Result<Vec<Payment>, Fault> {
        let schema = self.legacy.schema();
        let mut by_table: HashMap<&str, Vec<Key>> = HashMap::new();
        for entry in &claim.entries {
            by_table
                .entry(&entry.table)
                .or_default()
                .push(entry.key.clone());
        }
        let mut rows: HashMap<(&str, Key), Row> = HashMap::new();
        for (name, keys) in by_table {
            let Some(table) = schema.table(name) else {
                continue;
            };
            for (key, row) in self.legacy.rows(table, &keys).await? {
                rows.insert((name, key), row);
            }
        }
        claim
            .entries
            .iter()
            .map(|entry| {
                self.payment(
                    claim,
                    entry,
                    rows.remove(&(entry.table.as_str(), entry.key.clone())),
                )
            })
            .collect()
    }

    fn payment(&self, claim: &Claim, entry: &Claimed, row: Option<Row>) -> Result<Payment, Fault> {
        let schema = self.legacy.schema();
        let table = schema.table(&entry.table).ok_or_else(|| {
            Fault::Unexpected(format!("table {} is not configured any more", entry.table))
        })?;
        Ok(Payment {
            table: std::sync::Arc::clone(table),
            key: entry.key.clone(),
            row,
            attempt: AttemptId::fresh(),
            deadline: UnixMs(claim.deadline_us / 1000),
            epoch: claim.epoch,
            fence: None,
        })
    }

    pub(super) fn trouble(&self, what: &str, fault: &Fault) -> Round {
        tracing::warn!(%fault, "applier: {what} failed");
        Round::Unavailable
    }
}

impl Reaction {
    fn label(self) -> telemetry::Payment {
        match self {
            Self::Settle => telemetry::Payment::Applied,
            Self::Release => telemetry::Payment::Unavailable,
            Self::Park => telemetry::Payment::Parked,
            Self::Quarantine => telemetry::Payment::Quarantined,
            Self::Leave => telemetry::Payment::InDoubt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Error;

    #[test]
    fn only_doubt_keeps_a_claim_until_its_deadline() {
        assert_eq!(react(Ok(())), Reaction::Settle);
        assert_eq!(
            react(Err(&StorageError::InDoubt(String::new()))),
            Reaction::Leave
        );
        assert_eq!(
            react(Err(&StorageError::Unavailable(String::new()))),
            Reaction::Release
        );
    }

    #[test]
    fn a_constraint_parks_and_nonsense_is_quarantined() {
        let rejected = |code| StorageError::Rejected(Error::new(code, ""));
        assert_eq!(react(Err(&rejected(Code::Conflict))), Reaction::Park);
        assert_eq!(react(Err(&rejected(Code::Constraint))), Reaction::Park);
        assert_eq!(
            react(Err(&rejected(Code::TypeMismatch))),
            Reaction::Quarantine
        );
        assert_eq!(
            react(Err(&rejected(Code::DeadlineExceeded))),
            Reaction::Release
        );
    }
}
