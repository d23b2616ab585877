//! What the journal needs besides being paid: measuring, bounding, pruning, raising its floor.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Applier;
use crate::control::{TransitionKind, TransitionRequest};
use crate::journal::{self, Owed, Sounding};
use crate::sql::Fault;
use crate::stage::Stage;

/// How often the journal is measured.
const MEASURE: Duration = Duration::from_secs(1);
/// Rows pruned at once: short transactions, on no caller's path.
const PRUNE_BATCH: i64 = 5_000;
/// How often records past their retention are looked for.
const PRUNE_EVERY: u32 = 30;

impl Applier {
    /// Measures and looks for the floor every second, prunes every half minute.
    pub(super) async fn keep_house(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tick: u32 = 0;
        let mut sounding = Sounding::default();
        while !shutdown.is_cancelled() {
            if let Err(fault) = self.measure().await {
                tracing::debug!(%fault, "the journal could not be measured");
            }
            if let Err(fault) = sounding.look(self.legacy.db()).await {
                tracing::debug!(%fault, "the floor of the journal could not be raised");
            }
            if tick.is_multiple_of(PRUNE_EVERY)
                && let Err(fault) = self.prune().await
            {
                tracing::warn!(%fault, "pruning failed");
            }
            tick = tick.wrapping_add(1);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(MEASURE) => {}
            }
        }
    }

    async fn measure(&self) -> Result<(), Fault> {
        let owed = journal::owed(self.legacy.db()).await?;
        self.observer.owed(&owed, self.options.journal_entries_max);
        if self.control.snapshot().stage == Stage::RampDown {
            self.legacy.count_on().await?;
        }
        if owed.quarantined > 0 && journal::retry_written_again(self.legacy.db()).await? > 0 {
            self.owed.notify_one();
        }
        if owed.to_storage > self.options.journal_entries_max
            || owed.bytes > self.options.journal_bytes_max
        {
            self.fall_off(&owed).await;
        }
        Ok(())
    }

    /// Production is never taken down by its shadow: a full journal ends the shadowing, not the writes.
    async fn fall_off(&self, owed: &Owed) {
        let stage = self.control.snapshot().stage;
        if !matches!(stage, Stage::DualWrite | Stage::Shadow) {
            return;
        }
        let request = TransitionRequest {
            to: Stage::Off,
            kind: TransitionKind::Proxy,
            actor: "journal".to_owned(),
            reason: "the journal is full: storage is stale and needs a new backfill".to_owned(),
            ticket: None,
            expected_epoch: None,
            force: false,
            dry_run: false,
            evidence: json!({
                "owed": owed.to_storage,
                "max_entries": self.options.journal_entries_max,
                "bytes": owed.bytes,
                "max_bytes": self.options.journal_bytes_max,
                "oldest_seconds": owed.oldest_us / 1_000_000,
            }),
        };
        match self.control.transition(request).await {
            Ok(_) => tracing::error!(owed = owed.to_storage, "the journal is full: fell to off"),
            Err(error) => {
                tracing::error!(%error, "the journal is full and the stage could not fall to off")
            }
        }
    }

    async fn prune(&self) -> Result<(), Fault> {
        let db = self.legacy.db();
        let retention_us =
            i64::try_from(self.options.operations_retention.as_micros()).unwrap_or(i64::MAX);
        let before_us = db.now_us().await? - retention_us;
        while journal::prune_operations(db, before_us, PRUNE_BATCH).await? > 0 {}
        while journal::prune_void(db, PRUNE_BATCH).await? > 0 {}
        while journal::prune_departures(db, PRUNE_BATCH).await? > 0 {}
        while journal::prune_created(db, PRUNE_BATCH).await? > 0 {}
        journal::prune_floor(db).await?;
        Ok(())
    }
}
