//! Drift: where storage's schema is not legacy's, as this replica last saw it.
//!
//! Each replica looks for itself. It is a few small reads per table, far from any request, and what is found is
//! used here as well: a live write's reply may hold columns that legacy does not have, if storage is known to
//! have them. A table that could not be looked at is unknown: neither drift nor agreement.

mod described;
mod difference;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::Notify;

use crate::clock::{boottime, unix_us};
use crate::contract::Epoch;
use crate::schema::{Schema, Table};
use crate::sql::Dialect;
use crate::storage::{Storage, StorageError};
use crate::telemetry::{DriftKind, Metrics};

pub use difference::{Difference, differences};

/// How long a column is remembered that only storage had: longer than a reply of it may be under way.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Tables that are looked at at a time.
const LOOKS_AT_ONCE: usize = 4;

/// Looks at storage's schema, and remembers what was seen.
#[derive(Debug)]
pub struct Drift {
    storage: Arc<Storage>,
    /// Legacy's, whose tables are described as well.
    dialect: Dialect,
    metrics: Arc<Metrics>,
    found: ArcSwap<Found>,
    /// Held while something is taken over.
    taking: Mutex<()>,
    suspected: Notify,
}

/// What was found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// When all tables were last looked at, in Unix microseconds; none before the first time.
    pub at_us: Option<i64>,
    tables: BTreeMap<String, Standing>,
    /// Columns that only storage had, by table and name, and when that was last seen, on the boot clock.
    beside: BTreeMap<(String, String), Duration>,
}

/// What is known of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Standing {
    Known(Vec<Difference>),
    Unknown(String),
}

/// A table that could not be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unknown {
    /// The table.
    pub table: String,
    /// Why not.
    pub why: String,
}

impl Drift {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(storage: &Arc<Storage>, metrics: &Arc<Metrics>, dialect: Dialect) -> Self {
        Self {
            storage: Arc::clone(storage),
            dialect,
            metrics: Arc::clone(metrics),
            found: ArcSwap::default(),
            taking: Mutex::default(),
            suspected: Notify::new(),
        }
    }

    /// What was last found.
    #[must_use]
    pub fn found(&self) -> Arc<Found> {
        self.found.load_full()
    }

    /// Looks at every table of legacy's.
    pub async fn look(&self, schema: &Schema, epoch: Epoch) -> Arc<Found> {
        let tables: Vec<Arc<Table>> = schema.tables.values().cloned().collect();
        let tables = stream::iter(tables)
            .map(|table| self.standing(table, epoch))
            .buffer_unordered(LOOKS_AT_ONCE)
            .collect()
            .await;
        self.take_over(Some(unix_us()), tables)
    }

    async fn standing(&self, table: Arc<Table>, epoch: Epoch) -> (String, Standing) {
        let standing = match self.storage.look_at(&table, epoch).await {
            Ok(look) => Standing::Known(differences(&table, self.dialect, &look)),
            Err(error) => Standing::Unknown(error.to_string()),
        };
        (table.name.clone(), standing)
    }

    /// Looks at one table, because of a reply that does not fit what is known of it.
    ///
    /// # Errors
    /// Those of a call; what was known stays.
    pub async fn look_at(&self, table: &Table, epoch: Epoch) -> Result<Arc<Found>, StorageError> {
        let look = self.storage.look_at(table, epoch).await?;
        let standing = Standing::Known(differences(table, self.dialect, &look));
        Ok(self.take_over(None, BTreeMap::from([(table.name.clone(), standing)])))
    }

    /// Somebody met what looks like drift: the next look is due.
    pub fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Returns once somebody has.
    pub async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// Takes over what was seen of some tables; what is known of the others stays.
    fn take_over(&self, at_us: Option<i64>, looked: BTreeMap<String, Standing>) -> Arc<Found> {
        let _one_at_a_time = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Found::clone(&self.found());
        for (table, standing) in &looked {
            self.report(table, standing);
        }
        found.at_us = at_us.or(found.at_us);
        found.tables.extend(looked);
        found.remember(boottime());
        let found = Arc::new(found);
        self.found.store(Arc::clone(&found));
        found
    }

    fn report(&self, table: &str, standing: &Standing) {
        for kind in DriftKind::ALL {
            let count = match standing {
                Standing::Known(differences) => {
                    let of_kind = differences.iter().filter(|one| one.kind == *kind);
                    Some(of_kind.count() as u64)
                }
                Standing::Unknown(_) => None,
            };
            self.metrics.drift(table, *kind, count);
        }
    }
}

impl Found {
    /// Every difference, by table.
    pub fn differences(&self) -> impl Iterator<Item = &Difference> {
        self.tables.values().flat_map(|standing| match standing {
            Standing::Known(differences) => differences.as_slice(),
            Standing::Unknown(_) => &[],
        })
    }

    /// The tables that could not be looked at.
    pub fn unknown(&self) -> impl Iterator<Item = Unknown> {
        self.tables
            .iter()
            .filter_map(|(table, standing)| match standing {
                Standing::Known(_) => None,
                Standing::Unknown(why) => Some(Unknown {
                    table: table.clone(),
                    why: why.clone(),
                }),
            })
    }

    /// Whether storage was lately seen to have a column that legacy did not.
    #[must_use]
    pub fn was_only_in_storage(&self, table: &str, column: &str) -> bool {
        let mut beside = self.beside.keys();
        beside.any(|(of, named)| of == table && named == column)
    }

    /// Whether storage is known to lack a column of legacy's, or may for all that is known.
    #[must_use]
    pub fn may_lack(&self, table: &str, column: &str) -> bool {
        match self.tables.get(table) {
            Some(Standing::Known(differences)) => differences.iter().any(|one| match one.kind {
                DriftKind::MissingTable => true,
                DriftKind::MissingColumn => one.column.as_deref() == Some(column),
                DriftKind::ExtraColumn
                | DriftKind::Type
                | DriftKind::NotNull
                | DriftKind::Generated
                | DriftKind::PrimaryKey
                | DriftKind::Unique
                | DriftKind::ForeignKey
                | DriftKind::Looser => false,
            }),
            Some(Standing::Unknown(_)) | None => true,
        }
    }

    /// Remembers the columns that only storage has, and forgets those that it no longer had for a while.
    fn remember(&mut self, now: Duration) {
        let extra: Vec<(String, String)> = self
            .differences()
            .filter(|one| one.kind == DriftKind::ExtraColumn)
            .filter_map(|one| Some((one.table.clone(), one.column.clone()?)))
            .collect();
        self.beside.extend(extra.into_iter().map(|one| (one, now)));
        self.beside
            .retain(|_, seen| now.saturating_sub(*seen) < REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_looked_at_is_unknown_and_no_difference() {
        let known = |kind, column: &str| {
            Standing::Known(vec![Difference {
                table: "ads".to_owned(),
                kind,
                column: Some(column.to_owned()),
                what: None,
            }])
        };
        let mut found = Found {
            at_us: Some(1),
            tables: BTreeMap::from([
                ("ads".to_owned(), known(DriftKind::ExtraColumn, "price")),
                ("pairs".to_owned(), Standing::Unknown("gone".to_owned())),
            ]),
            beside: BTreeMap::new(),
        };
        assert_eq!(found.differences().count(), 1);
        assert_eq!(found.unknown().next().unwrap().table, "pairs");
        assert!(!found.may_lack("ads", "name") && found.may_lack("pairs", "a"));
        let at = Duration::from_secs(1_000);
        found.remember(at);
        assert!(found.was_only_in_storage("ads", "price"));
        assert!(!found.was_only_in_storage("ads", "name"));
        found
            .tables
            .insert("ads".to_owned(), Standing::Known(vec![]));
        found.remember(at + REMEMBERED - Duration::from_secs(1));
        assert!(
            found.was_only_in_storage("ads", "price"),
            "replies may be under way"
        );
        found.remember(at + REMEMBERED);
        assert!(!found.was_only_in_storage("ads", "price"));
    }
}
