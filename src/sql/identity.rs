//! Which database this is, and what time it has: how lost history and clock skew are noticed.

use super::{Db, Fault};

/// What changes when a database is replaced by another or loses history (rule P16).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// PostgreSQL's system identifier (given by initdb, kept by standbys and base backups); where it may
    /// not be read, the database's name and oid. `sqlite` on SQLite.
    pub system: String,
    /// PostgreSQL's timeline, which grows with every failover and point-in-time recovery; 0 where it may
    /// not be read, and on SQLite.
    pub timeline: i64,
}

const SYSTEM: &str = "SELECT system_identifier::text FROM pg_control_system()";
const SYSTEM_FALLBACK: &str =
    "SELECT datname || '/' || oid::text FROM pg_database WHERE datname = current_database()";
// The control file knows a new timeline only after a checkpoint; the name of the WAL segment at once.
const TIMELINE: &str = "SELECT CASE WHEN pg_is_in_recovery() \
    THEN (SELECT timeline_id::int8 FROM pg_control_checkpoint()) \
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8 END";

/// The database's identity.
///
/// # Errors
/// See [`Fault`].
pub async fn identity(db: &Db) -> Result<Identity, Fault> {
    if let Db::Sqlite(_) = db {
        return Ok(Identity {
            system: "sqlite".to_owned(),
            timeline: 0,
        });
    }
    let system = match db.fetch(SYSTEM, Vec::new()).await {
        Err(fault) if fault.is_not_permitted() => db.fetch(SYSTEM_FALLBACK, Vec::new()).await,
        result => result,
    }?;
    let timeline = match db.fetch(TIMELINE, Vec::new()).await {
        Err(fault) if fault.is_not_permitted() => db.fetch("SELECT 0::int8", Vec::new()).await,
        result => result,
    }?;
    let no_row = || Fault::Unexpected("no identity".to_owned());
    Ok(Identity {
        system: system.first().ok_or_else(no_row)?.some_text(0)?,
        timeline: timeline.first().ok_or_else(no_row)?.some_int(0)?,
    })
}

impl Db {
    /// The database's clock, in unix microseconds (SQLite's has milliseconds).
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn now_us(&self) -> Result<i64, Fault> {
        let sql = match self {
            Self::Postgres(_) => "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8",
            Self::Sqlite(_) => "SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        };
        let records = self.fetch(sql, Vec::new()).await?;
        let record = records
            .first()
            .ok_or_else(|| Fault::Unexpected("no clock".to_owned()))?;
        record.some_int(0)
    }
}
