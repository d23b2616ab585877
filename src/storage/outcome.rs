//! What became of a call: the one place that turns an ending into a reaction.
//!
//! Whatever is not certainly a reply, a refusal or "never executed" is a doubt (invariant I9). A service that knows no
//! `x-cutover-status` answers a bare value or `{"error": …}`; a status alone, from a gateway say, still counts
//! where it certainly means a refusal.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::contract::{self, Code, OpId, Reply, Row};

/// A reply larger than this is not looked at.
pub(super) const REPLY_BYTES_MAX: usize = 64 << 20;

/// Why a call to storage has no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The service refused it and remembers that it did: it certainly did not happen.
    #[error("rejected: {0}")]
    Rejected(contract::Error),
    /// It was never executed (unroutable, connection refused, shed): it certainly did not happen.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Sent, and no answer: it may have happened, or may still happen until its deadline.
    #[error("in doubt: {0}")]
    InDoubt(String),
}

/// How a call ended, as its transport saw it.
#[derive(Debug)]
pub(super) enum Ending {
    /// It never reached the service.
    NotSent(String),
    /// It was sent, and then the answer or the connection was lost.
    Lost(String),
    /// It was sent, and nothing came in time.
    TimedOut,
    /// The service answered, or something in its place.
    Answered {
        /// The HTTP status, if the transport carried one.
        status: Option<u16>,
        /// The payload.
        body: Vec<u8>,
    },
}

/// `{"error": {…}}`, and nothing beside it: a row always has more, its key at least.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorBody {
    error: WireError,
}

#[derive(Deserialize)]
struct WireError {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    op_id: Option<OpId>,
    #[serde(default)]
    details: Option<Value>,
}

impl StorageError {
    /// The `kind` label of `cutover_backend_errors_total`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Unavailable(_) => "unavailable",
            Self::InDoubt(_) => "in_doubt",
        }
    }

    /// The service cannot do this at all; nothing was sent.
    pub(super) fn unsupported(what: &str) -> Self {
        let message = format!("the storage service does not have `{what}`");
        Self::Rejected(contract::Error::new(Code::Unsupported, message))
    }
}

/// The reaction to an ending.
pub(super) fn outcome(ending: Ending) -> Result<Reply, StorageError> {
    match ending {
        Ending::NotSent(why) => Err(StorageError::Unavailable(why)),
        Ending::Lost(why) => Err(StorageError::InDoubt(why)),
        Ending::TimedOut => Err(StorageError::InDoubt("no answer in time".to_owned())),
        Ending::Answered { body, .. } if body.len() > REPLY_BYTES_MAX => {
            Err(StorageError::InDoubt("the reply is too large".to_owned()))
        }
        Ending::Answered { status, body } => answered(status, body),
    }
}

/// The reaction to one item of a batch's reply: the row, if it has one, in the shape of a reply to one key.
pub(super) fn item(reply: Value) -> Result<Option<Row>, StorageError> {
    match reply {
        Value::Null => Ok(None),
        Value::Object(row) => match ErrorBody::deserialize(&row) {
            Ok(body) => Err(refused(None, body.error)),
            Err(_) => Ok(Some(row)),
        },
        _ => Err(StorageError::InDoubt("an item is not a row".to_owned())),
    }
}

fn answered(status: Option<u16>, body: Vec<u8>) -> Result<Reply, StorageError> {
    // Serde also reads a struct from an array: one row with a column named `code` is no error.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    if is_object && let Ok(body) = serde_json::from_slice::<ErrorBody>(&body) {
        return Err(refused(status, body.error));
    }
    match status {
        None | Some(200..=299) => match String::from_utf8(body) {
            Ok(text) if serde_json::from_str::<IgnoredAny>(&text).is_ok() => {
                Ok(Reply::from_json(text))
            }
            Ok(_) | Err(_) => Err(StorageError::InDoubt("the reply is not JSON".to_owned())),
        },
        Some(status) => Err(by_status(status, format!("HTTP status {status}"))),
    }
}

fn refused(status: Option<u16>, error: WireError) -> StorageError {
    match Code::from_wire(&error.code) {
        Some(code) => by_code(contract::Error {
            code,
            message: error.message,
            op_id: error.op_id,
            details: error.details,
        }),
        None => match status {
            Some(status) => by_status(status, error.message),
            None => StorageError::InDoubt("an error of an unknown code".to_owned()),
        },
    }
}

/// The reaction to each code of the contract.
fn by_code(error: contract::Error) -> StorageError {
    match error.code {
        Code::InvalidRequest
        | Code::UnknownDb
        | Code::UnknownTable
        | Code::UnknownColumn
        | Code::TypeMismatch
        | Code::UnboundedWrite
        | Code::KeyRequired
        | Code::Unsupported
        | Code::Conflict
        | Code::PreconditionFailed
        | Code::TooLarge
        | Code::Constraint => StorageError::Rejected(error),
        // Our credentials or our address are not accepted: that is between us and the service, and no
        // answer to a caller's request.
        Code::Unauthorized
        | Code::Forbidden
        | Code::NotFound
        | Code::Overloaded
        | Code::BackendUnavailable => StorageError::Unavailable(error.to_string()),
        Code::DeadlineExceeded | Code::OutcomeUnknown | Code::Internal => {
            StorageError::InDoubt(error.to_string())
        }
    }
}

/// The reaction to a status without a code of ours. Only a 4xx says that nothing was done, and of those not
/// a timeout (408) or a throttle (429), which may come from in front of the service or behind it.
fn by_status(status: u16, message: String) -> StorageError {
    let code = match status {
        401 => Code::Unauthorized,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        409 => Code::Conflict,
        412 => Code::PreconditionFailed,
        413 => Code::TooLarge,
        422 => Code::Constraint,
        408 | 429 => return StorageError::InDoubt(message),
        400..=499 => Code::InvalidRequest,
        _ => return StorageError::InDoubt(message),
    };
    by_code(contract::Error::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<u16>, body: &str) -> Result<Reply, StorageError> {
        outcome(Ending::Answered {
            status,
            body: body.as_bytes().to_vec(),
        })
    }

    fn kind(result: Result<Reply, StorageError>) -> &'static str {
        result.map_or_else(|error| error.kind(), |_| "reply")
    }

    fn error_body(code: &str) -> String {
        format!(r#"{{"error":{{"code":"{code}","message":"m","retryable":false}}}}"#)
    }

    #[test]
    fn every_code_means_the_same_with_and_without_a_status() {
        for code in Code::ALL {
            let expected = match code {
                Code::Unauthorized
                | Code::Forbidden
                | Code::NotFound
                | Code::Overloaded
                | Code::BackendUnavailable => "unavailable",
                Code::DeadlineExceeded | Code::OutcomeUnknown | Code::Internal => "in_doubt",
                _ => "rejected",
            };
            let body = error_body(code.as_str());
            for status in [None, Some(200), Some(code.http_status())] {
                assert_eq!(kind(answer(status, &body)), expected, "{code:?} {status:?}");
            }
        }
    }

    #[test]
    fn bare_replies_of_a_service_without_statuses_are_replies() {
        for body in [
            "[]",
            "null",
            r#"[{"id":1}]"#,
            r#"{"id":1}"#,
            r#"{"count":3}"#,
        ] {
            assert_eq!(answer(None, body).unwrap().as_json(), body);
            assert_eq!(answer(Some(200), body).unwrap().as_json(), body);
        }
    }

    #[test]
    fn a_row_with_a_column_named_error_is_a_row() {
        let row = r#"{"id":1,"error":{"code":"internal","message":"m"}}"#;
        assert_eq!(kind(answer(None, row)), "reply");
    }

    #[test]
    fn one_row_with_a_column_named_code_is_a_row() {
        let rows = r#"[{"code":"conflict","worth":1}]"#;
        for status in [None, Some(200)] {
            assert_eq!(kind(answer(status, rows)), "reply");
        }
    }

    #[test]
    fn a_status_alone_is_believed_only_where_it_certainly_means_a_refusal() {
        for (status, expected) in [
            (400, "rejected"),
            (401, "unavailable"),
            (403, "unavailable"),
            (404, "unavailable"),
            (409, "rejected"),
            (418, "rejected"),
            (408, "in_doubt"),
            (429, "in_doubt"),
            (302, "in_doubt"),
            (500, "in_doubt"),
            (502, "in_doubt"),
            (503, "in_doubt"),
            (504, "in_doubt"),
        ] {
            assert_eq!(kind(answer(Some(status), "oops")), expected, "{status}");
        }
        let conflict = answer(Some(409), "").unwrap_err();
        assert!(matches!(conflict, StorageError::Rejected(error) if error.code == Code::Conflict));
    }

    #[test]
    fn what_cannot_be_read_is_in_doubt() {
        for body in ["", "{", "nul", "[1", "\u{feff}[]"] {
            assert_eq!(kind(answer(None, body)), "in_doubt", "{body:?}");
            assert_eq!(kind(answer(Some(200), body)), "in_doubt", "{body:?}");
        }
        assert_eq!(kind(answer(None, &error_body("no_such_code"))), "in_doubt");
        let huge = Ending::Answered {
            status: Some(200),
            body: vec![b' '; REPLY_BYTES_MAX + 1],
        };
        assert_eq!(kind(outcome(huge)), "in_doubt");
    }

    #[test]
    fn only_what_never_left_is_unavailable() {
        assert_eq!(kind(outcome(Ending::NotSent(String::new()))), "unavailable");
        assert_eq!(kind(outcome(Ending::Lost(String::new()))), "in_doubt");
        assert_eq!(kind(outcome(Ending::TimedOut)), "in_doubt");
    }

    #[test]
    fn an_error_keeps_its_message_and_details() {
        let body = r#"{"error":{"code":"conflict","message":"taken","details":{"table":"t"}}}"#;
        let Err(StorageError::Rejected(error)) = answer(None, body) else {
            panic!("not rejected");
        };
        assert_eq!(error.message, "taken");
        assert_eq!(error.details, Some(serde_json::json!({"table": "t"})));
    }
}
