//! Verify: holds every row of one side against the other.
//!
//! Rows change all the time, so a difference is only a suspect until it is rechecked as the comparer does
//! (I10). A full verify that finds nothing, under one epoch, is what makes the secondary trustworthy again:
//! rows that change after they were looked at are owed under that same epoch. Pages are compared in `pages`,
//! what their rows refer to in `references`; operators ask for a verify, or the clock does (`turn`).

mod ddl;
mod pages;
mod references;
mod report;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::Verdict;
use crate::divergence;
use crate::evidence;
use crate::repository::Parts;
use crate::schema::Table;
use crate::stage::Backend;
use crate::telemetry::DivergenceKind;
use crate::walk::{Pace, Progress, Walk, WalkError};

pub use ddl::COMPONENT;
pub use report::{TableVerdict, VerifyReport};
pub use turn::{LEASE, Renewed, Told, cancel, claim, let_go, renew, take, told};

/// What to verify, for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyOptions {
    /// These tables; all when empty.
    pub tables: Vec<String>,
    /// Whether confirmed differences are owed to the secondary.
    pub repair: bool,
    /// Rows read at a time, of each side.
    pub page: u64,
    /// Who asked, for the audit.
    pub actor: String,
    /// Why, for the audit.
    pub reason: String,
}

/// How verifies go by the configuration; read anew whenever it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VerifySettings {
    /// One begins by itself when the last full one is older than this; never without.
    pub interval: Option<Duration>,
    /// At most this many rows a second; 0 is no limit.
    pub rate: u32,
}

/// Compares both sides row by row; a full and clean verify makes the secondary count as whole again. `rate` is
/// asked for every page: at most so many rows a second, 0 is no limit.
///
/// # Errors
/// See [`WalkError`]; what was confirmed until then is written down.
pub async fn run(
    parts: &Parts,
    options: VerifyOptions,
    rate: &(dyn Fn() -> u32 + Send + Sync),
    progress: &Progress,
    cancel: CancellationToken,
) -> Result<VerifyReport, WalkError> {
    let mut verify = Verify {
        walk: Walk::begin(parts, cancel).await?,
        parts,
        repair: options.repair,
        page: options.page.max(1),
        rate,
        pace: Pace::new(None, Instant::now()),
    };
    let tables = verify.walk.tables(&options.tables)?;
    let begun_us = verify.walk.now_us().await?;
    let lines = progress.begin(&tables);
    for (table, line) in tables.iter().zip(&lines) {
        line.expect(verify.walk.estimate(table).await);
    }
    let mut report = VerifyReport::new(tables.len() == parts.legacy.schema().tables.len());
    for (table, line) in tables.iter().zip(&lines) {
        line.running();
        let mut verdict = TableVerdict::new(&table.name);
        Box::pin(verify.table(table, line, &mut verdict)).await?;
        line.done();
        report.tables.push(verdict);
    }
    if !verify.walk.walks_storage() {
        let missed = "rows that only storage has: the service has no capability `ranges`";
        report.unchecked.push(missed.to_owned());
    }
    report.quarantined = verify.walk.quarantined().await?;
    verify.disprove(&report, begun_us).await?;
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
    rate: &'a (dyn Fn() -> u32 + Send + Sync),
    pace: Pace,
}

impl Verify<'_> {
    /// What was on the list of a table that is in order by now does not differ any more. With an entry quarantined
    /// nobody can say which row is.
    async fn disprove(&self, report: &VerifyReport, begun_us: i64) -> Result<(), WalkError> {
        if report.quarantined > 0 {
            return Ok(());
        }
        let (db, walks_storage) = (self.parts.legacy.db(), self.walk.walks_storage());
        let seen = |kind: &DivergenceKind| walks_storage || *kind != DivergenceKind::Extra;
        let kinds: Vec<_> = divergence::OF_ROWS.into_iter().filter(seen).collect();
        for found in report.tables.iter().filter(|found| found.finds_nothing()) {
            let (table, kinds) = (&found.table, &kinds);
            let gone = self.walk.patiently(|| async {
                Ok(divergence::disprove(db, table, kinds, begun_us).await?)
            });
            match gone.await? {
                0 => {}
                lines => tracing::info!(table, lines, "differences on the list are no more"),
            }
        }
        Ok(())
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

    /// Records the verdict, unless the epoch moved: then it is of a state that is gone. A secondary that counts
    /// as whole already needs no change of the control state.
    async fn declare_whole(
        &self,
        options: &VerifyOptions,
        report: &mut VerifyReport,
    ) -> Result<(), WalkError> {
        let epoch = self.walk.begun().epoch;
        let snapshot = self.walk.steady().await?;
        if snapshot.epoch != epoch {
            let moved = "the epoch moved meanwhile: the verdict was not recorded";
            report.unchecked.push(moved.to_owned());
            return Ok(());
        }
        if snapshot.is_stale(self.walk.secondary()) {
            let rows: u64 = report.tables.iter().map(|table| table.matched).sum();
            let evidence = json!({ "verify": "full", "tables": report.tables.len(), "rows": rows });
            let verdict = Verdict {
                backend: self.walk.secondary(),
                stale: false,
                expected_epoch: Some(epoch),
                evidence,
            };
            let control = &self.parts.control;
            control
                .judge(verdict, &options.actor, &options.reason)
                .await?;
        }
        report.recorded = true;
        Ok(())
    }

    /// The two rows of a key, the authority's first.
    fn authority_first<'r, R>(&self, legacy: &'r R, storage: &'r R) -> (&'r R, &'r R) {
        match self.walk.secondary() {
            Backend::Storage => (legacy, storage),
            Backend::Legacy => (storage, legacy),
        }
    }
}
