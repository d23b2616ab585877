//! Paying storage, with legacy as the authority (`dual_write`, `shadow`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::removals::Part;
use super::turns::Turn;
use super::{Applier, Round};
use crate::compare::row_diff;
use crate::contract::{Code, Row};
use crate::evidence;
use crate::journal::{self, Claim, Claimed, Direction, Parked};
use crate::schema::Schema;
use crate::sql::Fault;
use crate::stage::Backend;
use crate::storage::{Paid, StorageError};
use crate::telemetry;

/// What is to be done with a claimed entry after its payment was tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Reaction {
    /// Paid: settle it.
    Settle,
    /// Certainly not paid: give it back and try later.
    Release,
    /// A constraint refused it: try again after others were paid (P13).
    Park,
    /// Storage does not have the table or the column: it waits for storage's schema.
    AwaitSchema,
    /// Nobody can pay it.
    Quarantine,
    /// May have been paid, or may still be: leave the claim until its deadline, then pay the row as it is.
    Leave,
}

/// The one decision from outcome to reaction.
pub(super) fn react(outcome: Result<(), &StorageError>) -> Reaction {
    match outcome {
        Ok(()) => Reaction::Settle,
        Err(StorageError::Unavailable(_)) => Reaction::Release,
        Err(StorageError::InDoubt(_)) => Reaction::Leave,
        Err(StorageError::Rejected(error)) => match error.code {
            Code::Conflict | Code::Constraint => Reaction::Park,
            Code::UnknownTable | Code::UnknownColumn => Reaction::AwaitSchema,
            // Refused for being late: it did not happen.
            Code::DeadlineExceeded | Code::Overloaded | Code::BackendUnavailable => {
                Reaction::Release
            }
            _ => Reaction::Quarantine,
        },
    }
}

/// Why a payment failed, for the log: a refusal's message might quote the row, so its code and constraint are told.
pub(super) fn cause(error: &StorageError) -> String {
    let StorageError::Rejected(error) = error else {
        return error.to_string();
    };
    let details = error.details.as_ref();
    let constraint = details.and_then(|details| details.get("constraint")?.as_str());
    match constraint {
        Some(constraint) => format!("{} ({constraint})", error.code.as_str()),
        None => error.code.as_str().to_owned(),
    }
}

/// Whether a batch was answered in time; none when it was not sent, which says nothing of its size.
fn batch(results: &[Result<Paid, StorageError>]) -> Option<Batch> {
    let keys = results.len();
    let said = results.iter().filter_map(|result| match result {
        Ok(_) => Some(Batch::Answered { keys }),
        Err(StorageError::Unavailable(_)) => None,
        Err(StorageError::InDoubt(_)) => Some(Batch::Late { keys }),
        Err(StorageError::Rejected(error)) if error.code == Code::DeadlineExceeded => {
            Some(Batch::Late { keys })
        }
        Err(StorageError::Rejected(_)) => Some(Batch::Answered { keys }),
    });
    said.max()
}

/// What a claim comes to, and how many of its entries were settled; or what was being done when it failed.
type Paying = Result<(Round, usize), (&'static str, Fault)>;

const OWING: &str = "owing what a removal may have taken along";

fn during(doing: &'static str) -> impl FnOnce(Fault) -> (&'static str, Fault) {
    move |fault| (doing, fault)
}

/// How long a parked entry rests before it is tried again.
pub(super) const PARKED_DELAY: Duration = Duration::from_millis(100);
/// How long an entry rests for which storage has no place yet. Others are paid meanwhile.
pub(super) const SCHEMA_DELAY: Duration = Duration::from_secs(2);

impl Applier {
    /// Claims and pays one batch of entries that are due.
    pub(super) async fn pay_storage(&self, turn: &mut Turn<'_>) -> Round {
        match self.claim(Direction::ToStorage).await {
            Ok(Some(claim)) => {
                if claim.is_full {
                    self.owed.notify_one();
                    turn.pass_on();
                }
                turn.during(self.pay_claim(&claim, false)).await.0
            }
            Ok(None) => Round::Idle,
            Err(fault) => self.trouble("claiming", &fault),
        }
    }

    /// Tries every parked entry once more with the current row, and none twice: they may be so many that the first
    /// has rested again before the last was tried. When a full round over all open entries paid nothing, they
    /// stand in each other's way (or nothing will ever help): a cycle is removed and put again in one transaction
    /// where the service can, else it is quarantined.
    pub(super) async fn pay_parked(&self, shutdown: &CancellationToken) -> Round {
        let (mut tried, mut paid, mut begun_us) = (0, 0, None);
        loop {
            if shutdown.is_cancelled() {
                return Round::Idle;
            }
            match self.claim_parked(begun_us).await {
                Ok(Some(claim)) => {
                    begun_us.get_or_insert(claim.made_us);
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

    /// Pays a claim; returns the round and how many entries were settled.
    async fn pay_claim(&self, claim: &Claim, was_parked: bool) -> (Round, usize) {
        match self.pay_in_order(claim, was_parked).await {
            Ok(paid) => paid,
            Err((doing, fault)) => (self.trouble(doing, &fault), 0),
        }
    }

    /// What is put first, then the removals that wait for nothing.
    async fn pay_in_order(&self, claim: &Claim, was_parked: bool) -> Paying {
        let strangers = self.witness_strangers(claim).await;
        strangers.map_err(during("recording writes past the proxy"))?;
        let payable = self.payable(claim).await;
        let (claim, payments) = payable.map_err(during("reading rows to pay"))?;
        let schema = self.legacy.schema();
        let all = Part { claim, payments };
        let (_, back) = all.pointed_at(&schema, |entry, row| entry.removing && row.is_some());
        self.owe_hanging(&all.claim, &back)
            .await
            .map_err(during(OWING))?;
        let (removals, others) = all.apart(&schema);
        let (round, settled) = self.pay_part(&schema, others, was_parked).await?;
        if removals.payments.is_empty() {
            return Ok((round, settled));
        }
        let divided = self.held(&schema, removals).await;
        let (held, free) = divided.map_err(during("asking what removals wait for"))?;
        let waiting: Vec<i64> = held.claim.entries.iter().map(|entry| entry.seq).collect();
        let park = HashMap::from([(Reaction::Park, waiting)]);
        self.carry_out(&held.claim, park, was_parked)
            .await
            .map_err(during("letting removals wait"))?;
        let (then, removed) = self.pay_part(&schema, free, was_parked).await?;
        Ok((round.and(then), settled + removed))
    }

    /// Pays a part of a claim; returns the round and how many entries were settled.
    async fn pay_part(&self, schema: &Schema, part: Part, was_parked: bool) -> Paying {
        if part.payments.is_empty() {
            return Ok((Round::Idle, 0));
        }
        let (seqs, removed) = part.pointed_at(schema, |_, row| row.is_none());
        let Part { claim, payments } = part;
        journal::note_removals(self.legacy.db(), claim.token, &seqs)
            .await
            .map_err(during("noting removals"))?;
        let rows: Vec<Option<Row>> = payments.iter().map(|payment| payment.row.clone()).collect();
        let started = Instant::now();
        let results = self.storage.pay(payments).await;
        let failed = results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .find(|error| !matches!(error, StorageError::Rejected(_)));
        self.observer
            .storage(telemetry::Op::Batch, started.elapsed(), failed);
        if let Some(batch) = batch(&results) {
            self.batch.learn(batch);
        }
        let mut by_reaction: HashMap<Reaction, Vec<i64>> = HashMap::new();
        let mut unavailable = false;
        for ((entry, row), result) in claim.entries.iter().zip(&rows).zip(&results) {
            let reaction = react(result.as_ref().map(drop));
            unavailable |= reaction == Reaction::Release;
            self.report(entry, row.as_ref(), result, reaction);
            by_reaction.entry(reaction).or_default().push(entry.seq);
        }
        let settled = by_reaction.get(&Reaction::Settle).map_or(0, Vec::len);
        self.owe_hanging(&claim, &removed)
            .await
            .map_err(during(OWING))?;
        self.carry_out(&claim, by_reaction, was_parked)
            .await
            .map_err(during("settling"))?;
        let round = match (unavailable, settled) {
            (true, _) => Round::Unavailable,
            (false, 0) => Round::Idle,
            (false, _) => Round::Paid,
        };
        Ok((round, settled))
    }

    /// Puts on record who wrote past the proxy, before the entry that shows it is settled.
    async fn witness_strangers(&self, claim: &Claim) -> Result<(), Fault> {
        let mut strangers: HashMap<&str, (usize, i64)> = HashMap::new();
        for entry in claim.entries.iter().filter(|entry| entry.bypassed > 0) {
            let (rows, last_us) = strangers.entry(&entry.table).or_default();
            // Claimed again after a failure, it was counted already.
            *rows += if entry.attempts == 1 {
                entry.bypassed
            } else {
                0
            };
            *last_us = (*last_us).max(entry.created_us);
        }
        for (table, (rows, last_us)) in strangers {
            evidence::record_bypass(self.legacy.db(), table, rows, last_us).await?;
            self.observer.bypassed(table, rows);
        }
        Ok(())
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
        if let (Reaction::Quarantine, Err(error)) = (reaction, result) {
            let (table, seq, why) = (&entry.table, entry.seq, cause(error));
            tracing::error!(
                table,
                seq,
                why,
                "storage refuses a row for good: its entry is quarantined"
            );
        }
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
                Reaction::AwaitSchema => {
                    self.drift.suspect();
                    claim.release(db, &seqs, SCHEMA_DELAY, None).await?;
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
            Self::Park | Self::AwaitSchema => telemetry::Payment::Parked,
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
    fn what_storage_has_no_place_for_waits_for_its_schema() {
        for code in [Code::UnknownTable, Code::UnknownColumn] {
            let error = StorageError::Rejected(Error::new(code, ""));
            assert_eq!(react(Err(&error)), Reaction::AwaitSchema);
        }
    }

    #[test]
    fn one_late_entry_makes_a_batch_late_and_one_that_was_never_sent_says_nothing() {
        let paid = || Ok(Paid { stored: None });
        let away = || Err(StorageError::Unavailable(String::new()));
        let doubt = || Err(StorageError::InDoubt(String::new()));
        assert_eq!(batch(&[away(), away()]), None);
        assert_eq!(batch(&[paid(), away()]), Some(Batch::Answered { keys: 2 }));
        assert_eq!(batch(&[doubt(), paid()]), Some(Batch::Late { keys: 2 }));
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
