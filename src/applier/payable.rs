//! What is sent for a claim: legacy's rows as they are now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Applier;
use crate::contract::{AttemptId, Key, Row};
use crate::journal::{Claim, Claimed, Parked};
use crate::legacy::Source;
use crate::schema::{Schema, Table};
use crate::sql::Fault;
use crate::storage::{Payment, UnixMs};
use crate::telemetry;

/// How long an entry rests whose table is not configured here. While replicas are restarted with a new table,
/// another one knows it.
const FOREIGN_DELAY: Duration = Duration::from_millis(200);

impl Applier {
    /// The payments of a claim, and the claim of just these; an absent row is a removal.
    ///
    /// A row that the contract cannot carry as it is (JSON's own `null`, which reads like SQL NULL; a document
    /// with a name twice; an array that does not begin at 1) is never altered in silence: it is quarantined. An
    /// entry of a table that is not configured here is left to a replica that knows it.
    pub(super) async fn payable(&self, claim: &Claim) -> Result<(Claim, Vec<Payment>), Fault> {
        let schema = self.legacy.schema();
        let mut sources = self.sources(&schema, claim).await?;
        let (mut entries, mut payments) = (Vec::new(), Vec::new());
        let (mut unfit, mut foreign) = (Vec::new(), Vec::new());
        for entry in &claim.entries {
            let Some(table) = schema.table(&entry.table) else {
                foreign.push(entry.seq);
                continue;
            };
            let source = sources.remove(&(entry.table.as_str(), entry.key.clone()));
            match source {
                Some(source) if !source.unfaithful.is_empty() => {
                    self.report_unfit(entry, &source);
                    unfit.push(entry.seq);
                }
                source => {
                    let row = source.map(|source| source.row);
                    payments.push(payment(claim, table, entry, row));
                    entries.push(entry.clone());
                }
            }
        }
        if !unfit.is_empty() {
            let parked = Some(Parked::Quarantined);
            claim
                .release(self.legacy.db(), &unfit, Duration::ZERO, parked)
                .await?;
        }
        if !foreign.is_empty() {
            claim
                .release(self.legacy.db(), &foreign, FOREIGN_DELAY, None)
                .await?;
        }
        let claim = Claim {
            entries,
            ..claim.clone()
        };
        Ok((claim, payments))
    }

    fn report_unfit(&self, entry: &Claimed, source: &Source) {
        tracing::error!(
            table = entry.table,
            columns = source.unfaithful,
            seq = entry.seq,
            "a row holds values that JSON does not carry unchanged (a JSON null, a document or number that the contract refuses, an array's subscripts, or an array as an element): its entry is quarantined"
        );
        let quarantined = telemetry::Payment::Quarantined;
        self.observer
            .paid(crate::stage::Backend::Storage, entry, quarantined);
    }

    async fn sources<'a>(
        &self,
        schema: &Schema,
        claim: &'a Claim,
    ) -> Result<HashMap<(&'a str, Key), Source>, Fault> {
        let mut by_table: HashMap<&str, Vec<Key>> = HashMap::new();
        for entry in &claim.entries {
            let keys = by_table.entry(&entry.table).or_default();
            keys.push(entry.key.clone());
        }
        let mut sources = HashMap::new();
        for (name, keys) in by_table {
            let Some(table) = schema.table(name) else {
                continue;
            };
            let found = self.legacy.sources(table, &keys).await?;
            sources.extend(found.into_iter().map(|(key, source)| ((name, key), source)));
        }
        Ok(sources)
    }
}

fn payment(claim: &Claim, table: &Arc<Table>, entry: &Claimed, row: Option<Row>) -> Payment {
    Payment {
        table: Arc::clone(table),
        key: entry.key.clone(),
        row,
        attempt: AttemptId::fresh(),
        deadline: UnixMs(claim.deadline_us / 1000),
        epoch: claim.epoch,
        fence: None,
    }
}
