//! Advisory locks: what several replicas must not do at once.

use super::{Arg, Dialect, Fault, Tx};

impl Tx {
    /// Takes an advisory lock until the transaction ends. On SQLite the transaction is the lock already.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn lock(&mut self, key: i64) -> Result<(), Fault> {
        match self.dialect() {
            Dialect::Postgres => self
                .fetch(
                    "SELECT pg_advisory_xact_lock($1)::text",
                    vec![Arg::from(key)],
                )
                .await
                .map(drop),
            Dialect::Sqlite => Ok(()),
        }
    }
}
