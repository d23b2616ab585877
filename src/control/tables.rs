//! The tables that take part, and those of them that storage was not filled with yet.
//!
//! `storage_stale` speaks of storage as a whole. A table that joins when the whole is trusted already must not
//! make it stale, nor be trusted itself: it is *pending* until a verify has found its rows in storage. Its
//! writes are captured from the first moment; its reads are not compared, and nothing goes to `live` before.
//!
//! The tables of the very first start are not pending: storage as a whole is stale then.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::control::Control;
use super::task;
use crate::contract::Epoch;
use crate::journal;
use crate::sql::{Db, Fault, INSTALL_LOCK, Tx};

/// A table that joins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newcomer {
    /// Its name.
    pub name: String,
    /// Storage is yet to be filled with it; not so where neither side has a row.
    pub pending: bool,
}

impl Control {
    /// Those of these tables that did not take part so far. On the very first start all of them take part at
    /// once, and none is new.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn newcomers(&self, tables: &[String]) -> Result<Vec<String>, Fault> {
        let (db, tables) = (self.inner.db.clone(), tables.to_vec());
        task::run_to_end(async move {
            let mut tx = db.begin().await?;
            // Two replicas may start at once.
            tx.lock(INSTALL_LOCK).await?;
            let known = tx.control("SELECT tbl FROM cutover.tables", vec![]).await?;
            let known: Result<BTreeSet<String>, Fault> =
                known.iter().map(|row| row.some_text(0)).collect();
            let known = known?;
            if known.is_empty() {
                for table in &tables {
                    join(&mut tx, table, false).await?;
                }
                tx.commit().await?;
                return Ok(Vec::new());
            }
            tx.commit().await?;
            let is_new = |table: &String| !known.contains(table);
            Ok(tables.into_iter().filter(is_new).collect())
        })
        .await
    }

    /// Lets tables take part from now on. Their capture must be installed, and what is said of their rows must
    /// have been looked at after that.
    ///
    /// # Errors
    /// `StaleEpoch` when the epoch is another: what was decided under it has to be decided again.
    pub async fn admit_tables(&self, tables: &[Newcomer], epoch: Epoch) -> Result<(), Fault> {
        let (db, tables) = (self.inner.db.clone(), tables.to_vec());
        task::run_to_end(async move {
            let mut tx = db.begin().await?;
            for table in &tables {
                join(&mut tx, &table.name, table.pending).await?;
            }
            journal::gate(&mut tx, epoch).await?;
            tx.commit().await
        })
        .await
    }

    /// These tables are pending no more: storage was found to have their rows, under this epoch.
    ///
    /// # Errors
    /// `StaleEpoch` when the epoch moved meanwhile; they stay pending.
    pub async fn trust_tables(&self, tables: &[String], epoch: Epoch) -> Result<(), Fault> {
        let (db, tables) = (self.inner.db.clone(), tables.to_vec());
        task::run_to_end(async move {
            let mut tx = db.begin().await?;
            for table in tables {
                let trusted =
                    "UPDATE cutover.tables SET pending = FALSE WHERE tbl = $1 AND pending";
                tx.control(trusted, vec![table.into()]).await?;
            }
            journal::gate(&mut tx, epoch).await?;
            tx.commit().await
        })
        .await?;
        self.read_pending().await
    }

    /// The pending tables, as this replica last read them. It knows of its own from the start on.
    #[must_use]
    pub fn pending_tables(&self) -> Arc<BTreeSet<String>> {
        self.inner.pending_tables.load_full()
    }

    /// Reads which tables are pending, and puts those back on the list that this replica serves and a restored
    /// backup knows nothing of.
    ///
    /// # Errors
    /// See [`Fault`]; what was known stays.
    pub async fn follow_tables(&self, served: &[String]) -> Result<(), Fault> {
        let known = self.pending_tables();
        let missing: Vec<Newcomer> = missing(&self.inner.db, served)
            .await?
            .into_iter()
            .map(|name| Newcomer {
                pending: known.contains(&name),
                name,
            })
            .collect();
        if !missing.is_empty() {
            self.admit_tables(&missing, self.snapshot().epoch).await?;
        }
        self.read_pending().await
    }

    /// Reads which tables are pending.
    ///
    /// # Errors
    /// See [`Fault`]; what was known stays.
    pub async fn read_pending(&self) -> Result<(), Fault> {
        let pending = "SELECT tbl FROM cutover.tables WHERE pending";
        let rows = self.inner.db.control(pending, vec![]).await?;
        let tables: Result<BTreeSet<String>, Fault> =
            rows.iter().map(|row| row.some_text(0)).collect();
        self.inner.pending_tables.store(Arc::new(tables?));
        Ok(())
    }
}

async fn join(tx: &mut Tx, table: &str, pending: bool) -> Result<(), Fault> {
    tx.control(
        "INSERT INTO cutover.tables (tbl, pending, joined_us) VALUES ($1, $2, cutover.now_us())
         ON CONFLICT (tbl) DO NOTHING",
        vec![table.into(), pending.into()],
    )
    .await
    .map(drop)
}

async fn missing(db: &Db, served: &[String]) -> Result<Vec<String>, Fault> {
    let rows = db.control("SELECT tbl FROM cutover.tables", vec![]).await?;
    let known: Result<BTreeSet<String>, Fault> = rows.iter().map(|row| row.some_text(0)).collect();
    let known = known?;
    let missing = served.iter().filter(|table| !known.contains(*table));
    Ok(missing.cloned().collect())
}
