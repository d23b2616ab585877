//! Records, divergences and entries, as the admin plane shows them: times as RFC 3339, names as in the CLI.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::rfc3339;
use crate::contract::Epoch;
use crate::control::{ActionRecord, TransitionRecord};
use crate::divergence::Divergence;
use crate::journal::OpenEntry;

/// One change of the control state.
#[derive(Serialize, Debug)]
pub(super) struct TransitionView {
    epoch: Epoch,
    at: String,
    step: String,
    kind: String,
    from: String,
    to: String,
    phase: String,
    actor: String,
    reason: String,
    ticket: Option<String>,
    forced: bool,
    evidence: Option<Box<RawValue>>,
}

/// One act.
#[derive(Serialize, Debug)]
pub(super) struct ActionView {
    id: i64,
    at: String,
    actor: String,
    action: String,
    reason: String,
    details: Option<Box<RawValue>>,
}

/// A confirmed divergence.
#[derive(Serialize, Debug)]
pub(super) struct DivergenceView {
    id: i64,
    at: String,
    first_at: String,
    seen: i64,
    table: String,
    kind: String,
    key: Option<String>,
    fields: String,
    explained: Option<String>,
    explained_until: Option<String>,
}

/// An open entry of the journal.
#[derive(Serialize, Debug)]
pub(super) struct EntryView {
    seq: i64,
    to: String,
    table: String,
    key: String,
    kind: String,
    /// `open`, or what it waits for besides time.
    state: String,
    age_seconds: i64,
    attempts: i64,
    op_id: Option<String>,
}

impl From<TransitionRecord> for TransitionView {
    fn from(record: TransitionRecord) -> Self {
        Self {
            epoch: record.epoch,
            at: rfc3339(record.at_us),
            step: record.step,
            kind: record.kind,
            from: record.from,
            to: record.to,
            phase: record.phase,
            actor: record.actor,
            reason: record.reason,
            ticket: record.ticket,
            forced: record.forced,
            evidence: json(record.evidence),
        }
    }
}

impl From<ActionRecord> for ActionView {
    fn from(record: ActionRecord) -> Self {
        Self {
            id: record.id,
            at: rfc3339(record.at_us),
            actor: record.actor,
            action: record.kind,
            reason: record.reason,
            details: json(record.details),
        }
    }
}

impl From<Divergence> for DivergenceView {
    fn from(line: Divergence) -> Self {
        Self {
            id: line.id,
            at: rfc3339(line.last_us),
            first_at: rfc3339(line.first_us),
            seen: line.seen,
            table: line.table,
            kind: line.kind,
            key: line.key,
            fields: line.fields,
            explained: line.explained,
            explained_until: line.explained_until_us.map(rfc3339),
        }
    }
}

impl From<OpenEntry> for EntryView {
    fn from(entry: OpenEntry) -> Self {
        Self {
            seq: entry.seq,
            to: entry.direction,
            table: entry.table,
            key: entry.key,
            kind: entry.kind,
            state: entry.parked.unwrap_or_else(|| "open".to_owned()),
            age_seconds: entry.age_seconds,
            attempts: entry.attempts,
            op_id: entry.op_id,
        }
    }
}

/// What the table holds is JSON, unless somebody edited it: then it is left out, and the chain says so.
fn json(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text).ok()
}
