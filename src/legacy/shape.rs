//! The shape of the tables as it is known, and how it is read again when it changed underneath.
//!
//! Nobody tells a replica that a column came or went. It is noticed in three ways: the tables are looked at
//! from time to time, the database refuses a statement that was written for other tables, and a caller names
//! a column that is not known. In the last two cases whoever met it has the shape read again and goes on with
//! that. Readings are one at a time and have a least gap, so that neither requests for columns that do not
//! exist nor a statement that fails for another reason becomes a load.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::{Legacy, OpenError, capture};
use crate::schema::{Schema, Table};
use crate::sql::{Db, Fault, IntrospectError, TableSpec, introspect};

/// Who says that the tables are not what they are known as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// The database refused a statement.
    Database,
    /// A caller named what is not known.
    Caller,
}

/// The tables as they are known, shared by everything that asks the same database.
#[derive(Debug)]
pub(super) struct Shape {
    db: Db,
    specs: Vec<TableSpec>,
    schema: ArcSwap<Schema>,
    /// Held while the tables are read.
    reading: tokio::sync::Mutex<()>,
    /// When they were last read.
    read_at: Mutex<Option<Instant>>,
}

impl Hint {
    /// The least time between two readings for its sake.
    fn gap(self) -> Duration {
        match self {
            Self::Database => Duration::from_millis(100),
            Self::Caller => Duration::from_secs(1),
        }
    }
}

impl Shape {
    /// Reads the tables for the first time.
    pub(super) async fn read(db: Db, specs: Vec<TableSpec>) -> Result<Self, IntrospectError> {
        let schema = introspect(&db, &specs).await?;
        Ok(Self {
            db,
            specs,
            schema: ArcSwap::from_pointee(schema),
            reading: tokio::sync::Mutex::new(()),
            read_at: Mutex::new(None),
        })
    }

    /// The tables as they are known now.
    pub(super) fn known(&self) -> Arc<Schema> {
        self.schema.load_full()
    }

    /// Reads the tables again, unless a reading began after `then`.
    async fn reread_since(&self, then: Instant) -> Result<(), OpenError> {
        let _reading = self.reading.lock().await;
        if self.last_read().is_some_and(|at| at > then) {
            return Ok(());
        }
        self.reread_now().await.map(drop)
    }

    /// Reads them again for whoever met other tables than those of `used`, unless somebody else was quicker or the last
    /// reading is too young. Whether there is something newer.
    async fn reread_after(&self, used: &Arc<Schema>, gap: Duration) -> Result<bool, OpenError> {
        let _reading = self.reading.lock().await;
        if !Arc::ptr_eq(&self.known(), used) {
            return Ok(true);
        }
        if self.last_read().is_some_and(|at| at.elapsed() < gap) {
            return Ok(false);
        }
        self.reread_now().await
    }

    fn last_read(&self) -> Option<Instant> {
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads them, and takes them over when they changed. Whether they did.
    async fn reread_now(&self) -> Result<bool, OpenError> {
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let schema = introspect(&self.db, &self.specs).await?;
        if schema.tables == self.known().tables {
            return Ok(false);
        }
        capture::install(&self.db, &schema).await?;
        tracing::info!("the shape of the tables changed and was read anew");
        self.schema.store(Arc::new(schema));
        Ok(true)
    }
}

impl Legacy {
    /// The tables as they are known now.
    #[must_use]
    pub fn schema(&self) -> Arc<Schema> {
        self.shape.known()
    }

    /// Reads the shape again because somebody met other tables than those of `used`. Whether there is a newer
    /// one to go on with. The reading goes to its end, whatever becomes of who asked.
    pub async fn schema_after(&self, used: &Arc<Schema>, hint: Hint) -> Option<Arc<Schema>> {
        let (shape, used) = (Arc::clone(&self.shape), Arc::clone(used));
        let is_newer = to_its_end(async move { shape.reread_after(&used, hint.gap()).await }).await;
        is_newer?.then(|| self.schema())
    }

    /// The shape as it is after this moment; none when it could not be read.
    pub async fn schema_now(&self) -> Option<Arc<Schema>> {
        let (shape, now) = (Arc::clone(&self.shape), Instant::now());
        to_its_end(async move { shape.reread_since(now).await }).await?;
        Some(self.schema())
    }

    /// The shape to try again with after `fault`; the fault itself when that is not about the shape, or there
    /// is nothing newer.
    pub(super) async fn newer(
        &self,
        used: &Arc<Schema>,
        fault: Fault,
    ) -> Result<Arc<Schema>, Fault> {
        if !fault.is_other_schema() {
            return Err(fault);
        }
        self.schema_after(used, Hint::Database).await.ok_or(fault)
    }
}

/// A reading is a transaction, which nobody may cancel half-way.
async fn to_its_end<T: Send + 'static>(
    reading: impl Future<Output = Result<T, OpenError>> + Send + 'static,
) -> Option<T> {
    match tokio::spawn(reading).await {
        Ok(Ok(read)) => Some(read),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the shape of the tables could not be read");
            None
        }
        Err(error) => {
            tracing::error!(%error, "reading the shape of the tables died");
            None
        }
    }
}

/// The table as a schema has it; as it was, where it is not configured there.
pub(super) fn as_known(schema: &Schema, table: &Arc<Table>) -> Arc<Table> {
    Arc::clone(schema.table(&table.name).unwrap_or(table))
}
