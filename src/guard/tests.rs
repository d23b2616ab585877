//! What holds on every sequence of samples, and what holds on the plain ones.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::contract::Epoch;
use crate::stage::Stage;

const STEP: Duration = Duration::from_millis(100);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Windows of five seconds, twenty samples.
fn settings() -> Settings {
    let default = Settings::default();
    let short = |limit: Limit| Limit {
        window: Duration::from_secs(5),
        min_samples: limit.min_samples.min(20),
        ..limit
    };
    Settings {
        failure_rate: short(default.failure_rate),
        inconsistency: short(default.inconsistency),
        latency_delta: short(default.latency_delta),
        ..default
    }
}

fn call(failed: bool) -> Sample {
    Sample::Call {
        took: ms(5),
        failed,
    }
}

fn pair(storage_ms: u64) -> Sample {
    Sample::Pair {
        legacy: ms(2),
        storage: ms(storage_ms),
    }
}

/// A guard, its clock and where it stands.
struct Bench {
    guard: Guard,
    now: Duration,
    situation: Situation,
}

impl Bench {
    fn new(stage: Stage) -> Self {
        Self {
            guard: Guard::new(settings()),
            now: Duration::from_secs(1000),
            situation: Situation::at(stage),
        }
    }

    /// Records samples at once, then evaluates and decides alone.
    fn step(&mut self, gap: Duration, samples: &[Sample]) -> (Vec<Verdict>, Option<Decision>) {
        self.now += gap;
        for sample in samples {
            self.guard.record(*sample, self.now);
        }
        let verdicts = self.guard.evaluate(&self.situation, self.now);
        let alone = Electorate::default();
        let decision = self.guard.decide(&verdicts, &self.situation, &alone);
        (verdicts, decision)
    }

    /// The first decision, and when it was made, over steps with the same samples.
    fn decides(&mut self, steps: usize, samples: &[Sample]) -> Option<(Decision, Duration)> {
        let start = self.now;
        (0..steps).find_map(|_| {
            let decision = self.step(STEP, samples).1;
            decision.map(|decision| (decision, self.now - start))
        })
    }

    fn standing(&mut self, trigger: Trigger) -> Standing {
        let (verdicts, _) = self.step(Duration::ZERO, &[]);
        verdicts[trigger as usize].standing
    }
}

#[test]
fn a_high_failure_rate_is_rolled_back_from_live_with_its_evidence() {
    let mut bench = Bench::new(Stage::Live);
    let (decision, after) = bench.decides(100, &[call(true), call(false)]).unwrap();
    assert_eq!(decision.verdict.trigger, Trigger::FailureRate);
    assert_eq!(decision.remedy, Remedy::Rollback(Stage::DualWrite));
    assert!(after <= ms(1100), "{after:?}");
    assert_eq!(decision.evidence()["samples"], 20);
    assert!(decision.reason().contains("50.00 %"), "{decision:?}");
}

#[test]
fn before_live_the_same_only_freezes_and_in_off_nothing_is_watched() {
    let failing = [call(true), call(false)];
    let mut shadow = Bench::new(Stage::Shadow);
    let (decision, _) = shadow.decides(100, &failing).unwrap();
    assert_eq!(decision.remedy, Remedy::Freeze);
    for stage in [Stage::Off, Stage::Complete] {
        let mut idle = Bench::new(stage);
        assert_eq!(idle.decides(100, &failing), None);
        assert_eq!(idle.standing(Trigger::FailureRate), Standing::Off);
    }
}

#[test]
fn a_slow_storage_is_rolled_back_after_its_second_window() {
    let mut bench = Bench::new(Stage::Live);
    let slow = [pair(400), call(false)];
    let (decision, after) = bench.decides(200, &slow).unwrap();
    assert_eq!(decision.verdict.trigger, Trigger::LatencyDelta);
    // The first twenty samples take two seconds; one more window follows the first that is bad.
    assert!(after >= ms(7000) && after <= ms(7200), "{after:?}");
}

#[test]
fn one_window_below_the_threshold_begins_the_count_anew() {
    let mut bench = Bench::new(Stage::Live);
    let slow = [pair(400), call(false)];
    assert_eq!(bench.decides(60, &slow), None);
    assert_eq!(bench.standing(Trigger::LatencyDelta), Standing::Near);
    bench.step(Duration::ZERO, &[pair(3); 1000]);
    assert_eq!(bench.standing(Trigger::LatencyDelta), Standing::Ok);
    // The fast ones leave the window after five seconds; only then it is above again, and for a window more.
    let (_, after) = bench.decides(200, &slow).unwrap();
    assert!(after >= ms(9000), "{after:?}");
}

#[test]
fn one_confirmed_divergence_is_enough() {
    let mut bench = Bench::new(Stage::Live);
    let (_, decision) = bench.step(STEP, &[Sample::Diverged]);
    let verdict = decision.unwrap().verdict;
    assert_eq!(
        (verdict.trigger, verdict.value),
        (Trigger::Inconsistency, 1.0)
    );
}

#[test]
fn without_samples_a_trigger_is_blind_and_says_so() {
    let mut bench = Bench::new(Stage::Live);
    assert_eq!(bench.standing(Trigger::FailureRate), Standing::Blind);
    assert_eq!(bench.standing(Trigger::LatencyDelta), Standing::Blind);
    assert_eq!(bench.standing(Trigger::Unavailable), Standing::Blind);
    bench.step(STEP, &[call(false)]);
    assert_eq!(bench.standing(Trigger::FailureRate), Standing::Blind);
    assert_eq!(bench.standing(Trigger::Unavailable), Standing::Ok);
}

#[test]
fn what_only_observes_fires_and_moves_nothing() {
    let mut bench = Bench::new(Stage::Live);
    let mut settings = settings();
    settings.inconsistency.action = Action::Observe;
    bench.guard.set_settings(settings);
    assert_eq!(bench.step(STEP, &[Sample::Diverged]).1, None);
    assert_eq!(bench.standing(Trigger::Inconsistency), Standing::Fired);
}

#[test]
fn old_samples_do_not_fire_again_after_a_rollback_and_a_rearm() {
    let mut bench = Bench::new(Stage::Live);
    assert!(bench.decides(100, &[call(true)]).is_some());
    bench.situation = Situation {
        epoch: Epoch(5),
        latched: true,
        ..Situation::at(Stage::DualWrite)
    };
    assert_eq!(bench.step(STEP, &[]).1, None);
    bench.situation.epoch = Epoch(6);
    bench.situation.latched = false;
    assert_eq!(bench.step(STEP, &[]).1, None);
    assert_eq!(bench.standing(Trigger::FailureRate), Standing::Blind);
}

#[test]
fn a_freeze_and_a_rearm_between_two_looks_are_not_missed() {
    let mut bench = Bench::new(Stage::DualWrite);
    assert!(bench.decides(100, &[call(true)]).is_some());
    bench.situation.epoch = Epoch(6);
    assert_eq!(bench.step(STEP, &[]).1, None);
    assert_eq!(bench.standing(Trigger::FailureRate), Standing::Blind);
}

#[test]
fn an_advance_keeps_what_was_measured_and_a_verdict_only_forgets_divergences() {
    let mut bench = Bench::new(Stage::DualWrite);
    bench.situation.storage_stale = true;
    for _ in 0..20 {
        bench.step(STEP, &[call(false), pair(2), Sample::Diverged]);
    }
    bench.situation.storage_stale = false;
    assert_eq!(bench.standing(Trigger::Inconsistency), Standing::Ok);
    bench.situation.stage = Stage::Shadow;
    assert_eq!(bench.standing(Trigger::FailureRate), Standing::Ok);
    assert_eq!(bench.standing(Trigger::LatencyDelta), Standing::Ok);
}

#[test]
fn a_decision_outlives_the_recovery_of_what_it_was_made_on_until_the_epoch_moves() {
    let mut bench = Bench::new(Stage::Live);
    let (first, _) = bench.decides(100, &[call(true)]).unwrap();
    for _ in 0..100 {
        let (_, still) = bench.step(STEP, &[call(false)]);
        assert_eq!(still.as_ref(), Some(&first));
    }
    bench.situation.epoch = Epoch(5);
    assert_eq!(bench.step(STEP, &[call(false)]).1, None);
}

#[test]
fn of_two_triggers_the_stronger_remedy_is_taken() {
    let mut bench = Bench::new(Stage::Live);
    let mut settings = settings();
    settings.failure_rate.action = Action::Freeze;
    bench.guard.set_settings(settings);
    let failing = [call(true); 20];
    let (_, decision) = bench.step(STEP, &[&failing[..], &[Sample::Diverged]].concat());
    assert_eq!(decision.unwrap().verdict.trigger, Trigger::Inconsistency);
}

#[test]
fn without_a_majority_nothing_is_decided() {
    let mut bench = Bench::new(Stage::Live);
    bench.now += STEP;
    for _ in 0..20 {
        bench.guard.record(call(true), bench.now);
    }
    let verdicts = bench.guard.evaluate(&bench.situation, bench.now);
    let mut decided = |others: [&str; 2]| {
        let electorate = Electorate::of(others);
        bench
            .guard
            .decide(&verdicts, &bench.situation, &electorate)
            .is_some()
    };
    assert!(!decided(["", "unavailable"]));
    assert!(decided(["", "unavailable,failure_rate"]));
}

#[test]
fn probes_are_sent_often_enough_for_every_trigger() {
    assert_eq!(Settings::default().probe_every(), ms(240));
    assert_eq!(settings().probe_every(), ms(200));
}

fn any_sample() -> impl Strategy<Value = Sample> {
    prop_oneof![
        4 => (0..2000_u64, any::<bool>()).prop_map(|(took, failed)| Sample::Call {
            took: ms(took),
            failed
        }),
        2 => (0..500_u64, 0..1500_u64).prop_map(|(legacy, storage)| Sample::Pair {
            legacy: ms(legacy),
            storage: ms(storage)
        }),
        2 => Just(Sample::Compared),
        1 => Just(Sample::Diverged),
    ]
}

/// Gaps, and what arrives at once after each.
fn any_steps() -> impl Strategy<Value = Vec<(u64, Vec<Sample>)>> {
    let step = (0..700_u64, prop::collection::vec(any_sample(), 0..6));
    prop::collection::vec(step, 0..80)
}

fn watched_stage() -> impl Strategy<Value = Stage> {
    prop::sample::select(vec![
        Stage::DualWrite,
        Stage::Shadow,
        Stage::Live,
        Stage::RampDown,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_is_at_most_one_decision_until_the_epoch_moves(
        stage in watched_stage(),
        steps in any_steps(),
    ) {
        let mut bench = Bench::new(stage);
        let mut first: Option<Decision> = None;
        for (gap, samples) in steps {
            let (_, decision) = bench.step(ms(gap), &samples);
            if first.is_some() {
                prop_assert_eq!(&decision, &first);
            }
            first = decision;
        }
    }

    #[test]
    fn nothing_fires_below_its_samples(stage in watched_stage(), steps in any_steps()) {
        let mut bench = Bench::new(stage);
        for (gap, samples) in steps {
            for verdict in bench.step(ms(gap), &samples).0 {
                let enough = match verdict.trigger {
                    Trigger::FailureRate | Trigger::LatencyDelta => 20,
                    Trigger::Inconsistency => 1,
                    Trigger::Unavailable => 5,
                };
                if verdict.standing == Standing::Fired {
                    prop_assert!(verdict.samples >= enough, "{:?}", verdict);
                }
            }
        }
    }

    #[test]
    fn a_storage_that_is_down_is_always_rolled_back_in_time(
        before in any_steps(),
        every in 50..250_u64,
        takes in prop::collection::vec(0..1500_u64, 1..20),
    ) {
        let mut bench = Bench::new(Stage::Live);
        for (gap, samples) in before {
            bench.step(ms(gap), &samples);
        }
        let down_at = bench.now;
        let mut ends: Vec<(Duration, Duration)> = (0..4000 / every)
            .map(|number| {
                let took = ms(takes[usize::try_from(number).unwrap() % takes.len()]);
                (down_at + ms(number * every) + took, took)
            })
            .collect();
        ends.sort();
        let mut decided_at = None;
        for (end, took) in ends {
            let failed = Sample::Call { took, failed: true };
            let (_, decision) = bench.step(end - bench.now, &[failed]);
            decided_at = decided_at.or(decision.map(|_| bench.now));
        }
        // Two seconds, the next call, and the deadline it takes to fail.
        let within = ms(2000 + 250 + 1500);
        prop_assert!(decided_at.is_some_and(|at| at <= down_at + within), "{:?}", decided_at);
    }

    #[test]
    fn the_order_of_samples_at_the_same_instant_decides_nothing(
        stage in watched_stage(),
        steps in any_steps(),
    ) {
        let (mut one, mut other) = (Bench::new(stage), Bench::new(stage));
        for (gap, samples) in steps {
            let backwards: Vec<Sample> = samples.iter().rev().copied().collect();
            prop_assert_eq!(one.step(ms(gap), &samples), other.step(ms(gap), &backwards));
        }
    }
}
