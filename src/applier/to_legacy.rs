//! Paying legacy, with storage as the authority (`live`, `ramp_down`), and resolving intents.

use std::sync::Arc;
use std::time::Duration;

use super::turns::Turn;
use super::{Applier, Round};
use crate::compare::row_diff;
use crate::contract::Key;
use crate::journal::{self, Claim, Claimed, ClaimedIntent, Direction, GiveBack, OperationState};
use crate::legacy::{Finish, Image, Paid};
use crate::sql::Fault;
use crate::storage::{Capability, StorageError, UnixMs};
use crate::telemetry::Op;

/// How long an entry rests whose row could not be read or applied.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often a removal waits for rows that refer to its row, where legacy's own foreign keys would act on them. They
/// may do so in a circle, or in storage as well.
const HUNG_ON_TRIES: i64 = 50;

impl Applier {
    /// Claims and pays one batch of `copy` entries towards legacy. They are paid one by one, so the others need not
    /// wait for them.
    pub(super) async fn pay_legacy(&self, turn: &mut Turn<'_>) -> Round {
        let claim = match self.claim(Direction::ToLegacy).await {
            Ok(Some(claim)) => claim,
            Ok(None) => return Round::Idle,
            Err(fault) => return self.trouble("claiming", &fault),
        };
        if claim.is_full {
            self.owed.notify_one();
        }
        turn.pass_on();
        let mut paid = false;
        for entry in &claim.entries {
            match self.pay_entry(&claim, entry).await {
                Ok(()) => paid = true,
                Err(error) => {
                    tracing::warn!(
                        seq = entry.seq,
                        %error,
                        "an entry towards legacy could not be paid yet"
                    );
                    let released = claim
                        .release(self.legacy.db(), &[entry.seq], RETRY_DELAY, None)
                        .await;
                    if let Err(fault) = released {
                        return self.trouble("releasing", &fault);
                    }
                }
            }
        }
        if paid {
            Round::Paid
        } else {
            Round::Unavailable
        }
    }

    /// The deadline of a read that starts now.
    fn deadline(&self) -> UnixMs {
        UnixMs::after(self.options.rpc_deadline)
    }

    async fn pay_entry(&self, claim: &Claim, entry: &Claimed) -> Result<(), PayError> {
        let schema = self.legacy.schema();
        let table = schema.table(&entry.table).ok_or(PayError::UnknownTable)?;
        let mut rows = self
            .storage
            .rows_by_keys(
                table,
                std::slice::from_ref(&entry.key),
                claim.epoch,
                self.deadline(),
            )
            .await?;
        let image = Image {
            table: Arc::clone(table),
            key: entry.key.clone(),
            row: rows.remove(&entry.key),
        };
        self.pay_image(claim, entry, &image).await
    }

    async fn pay_image(
        &self,
        claim: &Claim,
        entry: &Claimed,
        image: &Image,
    ) -> Result<(), PayError> {
        let looked = self.legacy.owe_hanging(claim, entry, image).await?;
        let goes_alone = image.row.is_some() || self.legacy.silences_triggers();
        if !goes_alone && entry.attempts < HUNG_ON_TRIES && self.legacy.is_hung_on(image).await? {
            return Err(PayError::HungOn);
        }
        match self.legacy.pay(claim, entry.seq, image, looked).await? {
            Paid::Done | Paid::NotOurs => Ok(()),
            // It may be claimed again at once, to be read again.
            Paid::Overtaken => {
                let seqs = [entry.seq];
                let again = claim.release(self.legacy.db(), &seqs, Duration::ZERO, None);
                Ok(again.await?)
            }
        }
    }

    /// Takes over intents whose request can no longer run, learns from storage what became of them, and
    /// copies storage's rows to legacy: all keys of an intent in one commit (P12). What legacy refuses is
    /// given back.
    pub(super) async fn resolve_intents(&self) -> Round {
        let mut round = Round::Idle;
        loop {
            let claimed = journal::claim_intents(
                self.legacy.db(),
                self.lease(),
                self.options.clock_skew_max,
                &self.low_water_of_intents,
            )
            .await;
            let intent = match claimed {
                Ok(Some(intent)) => intent,
                Ok(None) => return round,
                Err(fault) => return self.trouble("claiming intents", &fault),
            };
            match self.resolve(&intent).await {
                Ok(()) => round = Round::Paid,
                Err(Unresolved::Storage(error)) => {
                    tracing::warn!(%error, op_id = %intent.op_id, "an intent could not be resolved yet");
                    return Round::Unavailable;
                }
                Err(Unresolved::Legacy(fault)) => {
                    return self.trouble("resolving an intent", &fault);
                }
            }
        }
    }

    async fn resolve(&self, intent: &ClaimedIntent) -> Result<(), Unresolved> {
        let Found { applied, images } = self.ask_storage(intent).await?;
        let (state, images) = match applied {
            Some(true) => (OperationState::Done, images),
            // Legacy has what it had when the intent locked its keys, so there is nothing to copy.
            Some(false) => {
                self.suspect_changes(&images).await?;
                (OperationState::NotApplied, Vec::new())
            }
            // The service cannot say: nobody will ever know.
            None => (OperationState::Unknown, images),
        };
        let finish = Finish {
            token: intent.token,
            keys: &intent.keys,
            op_id: intent.op_id,
            state,
            reply: None,
            epoch: intent.epoch,
        };
        match self.legacy.finish(&finish, &images).await {
            Ok(_) => {
                tracing::info!(op_id = %intent.op_id, state = state.as_str(), "an intent was resolved");
                Ok(())
            }
            Err(fault) => match fault.rule() {
                Some(rule) => Ok(self.refused(intent, rule).await?),
                None => Err(fault.into()),
            },
        }
    }

    /// What storage says of the attempt, and the rows that it has now.
    async fn ask_storage(&self, intent: &ClaimedIntent) -> Result<Found, Unresolved> {
        let schema = self.legacy.schema();
        let (mut applied, mut images) = (None, Vec::new());
        for table in schema.tables.values() {
            let keys: Vec<Key> = intent
                .keys
                .iter()
                .filter(|(name, _)| *name == table.name)
                .map(|(_, key)| key.clone())
                .collect();
            if keys.is_empty() {
                continue;
            }
            let mut rows = if self.storage.capabilities().has(Capability::Resolve) {
                let resolved = self
                    .storage
                    .resolve(table, &keys, intent.attempt, intent.epoch, self.deadline())
                    .await?;
                applied = Some(applied.unwrap_or(false) || resolved.applied);
                resolved.rows
            } else {
                self.storage
                    .rows_by_keys(table, &keys, intent.epoch, self.deadline())
                    .await?
            };
            images.extend(keys.into_iter().map(|key| Image {
                table: Arc::clone(table),
                row: rows.remove(&key),
                key,
            }));
        }
        Ok(Found { applied, images })
    }

    /// An attempt that did not take effect must have left the rows alone; what differs is looked at again
    /// once the intent is gone.
    async fn suspect_changes(&self, images: &[Image]) -> Result<(), Fault> {
        for image in images {
            let key = std::slice::from_ref(&image.key);
            let row = self
                .legacy
                .rows(&image.table, key)
                .await?
                .remove(&image.key);
            let same = match (&row, &image.row) {
                (Some(legacy), Some(storage)) => row_diff(&image.table, storage, legacy).is_equal(),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !same && let Ok(key) = serde_json::from_str(&image.key.0) {
                self.comparer.suspect(&image.table, key, Op::Update);
            }
        }
        Ok(())
    }

    /// Legacy refuses what storage has. While others are under way that may hold the value, the intent
    /// waits for its next turn; then it is given back (P13).
    async fn refused(&self, intent: &ClaimedIntent, rule: &str) -> Result<(), Fault> {
        let db = self.legacy.db();
        let beside = journal::open_beside(db, intent.token, intent.ran_until_us).await?;
        if beside.under_way > 0 {
            tracing::warn!(op_id = %intent.op_id, rule, "legacy refuses what storage has; waiting for other writes");
            return Ok(());
        }
        let refused = GiveBack {
            token: intent.token,
            keys: &intent.keys,
            op_id: intent.op_id,
            rule,
            epoch: intent.epoch,
        };
        if journal::give_back(db, &refused).await? {
            self.comparer.refused(&intent.keys, rule).await;
        }
        Ok(())
    }
}

/// Why an entry towards legacy rests.
#[derive(Debug, thiserror::Error)]
enum PayError {
    #[error("its table is not configured any more")]
    UnknownTable,
    #[error("rows that refer to its row come first")]
    HungOn,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Legacy(#[from] Fault),
}

/// What storage says of an intent.
struct Found {
    /// Whether the attempt took effect; none when storage cannot say.
    applied: Option<bool>,
    /// Its rows of the intent's keys.
    images: Vec<Image>,
}

/// Why an intent stays open.
#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Legacy(#[from] Fault),
}
