//! What is on record about the migration, as `status` shows it.

use serde::Serialize;

use super::AdminState;
use super::readiness::Asked;
use crate::clock::rfc3339;
use crate::control::FlagFile;
use crate::evidence::{Baseline, Verified};
use crate::observe::{CallKind, Summary};
use crate::stage::{Backend, Stage};

/// The last full verify of a backend.
#[derive(Serialize, Debug)]
pub(super) struct VerifiedView {
    backend: Backend,
    at: String,
    age_seconds: f64,
    clean: bool,
    actor: String,
}

/// Callers' latency in `off`, and lately.
#[derive(Serialize, Debug)]
pub(super) struct BaselineView {
    read: KindView,
    write: KindView,
}

/// One kind of call; no numbers without samples.
#[derive(Serialize, Debug)]
struct KindView {
    at: Option<String>,
    samples: i64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    now_samples: usize,
    now_p95_ms: Option<f64>,
}

/// What became of the flag file.
#[derive(Serialize, Debug)]
pub(super) struct FlagFileView {
    asks: Option<Stage>,
    disagrees: bool,
    result: Option<String>,
}

impl From<&Verified> for VerifiedView {
    fn from(last: &Verified) -> Self {
        Self {
            backend: last.backend,
            at: rfc3339(last.at_us),
            age_seconds: last.age_us as f64 / 1e6,
            clean: last.clean,
            actor: last.actor.clone(),
        }
    }
}

impl BaselineView {
    pub(super) fn new(state: &AdminState, asked: Option<&Asked>) -> Self {
        let kind = |kind: CallKind| {
            let known = asked.map_or(&[][..], |asked| &asked.baselines);
            let baseline = known.iter().find(|one| one.kind == kind.as_str());
            KindView::new(baseline, &state.observer.caller_latency(kind).since)
        };
        Self {
            read: kind(CallKind::Read),
            write: kind(CallKind::Write),
        }
    }
}

impl KindView {
    fn new(baseline: Option<&Baseline>, now: &Summary) -> Self {
        let ms = |us: i64| us as f64 / 1000.0;
        Self {
            at: baseline.map(|one| rfc3339(one.at_us)),
            samples: baseline.map_or(0, |one| one.samples),
            p50_ms: baseline.map(|one| ms(one.p50_us)),
            p95_ms: baseline.map(|one| ms(one.p95_us)),
            now_samples: now.samples,
            now_p95_ms: (now.samples > 0).then_some(now.p95_ms),
        }
    }
}

impl FlagFileView {
    pub(super) fn new(file: &FlagFile, stage: Stage) -> Self {
        let (asks, result) = match file {
            FlagFile::Absent => (None, None),
            FlagFile::Bad(why) => (None, Some(format!("bad: {why}"))),
            FlagFile::Consumed { asked, result } => (Some(*asked), Some(result.clone())),
            FlagFile::Waiting(asked) => (Some(*asked), Some("waiting".to_owned())),
        };
        Self {
            asks,
            disagrees: file.disagrees(stage),
            result,
        }
    }
}
