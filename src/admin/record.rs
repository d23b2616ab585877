//! Records of the audit, as the admin plane shows them.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::rfc3339;
use crate::contract::Epoch;
use crate::control::{ActionRecord, ChainReport, TransitionRecord};

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
    kind: String,
    reason: String,
    details: Option<Box<RawValue>>,
}

/// Whether the audit is whole.
#[derive(Serialize, Debug)]
pub(super) struct ChainView {
    intact: bool,
    transitions: u64,
    actions: u64,
    broken: Vec<String>,
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
            kind: record.kind,
            reason: record.reason,
            details: json(record.details),
        }
    }
}

impl From<ChainReport> for ChainView {
    fn from(report: ChainReport) -> Self {
        Self {
            intact: report.intact(),
            transitions: report.transitions,
            actions: report.actions,
            broken: report.broken,
        }
    }
}

/// What the table holds is JSON, unless somebody edited it: then it is left out, and the chain says so.
fn json(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text).ok()
}
