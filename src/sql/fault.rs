//! What went wrong in a database, told apart by what it means for the write.
//!
//! The question is never "which error" but "did it happen": a fault is a refusal (certainly not), out of
//! reach (certainly not), or in doubt (a commit whose answer was lost).

use sqlx::error::{DatabaseError, ErrorKind};

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The database refused it: nothing happened.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It was not started, or was rolled back, for a reason that will pass: nothing happened.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The statement ran into its time limit and was rolled back: nothing happened.
    #[error("timed out")]
    TimedOut,
    /// The connection was lost while it ran: it may have happened.
    #[error("in doubt: {0}")]
    InDoubt(String),
    /// The tables are not what the statement was written for: nothing happened, and it has to be written anew
    /// for the tables as they are.
    #[error("another schema: {0}")]
    OtherSchema(String),
    /// The statement is wrong: a bug.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// A refusal by the database.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A unique constraint, by name.
    #[error("unique constraint {0}")]
    Unique(String),
    /// A foreign key, by name.
    #[error("foreign key {0}")]
    ForeignKey(String),
    /// A check, not-null or exclusion constraint, by name or column.
    #[error("constraint {0}")]
    Constraint(String),
    /// A value that the type does not take (SQLSTATE class 22).
    #[error("value: {0}")]
    Value(String),
    /// The gate: the writer's epoch is not the epoch.
    #[error("stale epoch")]
    StaleEpoch,
    /// The gate: this writer bypasses the proxy and may not.
    #[error("bypass refused")]
    Bypass,
    /// The gate: the journal's open entry of a key keeps this write out.
    #[error("key is held")]
    KeyHeld,
}

/// SQLSTATEs that the capture trigger raises.
pub(crate) const STALE_EPOCH: &str = "CT001";
pub(crate) const BYPASS_REFUSED: &str = "CT002";
pub(crate) const KEY_HELD: &str = "CT003";

/// SQLSTATEs of a session that the server ended: `admin_shutdown`, `crash_shutdown`, `cannot_connect_now`,
/// `database_dropped`.
const ENDED: [&str; 4] = ["57P01", "57P02", "57P03", "57P04"];

impl Fault {
    /// Whether the fault means that the statement certainly had no effect.
    #[must_use]
    pub fn nothing_happened(&self) -> bool {
        !matches!(self, Self::InDoubt(_))
    }

    /// The constraint of the database's own that refused the statement, or the class of value.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Refused(
                Refusal::Unique(rule)
                | Refusal::ForeignKey(rule)
                | Refusal::Constraint(rule)
                | Refusal::Value(rule),
            ) => Some(rule),
            Self::Refused(Refusal::StaleEpoch | Refusal::Bypass | Refusal::KeyHeld)
            | Self::Unavailable(_)
            | Self::TimedOut
            | Self::InDoubt(_)
            | Self::OtherSchema(_)
            | Self::Unexpected(_) => None,
        }
    }

    /// Whether the gate refused the writer's epoch.
    #[must_use]
    pub fn is_stale_epoch(&self) -> bool {
        matches!(self, Self::Refused(Refusal::StaleEpoch))
    }
}

impl Fault {
    /// What it means as the answer to a COMMIT: a session that the server ended may have committed before.
    pub(super) fn at_commit(self) -> Self {
        match self {
            Self::Unavailable(why) if ENDED.iter().any(|state| why.ends_with(state)) => {
                Self::InDoubt(why)
            }
            other => other,
        }
    }

    /// Whether the statement met other tables than it was written for.
    #[must_use]
    pub fn is_other_schema(&self) -> bool {
        matches!(self, Self::OtherSchema(_))
    }

    /// Whether the role may not do this (`insufficient privilege`), or the server has no such function.
    pub(crate) fn is_not_permitted(&self) -> bool {
        matches!(self, Self::Unexpected(why) if why.starts_with("42501 ") || why.starts_with("42883 "))
    }
}

/// `SQLITE_BUSY`, `SQLITE_LOCKED` and their extended codes.
const SQLITE_LOCKED: [&str; 6] = ["5", "6", "261", "262", "517", "773"];

/// Whether SQLite says that somebody else has the file locked.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| SQLITE_LOCKED.contains(&code.as_ref()))
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => from_database(error.as_ref()),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unavailable(error.to_string())
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::InDoubt(error.to_string())
            }
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => {
                Self::Unavailable(error.to_string())
            }
            other => Self::Unexpected(other.to_string()),
        }
    }
}

fn from_database(error: &dyn DatabaseError) -> Fault {
    let code = error.code().unwrap_or_default();
    let name = || error.constraint().unwrap_or_default().to_owned();
    match error.kind() {
        ErrorKind::UniqueViolation => return Fault::Refused(Refusal::Unique(name())),
        ErrorKind::ForeignKeyViolation => return Fault::Refused(Refusal::ForeignKey(name())),
        ErrorKind::NotNullViolation | ErrorKind::CheckViolation | ErrorKind::ExclusionViolation => {
            return Fault::Refused(Refusal::Constraint(name()));
        }
        _ => {}
    }
    match code.as_ref() {
        STALE_EPOCH => return Fault::Refused(Refusal::StaleEpoch),
        BYPASS_REFUSED => return Fault::Refused(Refusal::Bypass),
        KEY_HELD => return Fault::Refused(Refusal::KeyHeld),
        // query_canceled
        "57014" => return Fault::TimedOut,
        // cardinality_violation: one upsert names a key twice
        // idle_in_transaction_session_timeout: the session was ended, and what it had not committed with it
        "25P03" => return Fault::Unavailable(format!("SQLSTATE {code}")),
        "21000" => return Fault::Refused(Refusal::Unique("the same key twice".to_owned())),
        // undefined_column, datatype_mismatch: a column was dropped, renamed or changed its type
        "42703" | "42804" => return Fault::OtherSchema(format!("{code} {}", error.message())),
        // feature_not_supported, as a prepared statement says it whose result changed its type
        "0A000" if error.message().starts_with("cached plan") => {
            return Fault::OtherSchema(format!("{code} {}", error.message()));
        }
        _ => {}
    }
    match code.get(..2) {
        // data exception: the value's type, never its text, which the message may quote
        Some("22") => Fault::Refused(Refusal::Value(format!("SQLSTATE {code}"))),
        // integrity constraint violation
        Some("23") => Fault::Refused(Refusal::Constraint(name())),
        // connection lost; rolled back (serialization, deadlock); resources; lock not available; shutdown
        Some("08" | "40" | "53" | "55" | "57") => Fault::Unavailable(format!("SQLSTATE {code}")),
        _ => sqlite_or_unexpected(&code, error.message()),
    }
}

/// SQLite has numbers, and the capture triggers' RAISE carries only text.
fn sqlite_or_unexpected(code: &str, message: &str) -> Fault {
    for (mark, refusal) in [
        (STALE_EPOCH, Refusal::StaleEpoch),
        (BYPASS_REFUSED, Refusal::Bypass),
        (KEY_HELD, Refusal::KeyHeld),
    ] {
        if message.contains(mark) {
            return Fault::Refused(refusal);
        }
    }
    if message.starts_with("no such column") || message.contains(" has no column named ") {
        return Fault::OtherSchema(message.to_owned());
    }
    match code {
        _ if SQLITE_LOCKED.contains(&code) => {
            Fault::Unavailable("the SQLite database is locked".to_owned())
        }
        _ => Fault::Unexpected(format!("{code} {message}")),
    }
}
