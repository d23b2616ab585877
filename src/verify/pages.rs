//! One table: both sides walked side by side, page by page.
//!
//! Rows are matched by key within what was read and not matched yet, so where both sides walk in the same order
//! each row is read once. Whatever the order of keys on either side, nothing is concluded from it: what stays
//! unmatched for more than a page is asked for by key on the other side, and only then is a suspect. The next pages
//! are on their way while rows are compared: neither side waits for that. Memory is bounded by a few pages.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use super::{TableVerdict, Verify};
use crate::compare::row_diff;
use crate::contract::{Key, Row};
use crate::schema::{Relation, Table};
use crate::shadow::Checked;
use crate::stage::Backend;
use crate::telemetry::Comparison;
use crate::walk::{Line, WalkError, key_of, values_of};

/// A row that both sides have.
pub(super) struct Pair {
    pub(super) legacy: Row,
    pub(super) storage: Row,
}

/// Rows of one side by what they are matched by.
type Rows = HashMap<String, Row>;

/// Where a walk of one side goes on.
enum Cursor {
    After(Option<Vec<Value>>),
    Ended,
}

/// Where the walks of a table's two sides go on.
struct Cursors {
    legacy: Cursor,
    storage: Cursor,
}

/// A page of either side.
struct Pages {
    legacy: Vec<Row>,
    storage: Vec<Row>,
}

/// A table under way.
struct Sides {
    table: Arc<Table>,
    relations: Vec<Relation>,
    /// Read, and not matched yet.
    only_legacy: Rows,
    only_storage: Rows,
}

impl Verify<'_> {
    /// Every row of both sides.
    pub(super) async fn table(
        &mut self,
        table: &Arc<Table>,
        line: &Line,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        let mut sides = Sides {
            table: Arc::clone(table),
            relations: self.parts.legacy.schema().relations(table),
            only_legacy: Rows::new(),
            only_storage: Rows::new(),
        };
        let mut cursors = Cursors {
            legacy: Cursor::After(None),
            storage: match self.walk.walks_storage() {
                true => Cursor::After(None),
                false => Cursor::Ended,
            },
        };
        let mut pages = self.next_pages(table, &mut cursors).await?;
        loop {
            let (legacy, storage) = (pages.legacy.len(), pages.storage.len());
            let ended = cursors.have_ended();
            let (next, compared) = tokio::join!(
                self.next_pages(table, &mut cursors),
                self.compare(&mut sides, pages, ended, verdict),
            );
            compared?;
            line.add(legacy, storage);
            self.rest_after(legacy.max(storage)).await?;
            if ended {
                return Ok(());
            }
            pages = next?;
        }
    }

    /// The next rows of both sides, read side by side.
    async fn next_pages(
        &self,
        table: &Arc<Table>,
        cursors: &mut Cursors,
    ) -> Result<Pages, WalkError> {
        let (legacy, storage) = tokio::try_join!(
            self.next_rows(table, Backend::Legacy, &mut cursors.legacy),
            self.next_rows(table, Backend::Storage, &mut cursors.storage),
        )?;
        Ok(Pages { legacy, storage })
    }

    /// The next rows of one side; none after its walk has ended.
    async fn next_rows(
        &self,
        table: &Arc<Table>,
        side: Backend,
        cursor: &mut Cursor,
    ) -> Result<Vec<Row>, WalkError> {
        let Cursor::After(after) = cursor else {
            return Ok(Vec::new());
        };
        let after = after.as_deref();
        let page = match side {
            Backend::Legacy => self.walk.legacy_page(table, after, self.page).await?,
            Backend::Storage => self.walk.storage_page(table, after, self.page).await?,
        };
        cursor.go_on(page.next);
        Ok(page.rows)
    }

    /// Compares what was read, and asks for what was not matched for too long: at the end, for all of it.
    async fn compare(
        &self,
        sides: &mut Sides,
        pages: Pages,
        ended: bool,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        verdict.legacy_rows += pages.legacy.len() as u64;
        verdict.storage_rows += pages.storage.len() as u64;
        let pairs = sides.take_in(pages)?;
        self.hold(sides, pairs, verdict).await?;
        let most = sides.only_legacy.len().max(sides.only_storage.len());
        if ended || most as u64 >= self.page {
            self.ask_for_the_rest(sides, verdict).await?;
        }
        Ok(())
    }

    /// Compares rows that both sides have, and what they refer to.
    async fn hold(
        &self,
        sides: &Sides,
        pairs: Vec<Pair>,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        let table = &sides.table;
        let relations = &sides.relations;
        let references = self.check_references(relations, &pairs, verdict).await?;
        let (mut matched, mut suspects) = (0, Vec::new());
        for (place, pair) in pairs.iter().enumerate() {
            let (authority, secondary) = self.authority_first(&pair.legacy, &pair.storage);
            let equal = row_diff(table, authority, secondary).is_equal();
            match references.get(&place) {
                Some(Checked::Confirmed(_)) => {}
                Some(checked) if equal => self.count(table, *checked, verdict),
                None if equal => matched += 1,
                Some(_) | None => suspects.push(key_of(table, &pair.legacy)?),
            }
        }
        verdict.matched += matched;
        self.tell(table, Comparison::Match, matched);
        self.check(table, suspects, verdict).await
    }

    /// Asks each side by key for what the other has and was not matched.
    async fn ask_for_the_rest(
        &self,
        sides: &mut Sides,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        let table = Arc::clone(&sides.table);
        let only_legacy: Vec<Row> = sides.only_legacy.drain().map(|(_, row)| row).collect();
        let only_storage: Vec<Row> = sides.only_storage.drain().map(|(_, row)| row).collect();
        let legacy = self.walk.keyed(&table, only_legacy).await?;
        let keys: Vec<Key> = legacy.iter().map(|(key, _)| key.clone()).collect();
        let mut stored = self.walk.storage_rows(&table, &keys).await?;
        if !self.walk.walks_storage() {
            verdict.storage_rows += stored.len() as u64;
        }
        let (mut pairs, mut suspects) = (Vec::new(), Vec::new());
        for (key, legacy) in legacy {
            match stored.remove(&key) {
                Some(storage) => pairs.push(Pair { legacy, storage }),
                None => suspects.push(key_of(&table, &legacy)?),
            }
        }
        self.hold(sides, pairs, verdict).await?;
        // A row that legacy has as well is looked at when legacy's walk comes to it, or was.
        let keyed = self.walk.keyed(&table, only_storage).await?;
        let keys: Vec<Key> = keyed.iter().map(|(key, _)| key.clone()).collect();
        let extra = self.walk.not_in_legacy(&table, keys).await?;
        for key in &extra {
            suspects.push(values_of(key)?);
        }
        self.check(&table, suspects, verdict).await
    }

    /// Rechecks suspects; counts what became of them and owes what is confirmed, where asked to.
    async fn check(
        &self,
        table: &Arc<Table>,
        suspects: Vec<Vec<Value>>,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        let results = self.parts.comparer.check_rows(table, &suspects).await;
        self.walk.steady().await?;
        for checked in &results {
            self.count(table, *checked, verdict);
        }
        self.repair(table, confirmed(suspects, &results), verdict)
            .await
    }

    /// Owes rows that are confirmed to differ, where asked to.
    pub(super) async fn repair(
        &self,
        table: &Table,
        confirmed: Vec<Vec<Value>>,
        verdict: &mut TableVerdict,
    ) -> Result<(), WalkError> {
        if self.repair {
            let keys = self.walk.canonical(table, &confirmed).await?;
            self.walk.owe(table, &keys).await?;
            verdict.repaired += keys.len() as u64;
        }
        Ok(())
    }

    /// Counts what became of a suspect.
    pub(super) fn count(&self, table: &Table, checked: Checked, verdict: &mut TableVerdict) {
        verdict.count(checked);
        self.tell(table, checked.into(), 1);
    }

    fn tell(&self, table: &Table, result: Comparison, rows: u64) {
        let metrics = self.parts.observer.metrics();
        metrics.verified(&table.name, result, rows);
    }

    async fn rest_after(&mut self, rows: usize) -> Result<(), WalkError> {
        self.pace.set((self.rate)());
        let then = self.pace.after(rows, Instant::now());
        self.walk.rest_until(then).await
    }
}

impl Sides {
    /// Rows that were read; what is now known of both sides.
    fn take_in(&mut self, mut pages: Pages) -> Result<Vec<Pair>, WalkError> {
        // Nearly always both sides go on alike: then rows in the same place are of the same key.
        let places = pages.legacy.iter().zip(&pages.storage);
        let alike = places.take_while(|(legacy, storage)| self.have_one_key(legacy, storage));
        let alike = alike.count();
        let (legacy, storage) = (
            pages.legacy.split_off(alike),
            pages.storage.split_off(alike),
        );
        let pairs = pages.legacy.into_iter().zip(pages.storage);
        let mut pairs: Vec<Pair> = pairs
            .map(|(legacy, storage)| Pair { legacy, storage })
            .collect();
        let identity =
            |row: &Row| key_of(&self.table, row).map(|key| self.table.key_identity(&key));
        for legacy in legacy {
            let identity = identity(&legacy)?;
            match self.only_storage.remove(&identity) {
                Some(storage) => pairs.push(Pair { legacy, storage }),
                None => drop(self.only_legacy.insert(identity, legacy)),
            }
        }
        for storage in storage {
            let identity = identity(&storage)?;
            match self.only_legacy.remove(&identity) {
                Some(legacy) => pairs.push(Pair { legacy, storage }),
                None => drop(self.only_storage.insert(identity, storage)),
            }
        }
        Ok(pairs)
    }

    /// Whether two rows spell the same key alike.
    fn have_one_key(&self, legacy: &Row, storage: &Row) -> bool {
        let mut columns = self.table.key_columns();
        columns.all(|column| {
            let key = legacy.get(&column.name);
            key.is_some() && key == storage.get(&column.name)
        })
    }
}

impl Cursors {
    fn have_ended(&self) -> bool {
        matches!(
            (&self.legacy, &self.storage),
            (Cursor::Ended, Cursor::Ended)
        )
    }
}

impl Cursor {
    fn go_on(&mut self, next: Option<Vec<Value>>) {
        *self = match next {
            Some(key) => Self::After(Some(key)),
            None => Self::Ended,
        };
    }
}

/// The suspects whose difference was confirmed.
pub(super) fn confirmed(suspects: Vec<Vec<Value>>, results: &[Checked]) -> Vec<Vec<Value>> {
    let told = suspects.into_iter().zip(results);
    told.filter(|(_, checked)| matches!(checked, Checked::Confirmed(_)))
        .map(|(key, _)| key)
        .collect()
}
