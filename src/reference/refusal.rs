//! What a database's fault means for the request.

use uuid::Uuid;

use crate::contract::{Code, Error};
use crate::sql::{Fault, Refusal};

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is refused for good: recorded, so that a repeat is refused too.
    Refused(Error),
    /// Nothing can be said for good (unreachable, timed out, in doubt): not recorded.
    Passing(Error),
    /// The statement is wrong: the tables may have changed since they were read.
    Shape(Fault),
}

/// A fault of a read: nothing ever happened.
pub(super) fn of_read(fault: Fault) -> Failure {
    match fault {
        Fault::Refused(refusal) => Failure::Refused(refused(refusal)),
        Fault::TimedOut => Failure::Passing(Error::new(
            Code::DeadlineExceeded,
            "the database took too long",
        )),
        Fault::Unavailable(why) | Fault::InDoubt(why) => Failure::Passing(unreachable(&why)),
        fault @ (Fault::OtherSchema(_) | Fault::Unexpected(_)) => Failure::Shape(fault),
    }
}

/// A fault of a write, up to and including its commit.
pub(super) fn of_write(fault: Fault) -> Failure {
    match fault {
        Fault::Refused(refusal) => Failure::Refused(refused(refusal)),
        Fault::TimedOut => Failure::Passing(unreachable("timed out and rolled back")),
        Fault::Unavailable(why) => Failure::Passing(unreachable(&why)),
        Fault::InDoubt(why) => Failure::Passing(unknown(&why)),
        fault @ (Fault::OtherSchema(_) | Fault::Unexpected(_)) => Failure::Shape(fault),
    }
}

/// A fault while taking an attempt's place: another send of it may be running and may yet commit.
pub(super) fn of_taking(fault: Fault) -> Failure {
    match fault {
        Fault::Refused(refusal) => Failure::Refused(refused(refusal)),
        fault @ (Fault::TimedOut | Fault::Unavailable(_) | Fault::InDoubt(_)) => {
            Failure::Passing(unknown(&fault.to_string()))
        }
        fault @ (Fault::OtherSchema(_) | Fault::Unexpected(_)) => Failure::Shape(fault),
    }
}

/// The error to answer where nothing is recorded or retried.
pub(super) fn to_answer(failure: Failure) -> Error {
    match failure {
        Failure::Refused(error) | Failure::Passing(error) => error,
        Failure::Shape(Fault::OtherSchema(_)) => unreachable("its tables are being changed"),
        Failure::Shape(fault) => internal(&fault),
    }
}

/// The write's outcome cannot be told.
pub(super) fn unknown(why: &str) -> Error {
    tracing::warn!(why, "the outcome of a write is not known");
    Error::new(
        Code::OutcomeUnknown,
        "the database did not say whether the write happened",
    )
}

/// A bug, or a database that is not as it was read; the log has the same id.
pub(super) fn internal(fault: &Fault) -> Error {
    let id = Uuid::new_v4();
    tracing::error!(%id, %fault, "a statement failed");
    Error::new(Code::Internal, format!("internal error {id}"))
}

fn unreachable(why: &str) -> Error {
    tracing::warn!(why, "the database is out of reach");
    Error::new(
        Code::BackendUnavailable,
        "the service's database cannot be reached; nothing was done",
    )
}

fn refused(refusal: Refusal) -> Error {
    let named = |code, what: &str, name: String| {
        Error::new(code, format!("{what} `{name}`"))
            .with_details(serde_json::json!({ "constraint": name }))
    };
    match refusal {
        Refusal::Unique(name) => named(Code::Conflict, "unique constraint", name),
        Refusal::ForeignKey(name) => named(Code::Constraint, "foreign key", name),
        Refusal::Constraint(name) => named(Code::Constraint, "constraint", name),
        Refusal::Value(why) => {
            Error::new(Code::TypeMismatch, format!("a value does not fit: {why}"))
        }
        Refusal::StaleEpoch | Refusal::Bypass | Refusal::KeyHeld => Error::new(
            Code::Constraint,
            "this database is guarded by a proxy and cannot be the storage service's own",
        ),
    }
}
