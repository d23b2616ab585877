//! What comes beside a request: headers over either transport, members in a batch item.

use serde_json::Value;
use uuid::Uuid;

use crate::contract::{AttemptId, BatchItem, Code, Error, Key};
use crate::storage::{Capabilities, Capability};

/// The promises a sender asks for. None is required: the plan's own `StorageClient` sends none.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Members {
    /// Unix time in milliseconds after which the write must not commit.
    pub(super) deadline_ms: Option<i64>,
    /// This send.
    pub(super) attempt_id: Option<AttemptId>,
    /// Fence tokens by key.
    pub(super) fences: Vec<(Key, i64)>,
    /// The broker delivers it again. What was answered the first time is not known, unless it was recorded;
    /// it may have been "nothing was done", so an attempt is not executed for the first time now.
    pub(super) redelivered: bool,
}

impl Members {
    /// Reads `deadline`, `attempt_id` and `fences` (a JSON object) by name from a transport's headers.
    ///
    /// # Errors
    /// `invalid_request` when one of them is malformed: a promise that is not understood cannot be kept.
    pub(super) fn read(header: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let malformed = |name: &str| {
            Error::new(
                Code::InvalidRequest,
                format!("header `{name}` is malformed"),
            )
        };
        let deadline_ms = header("deadline")
            .map(|text| text.parse().map_err(|_| malformed("deadline")))
            .transpose()?;
        let attempt_id = header("attempt_id")
            .map(|text| Uuid::parse_str(&text).map_err(|_| malformed("attempt_id")))
            .transpose()?
            .map(AttemptId);
        let fences = header("fences")
            .map(|text| fences(&text).ok_or_else(|| malformed("fences")))
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            deadline_ms,
            attempt_id,
            fences,
            redelivered: false,
        })
    }

    /// The members of one item of a batch that came with these.
    pub(super) fn of_item(&self, item: &BatchItem) -> Self {
        Self {
            deadline_ms: Some(item.deadline_ms),
            attempt_id: Some(item.attempt_id),
            fences: item.fences.clone(),
            redelivered: self.redelivered,
        }
    }

    /// The same, as far as the service has the capabilities.
    pub(super) fn limited_to(mut self, capabilities: &Capabilities) -> Self {
        if !capabilities.has(Capability::Deadline) {
            self.deadline_ms = None;
        }
        if !capabilities.has(Capability::AttemptId) {
            self.attempt_id = None;
        }
        if !capabilities.has(Capability::Fencing) {
            self.fences.clear();
        }
        self
    }
}

fn fences(text: &str) -> Option<Vec<(Key, i64)>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let fences = value.as_object()?.iter();
    fences
        .map(|(key, token)| Some((Key(key.clone()), token.as_i64()?)))
        .collect()
}
