//! The story of a drill: what happened when, counted from the fault. Pure, over what is on record.

use serde::Serialize;

use super::record::{Committed, Drill, Marks, Moment, Outcome};
use crate::clock::rfc3339;
use crate::contract::Epoch;
use crate::control::Replica;
use crate::telemetry::Trigger;

/// A drill, as people and programs see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Names it.
    pub id: i64,
    /// What it provokes.
    pub trigger: &'static str,
    /// Who began it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// When it began.
    pub started: String,
    /// When it ends at the latest.
    pub until: String,
    /// How long until then.
    pub left_seconds: u64,
    /// How it ended; none while it goes on.
    pub outcome: Option<Outcome>,
    /// What happened, in the order in which it should.
    pub timeline: Vec<Event>,
    /// The transition, once there is one.
    pub transition: Option<TransitionView>,
    /// The epoch that each replica has acknowledged.
    pub replicas: Vec<ReplicaView>,
    /// What is missing, and why.
    pub notes: Vec<String>,
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Event {
    /// Which.
    pub event: &'static str,
    /// Milliseconds after the fault; none until it happened.
    pub ms: Option<i64>,
    /// When, by the database's clock.
    pub at: Option<String>,
}

/// The transition of the audit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TransitionView {
    epoch: Epoch,
    to: String,
    actor: String,
    reason: String,
}

/// A replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ReplicaView {
    id: String,
    epoch: Epoch,
    leased: bool,
}

/// The transition among the moments.
const COMMITTED: &str = "transition_committed";

impl Report {
    /// Of what is on record.
    pub(super) fn of(
        drill: &Drill,
        committed: Option<Committed>,
        marks: &Marks,
        replicas: &[Replica],
    ) -> Self {
        // A rollback long after a drill that had ended is not the drill's.
        let committed = committed.filter(|_| match drill.ended {
            None | Some(Outcome::RolledBack) => true,
            Some(Outcome::TimeUp | Outcome::Cancelled | Outcome::Moved) => false,
        });
        Self {
            id: drill.id,
            trigger: drill.trigger.as_str(),
            actor: drill.actor.clone(),
            reason: drill.reason.clone(),
            epoch: drill.epoch,
            started: rfc3339(drill.started_us),
            until: rfc3339(drill.until_us),
            left_seconds: drill.left().as_secs(),
            outcome: drill.ended,
            timeline: timeline(committed.as_ref(), marks),
            notes: notes(drill, committed.as_ref(), marks),
            transition: committed.map(|one| TransitionView {
                epoch: one.epoch,
                to: one.to,
                actor: one.actor,
                reason: one.reason,
            }),
            replicas: replicas
                .iter()
                .map(|one| ReplicaView {
                    id: one.id.clone(),
                    epoch: one.epoch,
                    leased: one.leased,
                })
                .collect(),
        }
    }
}

fn timeline(committed: Option<&Committed>, marks: &Marks) -> Vec<Event> {
    let fault_us = seen(marks, Moment::Fault);
    let event = |event, at_us: Option<i64>| Event {
        event,
        ms: at_us.zip(fault_us).map(|(at, fault)| (at - fault) / 1000),
        at: at_us.map(rfc3339),
    };
    Moment::ALL
        .into_iter()
        .flat_map(|moment| {
            let before = (moment == Moment::Replicas)
                .then(|| event(COMMITTED, committed.map(|one| one.at_us)));
            before
                .into_iter()
                .chain([event(moment.as_str(), seen(marks, moment))])
        })
        .collect()
}

fn seen(marks: &Marks, moment: Moment) -> Option<i64> {
    let found = marks.iter().find(|(one, _)| *one == moment);
    found.map(|(_, at_us)| *at_us)
}

fn notes(drill: &Drill, committed: Option<&Committed>, marks: &Marks) -> Vec<String> {
    let Some(outcome) = drill.ended else {
        return vec![];
    };
    let is_there = |moment| seen(marks, moment).is_some();
    let mut notes = vec![];
    match outcome {
        Outcome::RolledBack => {
            if let Some(other) = committed.filter(|one| one.actor != drill.trigger.as_str()) {
                notes.push(format!(
                    "the rollback was made by {}, before {} fired",
                    other.actor, drill.trigger
                ));
            }
            if !is_there(Moment::Replicas) {
                notes.push("a replica has not acknowledged the new epoch yet".to_owned());
            }
            if !is_there(Moment::Answer) {
                notes.push(
                    "no caller was answered soon after the rollback: nobody asked".to_owned(),
                );
            }
        }
        Outcome::TimeUp if !is_there(Moment::BadSample) => notes.push(match drill.trigger {
            Trigger::Inconsistency => {
                "no write of single rows came whose reply could be altered".to_owned()
            }
            Trigger::FailureRate | Trigger::LatencyDelta | Trigger::Unavailable => {
                "storage was not called".to_owned()
            }
        }),
        Outcome::TimeUp => notes.push(format!(
            "{} did not fire in time: see it in `cutover status`, or give it longer by --for",
            drill.trigger
        )),
        Outcome::Cancelled | Outcome::Moved => {}
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(ended: Option<Outcome>) -> Drill {
        Drill {
            id: 3,
            trigger: Trigger::Unavailable,
            epoch: Epoch(7),
            actor: "ada".to_owned(),
            reason: "rehearsal".to_owned(),
            started_us: 900_000,
            until_us: 33_000_000,
            ended,
            now_us: 1_000_000,
        }
    }

    fn committed(actor: &str) -> Committed {
        Committed {
            epoch: Epoch(8),
            at_us: 3_062_000,
            to: "dual_write".to_owned(),
            actor: actor.to_owned(),
            reason: "calls failed".to_owned(),
        }
    }

    fn report(ended: Option<Outcome>, by: Option<&str>, marks: &[(Moment, i64)]) -> Report {
        Report::of(&drill(ended), by.map(committed), &marks.to_vec(), &[])
    }

    const ALL_SEEN: [(Moment, i64); 5] = [
        (Moment::Answer, 3_100_000),
        (Moment::Fault, 1_000_000),
        (Moment::BadSample, 1_012_000),
        (Moment::Decision, 3_050_000),
        (Moment::Replicas, 3_090_000),
    ];

    #[test]
    fn events_are_counted_from_the_fault_and_told_in_the_order_in_which_they_should_happen() {
        let report = report(Some(Outcome::RolledBack), Some("unavailable"), &ALL_SEEN);
        let told: Vec<_> = report
            .timeline
            .iter()
            .map(|event| (event.event, event.ms.unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("fault", 0),
                ("first_bad_sample", 12),
                ("decision", 2050),
                ("transition_committed", 2062),
                ("replicas_on_new_epoch", 2090),
                ("answered_by_legacy", 2100),
            ]
        );
        assert_eq!(report.notes, [""; 0]);
        assert_eq!(report.left_seconds, 32);
    }

    #[test]
    fn what_has_not_happened_is_null_and_nothing_is_relative_to_a_fault_that_was_not() {
        let report = report(None, None, &[(Moment::Fault, 1_000_000)]);
        let ms: Vec<_> = report.timeline.iter().map(|event| event.ms).collect();
        assert_eq!(ms, [Some(0), None, None, None, None, None]);
        assert_eq!(report.notes, [""; 0], "it goes on");
        let unseen = Report::of(&drill(None), Some(committed("ada")), &vec![], &[]);
        assert!(unseen.timeline.iter().all(|event| event.ms.is_none()));
        assert!(unseen.timeline[3].at.is_some());
    }

    #[test]
    fn what_is_missing_at_the_end_is_explained() {
        let by_hand = report(Some(Outcome::RolledBack), Some("ada"), &ALL_SEEN[1..]);
        assert_eq!(
            by_hand.notes,
            [
                "the rollback was made by ada, before unavailable fired",
                "no caller was answered soon after the rollback: nobody asked"
            ]
        );
        let quiet = report(Some(Outcome::TimeUp), None, &ALL_SEEN[1..2]);
        assert_eq!(quiet.notes, ["storage was not called"]);
        let slow = report(Some(Outcome::TimeUp), None, &ALL_SEEN[1..3]);
        assert!(slow.notes[0].starts_with("unavailable did not fire in time"));
        assert_eq!(report(Some(Outcome::Cancelled), None, &[]).notes, [""; 0]);
    }

    #[test]
    fn a_rollback_long_after_a_cancelled_drill_is_not_the_drills() {
        let report = report(Some(Outcome::Cancelled), Some("unavailable"), &[]);
        assert_eq!(report.transition, None);
        assert!(report.timeline.iter().all(|event| event.at.is_none()));
    }
}
