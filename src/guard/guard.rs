//! The state machine: samples in, verdicts out, at most one decision.

use std::time::Duration;

use super::latency::Pairs;
use super::run::{HOLE, Run};
use super::window::{Findings, Outcomes, Ring};
use super::{Decision, Electorate, Limit, Remedy, Settings, Situation, Standing, Verdict};
use crate::telemetry::Trigger;

/// Something that was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sample {
    /// A call of storage ended. A refusal is an answer; a timeout is a failure.
    Call {
        /// From when it was sent.
        took: Duration,
        /// Whether storage failed.
        failed: bool,
    },
    /// The same call went to both, and both answered.
    Pair {
        /// How long legacy took.
        legacy: Duration,
        /// How long storage took.
        storage: Duration,
    },
    /// The two sides were compared.
    Compared,
    /// A divergence was confirmed.
    Diverged,
}

/// The four triggers.
#[derive(Debug)]
pub struct Guard {
    settings: Settings,
    calls: Ring<Outcomes>,
    /// The calls that say whether `unavailable` sees anything.
    recent: Ring<Outcomes>,
    pairs: Ring<Pairs>,
    findings: Ring<Findings>,
    run: Run,
    /// Since when each trigger is above its threshold at every evaluation, by `Trigger as usize`.
    above_since: [Option<Duration>; 4],
    situation: Option<Situation>,
    decision: Option<Decision>,
}

/// What a trigger measures, before it is judged.
#[derive(Clone, Copy)]
struct Measured {
    value: f64,
    samples: u64,
    above: bool,
}

impl Guard {
    /// With empty windows.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            calls: Ring::new(settings.failure_rate.window),
            recent: Ring::new(HOLE),
            pairs: Ring::new(settings.latency_delta.window),
            findings: Ring::new(settings.inconsistency.window),
            settings,
            run: Run::default(),
            above_since: [None; 4],
            situation: None,
            decision: None,
        }
    }

    /// What the triggers are told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tells them something else. A window of another length begins empty; the others go on.
    pub fn set_settings(&mut self, settings: Settings) {
        let (old, new) = (&self.settings, &settings);
        if old.failure_rate.window != new.failure_rate.window {
            self.calls = Ring::new(new.failure_rate.window);
        }
        if old.latency_delta.window != new.latency_delta.window {
            self.pairs = Ring::new(new.latency_delta.window);
        }
        if old.inconsistency.window != new.inconsistency.window {
            self.findings = Ring::new(new.inconsistency.window);
        }
        if old != new {
            // What was decided or begun by other rules is decided anew.
            self.above_since = [None; 4];
            self.decision = None;
        }
        self.settings = settings;
    }

    /// Counts what ended at `now`, which never goes back by more than the samples' races.
    pub fn record(&mut self, sample: Sample, now: Duration) {
        match sample {
            Sample::Call { took, failed } => {
                let count = |outcomes: &mut Outcomes| {
                    outcomes.calls += 1;
                    outcomes.failed += u64::from(failed);
                };
                self.calls.record(now, count);
                self.recent.record(now, count);
                if failed {
                    self.run.failed(now.saturating_sub(took), now);
                } else {
                    self.run.succeeded(now);
                }
            }
            Sample::Pair { legacy, storage } => {
                self.pairs.record(now, |pairs| pairs.add(legacy, storage));
            }
            Sample::Compared => self.findings.record(now, |findings| findings.compared += 1),
            Sample::Diverged => self.findings.record(now, |findings| {
                findings.compared += 1;
                findings.confirmed += 1;
            }),
        }
    }

    /// Whether calls are failing at this moment.
    #[must_use]
    pub fn is_failing(&self, now: Duration) -> bool {
        self.run.length(now).0 > 0
    }

    /// Every trigger's verdict, in the order of `Trigger::ALL`.
    pub fn evaluate(&mut self, situation: &Situation, now: Duration) -> Vec<Verdict> {
        self.follow(situation);
        Trigger::ALL
            .iter()
            .map(|trigger| self.judge(*trigger, situation, now))
            .collect()
    }

    /// The decision that stands, or the one that these verdicts lead to: the strongest remedy, and of two
    /// triggers that ask for the same the first.
    pub fn decide(
        &mut self,
        verdicts: &[Verdict],
        situation: &Situation,
        electorate: &Electorate,
    ) -> Option<Decision> {
        if self.decision.is_none() {
            let mut decided: Option<Decision> = None;
            for verdict in verdicts {
                let Some(remedy) = self.called_for(verdict, situation) else {
                    continue;
                };
                let stronger = match decided.as_ref().map(|one| one.remedy) {
                    None => true,
                    Some(Remedy::Freeze) => remedy != Remedy::Freeze,
                    Some(Remedy::Rollback(_)) => false,
                };
                if stronger && electorate.carries(verdict.trigger, self.settings.quorum) {
                    let epoch = situation.epoch;
                    decided = Some(Decision::new(verdict.clone(), remedy, epoch, electorate));
                }
            }
            self.decision = decided;
        }
        self.decision.clone()
    }

    /// What a verdict calls for, whatever the other replicas see.
    #[must_use]
    pub fn called_for(&self, verdict: &Verdict, situation: &Situation) -> Option<Remedy> {
        match verdict.standing {
            Standing::Fired => situation.remedy(verdict.action, self.settings.rollback_to),
            Standing::Off | Standing::Ok | Standing::Near | Standing::Blind => None,
        }
    }

    /// The decision that stands, if any.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// Drops a decision that was refused; what still fires decides anew.
    pub fn withdraw(&mut self) {
        self.decision = None;
    }

    fn follow(&mut self, situation: &Situation) {
        let before = self.situation.replace(*situation);
        let Some(before) = before else { return };
        if before.epoch != situation.epoch {
            self.decision = None;
        }
        if !situation.continues(&before) {
            self.calls.clear();
            self.recent.clear();
            self.pairs.clear();
            self.findings.clear();
            self.run = Run::default();
            self.above_since = [None; 4];
        }
    }

    fn judge(&mut self, trigger: Trigger, situation: &Situation, now: Duration) -> Verdict {
        let (limit, measured) = self.measure(trigger, now);
        let blind = measured.samples < u64::from(limit.min_samples);
        let above = measured.above && !blind && situation.watches(trigger);
        let since = &mut self.above_since[trigger as usize];
        *since = match (above, *since) {
            (true, since) => since.or(Some(now)),
            (false, _) => None,
        };
        let enough = limit.window * limit.consecutive.saturating_sub(1);
        let fired = since.is_some_and(|since| now.saturating_sub(since) >= enough);
        let standing = if !situation.watches(trigger) {
            Standing::Off
        } else if fired {
            Standing::Fired
        } else if blind {
            Standing::Blind
        } else if above || measured.value > limit.threshold / 2.0 {
            Standing::Near
        } else {
            Standing::Ok
        };
        Verdict {
            trigger,
            action: limit.action,
            standing,
            value: measured.value,
            threshold: limit.threshold,
            samples: measured.samples,
            window: limit.window,
        }
    }

    fn measure(&mut self, trigger: Trigger, now: Duration) -> (Limit, Measured) {
        match trigger {
            Trigger::FailureRate => {
                let limit = self.settings.failure_rate;
                let Outcomes { calls, failed } = *self.calls.total(now);
                let value = failed as f64 / calls.max(1) as f64;
                (limit, Measured::new(value, calls, value > limit.threshold))
            }
            Trigger::Inconsistency => {
                let limit = self.settings.inconsistency;
                let found = *self.findings.total(now);
                let value = found.confirmed as f64;
                let above = found.confirmed > 0 && value >= limit.threshold;
                (limit, Measured::new(value, found.compared, above))
            }
            Trigger::LatencyDelta => {
                let limit = self.settings.latency_delta;
                let pairs = self.pairs.total(now);
                let value = pairs.delta_seconds();
                let above = value > limit.threshold;
                (limit, Measured::new(value, pairs.count, above))
            }
            Trigger::Unavailable => {
                let outage = self.settings.unavailable;
                let (failures, over) = self.run.length(now);
                let limit = Limit {
                    threshold: f64::from(outage.failures),
                    window: outage.over,
                    min_samples: 1,
                    consecutive: 1,
                    action: outage.action,
                };
                let above = failures >= outage.failures && over >= outage.over;
                let calls = self.recent.total(now).calls;
                (limit, Measured::new(f64::from(failures), calls, above))
            }
        }
    }
}

impl Measured {
    fn new(value: f64, samples: u64, above: bool) -> Self {
        Self {
            value,
            samples,
            above,
        }
    }
}
