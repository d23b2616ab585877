//! The one place where what a backend says becomes what a caller reads.

use serde_json::json;
use uuid::Uuid;

use crate::contract::{Code, Error, OpId};
use crate::journal::{Operation, OperationState};
use crate::legacy::WriteError;
use crate::sql::{Fault, Refusal};
use crate::storage::StorageError;

/// Whether a request reads or writes: doubt only matters for writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Read,
    Write,
}

pub(super) fn unknown_db(db: &str) -> Error {
    Error::new(
        Code::UnknownDb,
        format!("this proxy serves the database \"{db}\" only"),
    )
}

pub(super) fn unavailable(why: &str) -> Error {
    Error::new(
        Code::BackendUnavailable,
        format!("{why}; nothing was done, try again"),
    )
}

pub(super) fn unknown_outcome(op_id: OpId) -> Error {
    Error::new(
        Code::OutcomeUnknown,
        "the write may or may not have happened; repeat it with the same op_id to learn or finish it",
    )
    .with_op_id(op_id)
}

pub(super) fn task_failed() -> Error {
    internal("a request's task ended early")
}

/// A bug: the log and the caller get the same id.
pub(super) fn internal(what: &str) -> Error {
    let id = Uuid::now_v7();
    tracing::error!(%id, what, "internal error");
    Error::new(
        Code::Internal,
        "internal error; the log has more under this id",
    )
    .with_details(json!({ "id": id }))
}

/// A fault of the legacy database.
pub(super) fn from_fault(fault: Fault, effect: Effect, op_id: Option<OpId>) -> Error {
    match fault {
        Fault::Refused(refusal) => from_refusal(refusal),
        Fault::Unavailable(_) => unavailable("the legacy database cannot be reached"),
        Fault::TimedOut => match effect {
            Effect::Read => Error::new(Code::DeadlineExceeded, "the read took too long"),
            Effect::Write => unavailable("the write took too long and was rolled back"),
        },
        Fault::InDoubt(_) => match (effect, op_id) {
            (Effect::Write, Some(op_id)) => unknown_outcome(op_id),
            _ => unavailable("the legacy database went away"),
        },
        Fault::OtherSchema(_) => tables_are_changing(),
        Fault::Unexpected(what) => internal(&what),
    }
}

/// The database has other tables than are known, and nothing newer could be read yet.
pub(super) fn tables_are_changing() -> Error {
    unavailable("the tables are being changed")
}

/// Whether the request may be right for the tables as they are, and wrong only for those that are known.
pub(super) fn may_be_of_newer_tables(error: &Error) -> bool {
    matches!(error.code, Code::UnknownTable | Code::UnknownColumn)
}

fn from_refusal(refusal: Refusal) -> Error {
    let constraint = |name: String| json!({ "constraint": name });
    match refusal {
        Refusal::Unique(name) => Error::new(Code::Conflict, "a row with this unique value exists")
            .with_details(constraint(name)),
        Refusal::ForeignKey(name) => Error::new(Code::Constraint, "a foreign key refuses this")
            .with_details(constraint(name)),
        Refusal::Constraint(name) => {
            Error::new(Code::Constraint, "a constraint refuses this").with_details(constraint(name))
        }
        Refusal::Value(what) => Error::new(
            Code::TypeMismatch,
            format!("the database does not take a value of this request ({what})"),
        ),
        Refusal::StaleEpoch => unavailable("the stage is changing"),
        Refusal::Bypass => internal("the proxy was taken for a bypass writer"),
        Refusal::KeyHeld => unavailable("another write of this key is not finished"),
    }
}

/// A write to legacy that has no reply.
pub(super) fn from_write(error: WriteError, op_id: OpId) -> Error {
    match error {
        WriteError::Fault(fault) => from_fault(fault, Effect::Write, Some(op_id)),
        WriteError::Recorded(Operation {
            state: OperationState::Refused,
            reply,
            ..
        }) => refused_by_legacy(reply.as_deref()),
        WriteError::Recorded(_) => unknown_outcome(op_id),
        WriteError::OtherPayload => other_payload(op_id),
    }
}

/// A live write that storage took and legacy did not; it was taken back.
pub(super) fn refused_by_legacy(rule: Option<&str>) -> Error {
    Error::new(
        Code::Constraint,
        "the legacy database refuses this; nothing was changed",
    )
    .with_details(json!({ "constraint": rule }))
}

pub(super) fn other_payload(op_id: OpId) -> Error {
    Error::new(
        Code::Conflict,
        "this op_id was used with another payload; use a fresh one for another write",
    )
    .with_op_id(op_id)
}

/// A read that storage did not answer.
pub(super) fn from_storage_read(error: StorageError) -> Error {
    match error {
        StorageError::Rejected(error) => error,
        StorageError::Unavailable(_) => unavailable("the storage service cannot be reached"),
        StorageError::InDoubt(_) => Error::new(
            Code::DeadlineExceeded,
            "the storage service did not answer in time",
        ),
    }
}

/// A write that storage is the only backend of.
pub(super) fn from_storage_write(error: StorageError, op_id: OpId) -> Error {
    match error {
        StorageError::Rejected(error) => error,
        StorageError::Unavailable(_) => unavailable("the storage service cannot be reached"),
        StorageError::InDoubt(_) => unknown_outcome(op_id),
    }
}

pub(super) fn unsupported(what: &str) -> Error {
    Error::new(Code::Unsupported, what)
}

pub(super) fn no_transactions() -> Error {
    unsupported("the storage service has no transactions: write one row at a time in this stage")
}

pub(super) fn key_required(table: &str) -> Error {
    Error::new(
        Code::KeyRequired,
        format!("a row of \"{table}\" needs its whole primary key"),
    )
}

pub(super) fn too_many_rows(limit: u64) -> Error {
    Error::new(
        Code::TooLarge,
        format!("this write would change more than {limit} rows; narrow its where"),
    )
    .with_details(json!({ "limit": limit }))
}

pub(super) fn too_many_rows_read(limit: u64) -> Error {
    Error::new(
        Code::TooLarge,
        format!("this select finds more than {limit} rows; give it a limit, or a narrower where"),
    )
    .with_details(json!({ "limit": limit }))
}
