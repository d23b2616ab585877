//! The errors a caller can see: a closed set of codes, each with its HTTP status.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::OpId;

/// Why a request was not answered. The set is part of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// The request is not well-formed, or has members the contract does not know.
    InvalidRequest,
    /// `db` is not the database this proxy serves.
    UnknownDb,
    /// The table is not configured.
    UnknownTable,
    /// The table has no such column.
    UnknownColumn,
    /// A value does not fit its column's type.
    TypeMismatch,
    /// An update or delete that can match everything, without `"all": true`.
    UnboundedWrite,
    /// A key is missing that nobody may make up.
    KeyRequired,
    /// Well-formed, but not possible here.
    Unsupported,
    /// The door asks for a token.
    Unauthorized,
    /// The token does not allow this.
    Forbidden,
    /// No such path.
    NotFound,
    /// A unique constraint, or an operation id used again with another payload.
    Conflict,
    /// `expected_epoch` is not the epoch.
    PreconditionFailed,
    /// Body or result over its limit.
    TooLarge,
    /// Foreign key, check or not-null constraint.
    Constraint,
    /// Shed: nothing was done.
    Overloaded,
    /// The authority cannot be reached: nothing was done.
    BackendUnavailable,
    /// A read took too long.
    DeadlineExceeded,
    /// A write may or may not have happened; repeat it with the same operation id.
    OutcomeUnknown,
    /// A bug; the log has the same id.
    Internal,
}

/// The error reply of the contract: `{"error": {"code", "message", "retryable", "op_id"?, "details"?}}`.
#[derive(Clone, PartialEq, Debug)]
pub struct Error {
    /// What kind of error.
    pub code: Code,
    /// For people: what is wrong and what to do. Never holds a row's value.
    pub message: String,
    /// The write's operation id, when there is one to repeat.
    pub op_id: Option<OpId>,
    /// For programs: the table, column or limit concerned.
    pub details: Option<Value>,
}

impl Code {
    /// Every code, for metrics and documentation.
    pub const ALL: [Self; 20] = [
        Self::InvalidRequest,
        Self::UnknownDb,
        Self::UnknownTable,
        Self::UnknownColumn,
        Self::TypeMismatch,
        Self::UnboundedWrite,
        Self::KeyRequired,
        Self::Unsupported,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::Constraint,
        Self::Overloaded,
        Self::BackendUnavailable,
        Self::DeadlineExceeded,
        Self::OutcomeUnknown,
        Self::Internal,
    ];

    /// The code as it is spelled on the wire and in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownDb => "unknown_db",
            Self::UnknownTable => "unknown_table",
            Self::UnknownColumn => "unknown_column",
            Self::TypeMismatch => "type_mismatch",
            Self::UnboundedWrite => "unbounded_write",
            Self::KeyRequired => "key_required",
            Self::Unsupported => "unsupported",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::Constraint => "constraint",
            Self::Overloaded => "overloaded",
            Self::BackendUnavailable => "backend_unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Internal => "internal",
        }
    }

    /// The code a wire spelling stands for, if it is one of ours.
    #[must_use]
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The HTTP status that goes with the code (RFC 9110).
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest
            | Self::UnknownDb
            | Self::UnknownTable
            | Self::UnknownColumn
            | Self::TypeMismatch
            | Self::UnboundedWrite
            | Self::KeyRequired
            | Self::Unsupported => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::Constraint => 422,
            Self::Overloaded | Self::BackendUnavailable => 503,
            Self::DeadlineExceeded | Self::OutcomeUnknown => 504,
            Self::Internal => 500,
        }
    }

    /// Whether the same request, sent again, may succeed.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::BackendUnavailable
                | Self::DeadlineExceeded
                | Self::OutcomeUnknown
        )
    }
}

impl Error {
    /// An error with a message and nothing else.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            op_id: None,
            details: None,
        }
    }

    /// The same error, naming the operation to repeat.
    #[must_use]
    pub fn with_op_id(mut self, op_id: OpId) -> Self {
        self.op_id = Some(op_id);
        self
    }

    /// The same error, with details for programs.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// The reply body, `{"error": {…}}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: &'a str,
            message: &'a str,
            retryable: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            op_id: Option<OpId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a Value>,
        }
        let body = Body {
            error: Inner {
                code: self.code.as_str(),
                message: &self.message,
                retryable: self.code.retryable(),
                op_id: self.op_id,
                details: self.details.as_ref(),
            },
        };
        // Strings, a bool and JSON always serialize.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Error {}
