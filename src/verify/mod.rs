//! Verify: holds every row of one side against the other.
//!
//! Rows change all the time, so a difference is only a suspect until it is rechecked as the comparer does
//! (I10). A full verify that finds nothing, under one epoch, is what makes the secondary trustworthy again:
//! rows that change after they were looked at are owed under that same epoch.

mod report;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::compare::row_diff;
use crate::contract::Key;
use crate::control::Verdict;
use crate::evidence;
use crate::repository::Parts;
use crate::schema::Table;
use crate::shadow::Checked;
use crate::stage::Backend;
use crate::walk::{Line, Progress, Walk, WalkError, values_of};

pub use report::{TableVerdict, VerifyReport};

/// Suspects that are rechecked at once.
const CHECKS_AT_ONCE: usize = 8;

/// What to verify, for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyOptions {
    /// These tables; all when empty.
    pub tables: Vec<String>,
    /// Whether confirmed differences are owed to the secondary.
    pub repair: bool,
    /// Rows in memory at a time, of each side.
    pub page: u64,
    /// Who asked, for the audit.
    pub actor: String,
    /// Why, for the audit.
    pub reason: String,
}

/// Compares both sides row by row; a full and clean verify makes the secondary count as whole again.
///
/// # Errors
/// See [`WalkError`]; what was confirmed until then is written down.
pub async fn run(
    parts: &Parts,
    options: VerifyOptions,
    progress: &Progress,
    cancel: CancellationToken,
) -> Result<VerifyReport, WalkError> {
    let verify = Verify {
        walk: Walk::begin(parts, cancel).await?,
        parts,
        repair: options.repair,
        page: options.page.max(1),
    };
    let tables = verify.walk.tables(&options.tables)?;
    let lines = progress.begin(&tables);
    let mut report = VerifyReport::new(tables.len() == parts.legacy.schema().tables.len());
    for (table, line) in tables.iter().zip(&lines) {
        line.running(verify.walk.estimate(table).await);
        let mut verdict = TableVerdict::new(&table.name);
        verify
            .legacy_against_storage(table, line, &mut verdict)
            .await?;
        verify.only_in_storage(table, &mut verdict).await?;
        line.done();
        report.tables.push(verdict);
    }
    if !verify.walk.walks_storage() {
        let missed = "rows that only storage has: the service has no capability `ranges`";
        report.unchecked.push(missed.to_owned());
    }
    report.quarantined = verify.walk.quarantined().await?;
    report.clean = report.finds_nothing();
    if report.clean && report.unchecked.is_empty() {
        verify.trust(&tables).await?;
    }
    if report.full {
        verify.remember(&options, &report).await?;
    }
    if report.clean && report.full && report.unchecked.is_empty() {
        verify.declare_whole(&options, &mut report).await?;
    }
    Ok(report)
}

/// A verify under way.
struct Verify<'a> {
    walk: Walk,
    parts: &'a Parts,
    repair: bool,
    page: u64,
}

impl Verify<'_> {
    /// Every row of legacy against storage's row of its key.
    async fn legacy_against_storage(
        &self,
        table: &Arc<Table>,
        line: &Line,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        let mut after = None;
        loop {
            let page = self
                .walk
                .legacy_page(table, after.as_ref(), self.page)
                .await?;
            let keys: Vec<Key> = page.rows.iter().map(|(key, _)| key.clone()).collect();
            let stored = self.walk.storage_rows(table, &keys).await?;
            let mut suspects = Vec::new();
            for (key, row) in &page.rows {
                let equal = stored.get(key).is_some_and(|stored| {
                    let (authority, secondary) = match self.walk.secondary() {
                        Backend::Storage => (row, stored),
                        Backend::Legacy => (stored, row),
                    };
                    row_diff(table, authority, secondary).is_equal()
                });
                if equal {
                    verdict.matched += 1;
                } else {
                    suspects.push(key.clone());
                }
            }
            verdict.legacy_rows += keys.len() as u64;
            if !self.walk.walks_storage() {
                verdict.storage_rows += stored.len() as u64;
            }
            self.check(table, suspects, verdict).await?;
            line.add(keys.len());
            let Some(next) = page.next else {
                return Ok(());
            };
            after = Some(next);
        }
    }

    /// What legacy has no row of, where storage can be walked.
    async fn only_in_storage(
        &self,
        table: &Arc<Table>,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        if !self.walk.walks_storage() {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = self
                .walk
                .storage_page(table, after.as_ref(), self.page)
                .await?;
            verdict.storage_rows += page.rows.len() as u64;
            let keys = page.rows.into_iter().map(|(key, _)| key).collect();
            let suspects = self.walk.not_in_legacy(table, keys).await?;
            self.check(table, suspects, verdict).await?;
            let Some(next) = page.next else {
                return Ok(());
            };
            after = Some(next);
        }
    }

    /// Rechecks suspects; counts what became of them and owes what is confirmed, where asked to.
    async fn check(
        &self,
        table: &Arc<Table>,
        suspects: Vec<Key>,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        let mut rows = Vec::with_capacity(suspects.len());
        for key in suspects {
            rows.push((values_of(&key)?, key));
        }
        let mut checks = stream::iter(rows)
            .map(|(values, key)| self.check_one(table, values, key))
            .buffer_unordered(CHECKS_AT_ONCE);
        let mut confirmed = Vec::new();
        while let Some((key, checked)) = checks.next().await {
            self.walk.steady().await?;
            verdict.count(checked);
            if matches!(checked, Checked::Confirmed(_)) {
                confirmed.push(key);
            }
        }
        if self.repair {
            self.walk.owe(table, &confirmed).await?;
            verdict.repaired += confirmed.len() as u64;
        }
        Ok(())
    }

    async fn check_one(&self, table: &Arc<Table>, values: Vec<Value>, key: Key) -> (Key, Checked) {
        (key, self.parts.comparer.check_row(table, values).await)
    }

    /// Tables that joined later are pending no more once they are found whole. An epoch that moved meanwhile
    /// leaves them as they are.
    async fn trust(&self, tables: &[Arc<Table>]) -> Result<(), WalkError> {
        if self.walk.secondary() != Backend::Storage {
            return Ok(());
        }
        let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
        let epoch = self.walk.begun().epoch;
        match self.parts.control.trust_tables(&names, epoch).await {
            Err(fault) if fault.is_stale_epoch() => Ok(()),
            trusted => Ok(trusted?),
        }
    }

    /// Puts a full verify on record, clean or not: readiness asks for its age and its verdict.
    async fn remember(
        &self,
        options: &VerifyOptions,
        report: &VerifyReport,
    ) -> Result<(), WalkError> {
        let clean = report.clean && report.unchecked.is_empty();
        let details = json!({
            "tables": report.tables,
            "quarantined": report.quarantined,
            "unchecked": report.unchecked,
        });
        evidence::record_verified(
            self.parts.legacy.db(),
            self.walk.secondary(),
            clean,
            self.walk.begun().epoch,
            &options.actor,
            &details,
        )
        .await?;
        Ok(())
    }

    /// Records the verdict, unless the epoch moved: then it is of a state that is gone.
    async fn declare_whole(
        &self,
        options: &VerifyOptions,
        report: &mut VerifyReport,
    ) -> Result<(), WalkError> {
        let epoch = self.walk.begun().epoch;
        if self.walk.steady().await?.epoch != epoch {
            let moved = "the epoch moved meanwhile: the verdict was not recorded";
            report.unchecked.push(moved.to_owned());
            return Ok(());
        }
        let rows: u64 = report.tables.iter().map(|table| table.matched).sum();
        let evidence = json!({ "verify": "full", "tables": report.tables.len(), "rows": rows });
        self.parts
            .control
            .judge(
                Verdict {
                    backend: self.walk.secondary(),
                    stale: false,
                    expected_epoch: Some(epoch),
                    evidence,
                },
                &options.actor,
                &options.reason,
            )
            .await?;
        report.recorded = true;
        Ok(())
    }
}
