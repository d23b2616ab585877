//! The tables as they were last read, and when to read them again: when a request met others, and every two
//! seconds, because a whole row must not lack a column for long that its table has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::refusal::Failure;
use crate::contract::Code;
use crate::schema::Schema;
use crate::sql::{Db, IntrospectError, introspect};

/// How often they are read without being asked.
const REREAD_EVERY: Duration = Duration::from_secs(2);
/// The least time between two readings because of a name that a request got wrong, or because the database
/// refused a statement: neither must become a load.
const REREAD_FOR_NAMES: Duration = Duration::from_secs(1);
const REREAD_FOR_SHAPES: Duration = Duration::from_millis(100);

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

    /// Reads the tables from time to time, until `shutdown`.
    pub(super) async fn follow(&self, db: &Db, shutdown: CancellationToken) {
        while shutdown
            .run_until_cancelled(sleep(REREAD_EVERY))
            .await
            .is_some()
        {
            let mut read_at = self.read_at.lock().await;
            self.read_again(db, &mut read_at).await;
        }
    }

    /// The tables as they are now, for whoever failed with `used`; `None` when there is nothing newer.
    pub(super) async fn reread(
        &self,
        db: &Db,
        used: &Arc<Schema>,
        failure: &Failure,
    ) -> Option<Arc<Schema>> {
        let gap = match failure {
            Failure::Shape(_) => REREAD_FOR_SHAPES,
            Failure::Refused(_) | Failure::Passing(_) => REREAD_FOR_NAMES,
        };
        let mut read_at = self.read_at.lock().await;
        let current = self.schema.load_full();
        if !Arc::ptr_eq(&current, used) {
            return Some(current);
        }
        if read_at.is_some_and(|at| at.elapsed() < gap) {
            return None;
        }
        self.read_again(db, &mut read_at).await
    }

    /// Reads the tables; `None` when they are as they were, or could not be read.
    async fn read_again(&self, db: &Db, read_at: &mut Option<Instant>) -> Option<Arc<Schema>> {
        *read_at = Some(Instant::now());
        match read(db, &self.soft_delete).await {
            Ok(schema) if schema.tables == self.schema.load().tables => None,
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
