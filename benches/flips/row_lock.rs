//! A stranger that holds the lock of a row.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// A session in a transaction; what it holds is free again when it is closed.
pub(crate) struct RowLock {
    session: PgConnection,
}

impl RowLock {
    /// Locks what a `SELECT … FOR UPDATE` finds.
    pub(crate) async fn take(url: &str, sql: &str) -> Self {
        let mut session = PgConnection::connect(url).await.expect("a session");
        let sql = format!("BEGIN; {sql}");
        session.execute(AssertSqlSafe(sql)).await.expect("the lock");
        Self { session }
    }

    /// Lets go.
    pub(crate) async fn release(self) {
        self.session.close().await.expect("a clean goodbye");
    }
}
