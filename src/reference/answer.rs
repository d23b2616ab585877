//! What the service answers: a status and JSON text, ready for either transport and for the record.

use crate::contract::{Error, Reply};

/// The answer to one request, or to one item of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    /// The HTTP status; over AMQP it is the header `x-cutover-status`.
    pub(super) status: u16,
    /// A reply, or `{"error": {…}}`.
    pub(super) json: String,
}

impl Answer {
    /// Whether the request was carried out.
    pub(super) fn is_done(&self) -> bool {
        self.status < 400
    }

    /// A member of a `batch` reply: the reply, or `{"error": {…}}`.
    pub(super) fn into_item(self) -> String {
        self.json
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        Self {
            status: error.code.http_status(),
            json: error.to_json(),
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self {
            status: 200,
            json: reply.into_json(),
        }
    }
}

impl From<Result<Reply, Error>> for Answer {
    fn from(outcome: Result<Reply, Error>) -> Self {
        match outcome {
            Ok(reply) => reply.into(),
            Err(error) => error.into(),
        }
    }
}
