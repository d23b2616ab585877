//! What it takes for a trigger to fire, by what it is told. Pure.

use std::time::Duration;

use crate::guard::Settings;
use crate::storage::Rehearsal;
use crate::telemetry::Trigger;

/// A share that nobody takes for noise, where the threshold is lower.
const SHARE_MIN: f64 = 0.1;
/// For the votes, the decision and the transition, besides what the trigger itself takes.
const MARGIN: Duration = Duration::from_secs(30);

/// The fault that makes a trigger fire; none when it is told so much that nothing would.
pub(super) fn provoke(
    trigger: Trigger,
    settings: &Settings,
    rpc_deadline: Duration,
) -> Option<Rehearsal> {
    match trigger {
        Trigger::Unavailable => Some(Rehearsal::Unavailable),
        Trigger::FailureRate => {
            let threshold = settings.failure_rate.threshold;
            let share = (threshold * 2.0).max(SHARE_MIN);
            // At most every second call, or it would rather look like an outage.
            let one_in = if share >= 0.5 {
                2
            } else {
                (1.0 / share) as u64
            };
            (threshold < 0.5).then_some(Rehearsal::FailureRate { one_in })
        }
        Trigger::LatencyDelta => {
            let threshold = duration(settings.latency_delta.threshold)?;
            // A reply may be held back for half of its time, see `Rehearsing::delay`.
            let by = (threshold * 2).min(rpc_deadline / 2);
            (by > threshold).then_some(Rehearsal::Latency { by })
        }
        Trigger::Inconsistency => {
            let threshold = settings.inconsistency.threshold.max(1.0);
            Some(Rehearsal::Inconsistency {
                replies: threshold.ceil() as u64,
            })
        }
    }
}

/// How long a trigger needs at most, provoked like this.
pub(super) fn usual_time(trigger: Trigger, settings: &Settings) -> Duration {
    let needed = match trigger {
        Trigger::Unavailable => settings.unavailable.over,
        Trigger::FailureRate => settings.failure_rate.window * settings.failure_rate.consecutive,
        Trigger::LatencyDelta => settings.latency_delta.window * settings.latency_delta.consecutive,
        // Until a write comes along.
        Trigger::Inconsistency => MARGIN,
    };
    (needed + MARGIN).min(super::DRILL_MAX)
}

fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RPC_DEADLINE: Duration = Duration::from_millis(1500);

    fn provoked(trigger: Trigger, change: impl FnOnce(&mut Settings)) -> Option<Rehearsal> {
        let mut settings = Settings::default();
        change(&mut settings);
        provoke(trigger, &settings, RPC_DEADLINE)
    }

    #[test]
    fn a_share_is_well_above_the_threshold_and_never_all() {
        let one_in = |threshold| {
            provoked(Trigger::FailureRate, |settings| {
                settings.failure_rate.threshold = threshold;
            })
        };
        let failing = |one_in| Some(Rehearsal::FailureRate { one_in });
        assert_eq!(one_in(0.01), failing(10));
        assert_eq!(one_in(0.1), failing(5));
        assert_eq!(one_in(0.4), failing(2));
        assert_eq!(one_in(0.5), None);
    }

    #[test]
    fn a_delay_is_twice_the_threshold_within_half_of_the_deadline() {
        let by = |threshold| {
            provoked(Trigger::LatencyDelta, |settings| {
                settings.latency_delta.threshold = threshold;
            })
        };
        let late = |ms| {
            Some(Rehearsal::Latency {
                by: Duration::from_millis(ms),
            })
        };
        assert_eq!(by(0.1), late(200));
        assert_eq!(by(0.5), late(750));
        assert_eq!(by(0.75), None, "nothing would be above it");
    }

    #[test]
    fn as_many_replies_are_altered_as_the_threshold_asks_for() {
        let replies = |threshold| {
            provoked(Trigger::Inconsistency, |settings| {
                settings.inconsistency.threshold = threshold;
            })
        };
        let altered = |replies| Some(Rehearsal::Inconsistency { replies });
        assert_eq!(replies(0.0), altered(1));
        assert_eq!(replies(2.5), altered(3));
    }

    #[test]
    fn a_drill_lasts_as_long_as_its_trigger_needs() {
        let settings = Settings::default();
        let seconds = |trigger| usual_time(trigger, &settings).as_secs();
        assert_eq!(seconds(Trigger::Unavailable), 32);
        assert_eq!(seconds(Trigger::LatencyDelta), 150);
    }
}
