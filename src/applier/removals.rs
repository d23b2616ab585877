//! Removals of rows that others may refer to.
//!
//! Where storage has foreign keys that act, a removal there takes along rows that nothing is owed of, and that nobody
//! would ever pay again. Two things keep them:
//!
//! * A removal is paid after everything older that may make such a row refer to another, or to nothing
//!   (`journal::older_than`). What is younger was written when the row was gone, and cannot refer to it.
//! * Unless the row came back: then rows that refer to it may have been paid while the removal was on its way. So
//!   that a removal is sent is noted first, and after it, also where its answer was lost, those that refer to the row in
//!   legacy now are owed again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Applier;
use crate::contract::{Key, Row};
use crate::journal::{self, Claim, Claimed, Copies, Direction, Removal};
use crate::schema::{Relation, Schema, Table};
use crate::sql::Fault;
use crate::storage::Payment;

/// Rows that may hang on those of one claim that came back; more are left to a verify.
const HANGING_MAX: usize = 10_000;

/// Some payments, and the claim of just these.
pub(super) struct Part {
    pub(super) claim: Claim,
    pub(super) payments: Vec<Payment>,
}

impl Part {
    /// Those that remove rows which others may refer to, and all others.
    pub(super) fn apart(self, schema: &Schema) -> (Self, Self) {
        let removes =
            |payment: &Payment| payment.row.is_none() && !schema.carried(&payment.table).is_empty();
        let removals: Vec<bool> = self.payments.iter().map(removes).collect();
        let mut removes = removals.iter().copied();
        self.divided(|_| removes.next().unwrap_or(false))
    }

    /// The entries that are meant and their rows, where others that point at them change when they go.
    pub(super) fn pointed_at(
        &self,
        schema: &Schema,
        is_meant: impl Fn(&Claimed, Option<&Row>) -> bool,
    ) -> (Vec<i64>, Vec<(Arc<Table>, Key)>) {
        let both = self.claim.entries.iter().zip(&self.payments);
        let acting = |table: &Table| schema.relations_to(table).iter().any(Relation::acts);
        both.filter(|(entry, payment)| {
            is_meant(entry, payment.row.as_ref()) && acting(&payment.table)
        })
        .map(|(entry, payment)| {
            let row = (Arc::clone(&payment.table), entry.key.clone());
            (entry.seq, row)
        })
        .unzip()
    }

    /// Those entries that are `taken`, and the rest; asked in order.
    fn divided(self, mut taken: impl FnMut(i64) -> bool) -> (Self, Self) {
        let empty = |claim: &Claim| Self {
            claim: Claim {
                entries: Vec::new(),
                ..claim.clone()
            },
            payments: Vec::new(),
        };
        let (mut these, mut others) = (empty(&self.claim), empty(&self.claim));
        for (entry, payment) in self.claim.entries.into_iter().zip(self.payments) {
            let part = match taken(entry.seq) {
                true => &mut these,
                false => &mut others,
            };
            part.claim.entries.push(entry);
            part.payments.push(payment);
        }
        (these, others)
    }
}

impl Applier {
    /// Those of the removals that have to wait, and those that may be paid.
    pub(super) async fn held(
        &self,
        schema: &Schema,
        removals: Part,
    ) -> Result<(Part, Part), Fault> {
        let entries = removals.claim.entries.iter();
        let named: Vec<Removal> = entries
            .map(|entry| Removal {
                seq: entry.seq,
                table: entry.table.clone(),
            })
            .collect();
        let older = journal::older_than(self.legacy.db(), Direction::ToStorage, &named).await?;
        let held = older.hold(&named, |table| {
            let table = schema.table(table);
            table.map(|table| schema.carried(table)).unwrap_or_default()
        });
        Ok(removals.divided(|seq| held.contains(&seq)))
    }

    /// Owes the rows that hang on these in legacy now: a removal of theirs may have taken them along.
    pub(super) async fn owe_hanging(
        &self,
        claim: &Claim,
        rows: &[(Arc<Table>, Key)],
    ) -> Result<(), Fault> {
        if rows.is_empty() {
            return Ok(());
        }
        let Some(swept) = self.legacy.swept_along(rows, HANGING_MAX).await? else {
            tracing::error!(
                "more than {HANGING_MAX} rows hang on rows that were removed and came back: verify with repair"
            );
            return Ok(());
        };
        let mut hanging: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for row in swept.rows {
            let keys = hanging.entry(row.table.name.clone()).or_default();
            keys.push(row.key);
        }
        for (table, key) in swept.hanging {
            hanging.entry(table).or_default().push(key);
        }
        if hanging.is_empty() {
            return Ok(());
        }
        let mut tx = self.legacy.db().begin().await?;
        for (table, keys) in &hanging {
            let copies = Copies::of_rows(Direction::ToStorage, table, keys);
            journal::append_copies(&mut tx, copies).await?;
        }
        journal::commit_under(tx, claim.epoch).await?;
        self.owed.notify_one();
        Ok(())
    }
}
