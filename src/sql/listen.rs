//! Notifications of PostgreSQL: a hint that something changed, never a fact.
//!
//! What was sent while the connection was down is lost, so a lost connection is told and the listener
//! reads the truth again. SQLite has no notifications: there is one process, and it polls.

use sqlx::postgres::PgListener;

use super::{Db, Fault};

/// Listens on one channel, with a connection of its own from the pool.
#[derive(Debug)]
pub struct Listener {
    inner: Option<PgListener>,
}

impl Listener {
    /// Starts to listen; whatever is notified after this returns is received.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn start(db: &Db, channel: &str) -> Result<Self, Fault> {
        let inner = match db {
            Db::Postgres(pool) => {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.listen(channel).await?;
                Some(listener)
            }
            Db::Sqlite(_) => None,
        };
        Ok(Self { inner })
    }

    /// Waits for the next notification and returns its payload. Never returns on SQLite.
    ///
    /// # Errors
    /// `Unavailable` when the connection was lost: notifications may have been missed. The next call
    /// listens on a new connection.
    pub async fn recv(&mut self) -> Result<String, Fault> {
        let lost = |why: String| Fault::Unavailable(format!("notifications were lost: {why}"));
        match &mut self.inner {
            None => std::future::pending().await,
            Some(listener) => match listener.try_recv().await {
                Ok(Some(notification)) => Ok(notification.payload().to_owned()),
                Ok(None) => Err(lost("connection closed".to_owned())),
                Err(error) => Err(lost(error.to_string())),
            },
        }
    }
}
