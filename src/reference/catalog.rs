//! The tables as they were last read, and when to read them again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::refusal::Failure;
use crate::contract::Code;
use crate::schema::Schema;
use crate::sql::{Db, IntrospectError, introspect};

/// The least time between two readings: requests for tables that do not exist must not become a load.
const REREAD_MIN: Duration = Duration::from_secs(1);

/// All tables of the service's database but its own.
#[derive(Debug)]
pub(super) struct Catalog {
    schema: ArcSwap<Schema>,
    soft_delete: Vec<(String, String)>,
    /// When the tables were last read; held while they are being read.
    read_at: Mutex<Option<Instant>>,
}

impl Catalog {
    /// Reads the tables for the first time.
    ///
    /// # Errors
    /// See [`IntrospectError`].
    pub(super) async fn read(
        db: &Db,
        soft_delete: Vec<(String, String)>,
    ) -> Result<Self, IntrospectError> {
        let schema = read(db, &soft_delete).await?;
        Ok(Self {
            schema: ArcSwap::from_pointee(schema),
            soft_delete,
            read_at: Mutex::new(None),
        })
    }

    /// The tables as last read.
    pub(super) fn schema(&self) -> Arc<Schema> {
        self.schema.load_full()
    }

    /// The tables as they are now, for whoever failed with `used`; `None` when there is nothing newer.
    pub(super) async fn reread(&self, db: &Db, used: &Arc<Schema>) -> Option<Arc<Schema>> {
        let mut read_at = self.read_at.lock().await;
        let current = self.schema.load_full();
        if !Arc::ptr_eq(&current, used) {
            return Some(current);
        }
        if read_at.is_some_and(|at| at.elapsed() < REREAD_MIN) {
            return None;
        }
        *read_at = Some(Instant::now());
        match read(db, &self.soft_delete).await {
            Ok(schema) => {
                let fresh = Arc::new(schema);
                self.schema.store(fresh.clone());
                Some(fresh)
            }
            Err(error) => {
                tracing::warn!(%error, "could not read the tables again");
                None
            }
        }
    }
}

/// Whether the failure may come from tables that changed since they were read.
pub(super) fn may_be_stale(failure: &Failure) -> bool {
    match failure {
        Failure::Shape(_) => true,
        Failure::Refused(error) => matches!(error.code, Code::UnknownTable | Code::UnknownColumn),
        Failure::Passing(_) => false,
    }
}

async fn read(db: &Db, soft_delete: &[(String, String)]) -> Result<Schema, IntrospectError> {
    let mut schema = introspect(db, &[]).await?;
    for (table, column) in soft_delete {
        let found = schema
            .tables
            .get_mut(table)
            .ok_or_else(|| IntrospectError::TableMissing(table.clone()))?;
        let index = found
            .column(column)
            .ok_or_else(|| IntrospectError::ColumnMissing {
                table: table.clone(),
                column: column.clone(),
            })?;
        Arc::make_mut(found).policy.soft_delete = Some(index);
    }
    Ok(schema)
}
