//! How a transaction is committed, and what its errors mean.

use sqlx::{AssertSqlSafe, Executor as _};

use super::db::TxInner;
use super::{Fault, Tx};

impl Tx {
    /// Commits. PostgreSQL answers the COMMIT of a failed transaction with a ROLLBACK that looks like
    /// success, so a transaction that saw an error refuses to.
    ///
    /// # Errors
    /// `InDoubt` when the connection was lost; a deferred constraint may refuse.
    pub async fn commit(self) -> Result<(), Fault> {
        self.may_commit()?;
        let committed = match self.inner {
            TxInner::Postgres(tx) => tx.commit().await,
            TxInner::Sqlite(tx) => tx.commit().await,
        };
        committed.map_err(|error| Fault::from(error).at_commit())
    }

    /// Runs a statement and commits, in one message: what the statement locks is held for as long as the database
    /// takes to commit, and not for a round trip to a process that may have to wait for its turn. PostgreSQL's
    /// alone: SQLite is in this process.
    ///
    /// # Errors
    /// Those of the statement, and then nothing was committed; those of `commit`.
    pub async fn commit_after(mut self, statement: &str) -> Result<(), Fault> {
        self.may_commit()?;
        match &mut self.inner {
            // The transaction that is chained to it is empty; dropping `self` ends it.
            TxInner::Postgres(tx) => {
                let both = format!("{statement}; COMMIT AND CHAIN");
                let committed = tx.execute(sqlx::raw_sql(AssertSqlSafe(both))).await;
                committed
                    .map(drop)
                    .map_err(|error| Fault::from(error).at_commit())
            }
            TxInner::Sqlite(_) => Err(Fault::Unexpected(
                "only PostgreSQL commits in one message".to_owned(),
            )),
        }
    }

    fn may_commit(&self) -> Result<(), Fault> {
        match self.failed {
            true => Err(Fault::Unexpected(
                "commit of a failed transaction".to_owned(),
            )),
            false => Ok(()),
        }
    }
}
