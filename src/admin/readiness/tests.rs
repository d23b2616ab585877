//! Every blocker, and what it does not block.

use super::*;
use crate::contract::Epoch;
use crate::evidence::CallersLately;
use crate::telemetry::DriftKind;

fn snapshot(stage: Stage) -> Snapshot {
    Snapshot {
        epoch: Epoch(3),
        stage,
        phase: Phase::Steady,
        drain_to: None,
        drain_deadline_us: None,
        generation: 1,
        since_us: 0,
        reason: String::new(),
        actor: String::new(),
        latched: false,
        bypass_refused: false,
        legacy_stale: false,
        storage_stale: false,
        deadline_last_us: 0,
        pinned: false,
    }
}

fn replica(id: &str) -> Replica {
    Replica {
        id: id.to_owned(),
        version: "1".to_owned(),
        config_digest: "a".to_owned(),
        epoch: Epoch(3),
        silent: Duration::ZERO,
        leased: true,
        dirty: false,
        votes: String::new(),
        callers: String::new(),
    }
}

const HOUR_US: i64 = 3_600_000_000;

/// A day in which everything went well.
fn asked() -> Asked {
    let tally = |op: &str| Tally {
        table: "campaigns".to_owned(),
        op: op.to_owned(),
        asked: 200,
        compared: 150,
    };
    Asked {
        backfill_under_way: false,
        owed: Owed::default(),
        divergences_open: 0,
        replicas: vec![replica("one"), replica("two")],
        skew: Skew::default(),
        verified: Some(Verified {
            backend: Backend::Storage,
            at_us: 0,
            age_us: HOUR_US,
            clean: true,
            clean_age_us: Some(HOUR_US),
            epoch: Epoch(3),
            actor: "ada".to_owned(),
        }),
        shadow: Some(Entered {
            epoch: Epoch(2),
            age_us: 25 * HOUR_US,
        }),
        compared: vec![tally("select"), tally("upsert")],
        bypassed: vec![],
        baselines: vec![Baseline {
            kind: "read".to_owned(),
            samples: 100,
            p50_us: 1_000,
            p95_us: 5_000,
            at_us: 0,
        }],
        sequences: vec![],
        app_triggers: vec![],
    }
}

fn facts<'a>(
    snapshot: &'a Snapshot,
    asked: Option<&'a Asked>,
    settings: &'a config::Readiness,
) -> Facts<'a> {
    Facts {
        snapshot,
        asked,
        storage_up: true,
        highest_stage: Stage::Complete,
        clock_skew_max: Duration::from_millis(500),
        settings,
        now_us: 0,
        backfill_under_way: false,
        maintenance: vec![],
        tables: vec!["campaigns".to_owned()],
        pending_tables: vec![],
        triggers: vec![],
        drift: vec![],
    }
}

fn judged(facts: &Facts<'_>) -> Vec<&'static str> {
    let readiness = Readiness::judge(facts);
    assert_eq!(
        readiness.ready,
        readiness.next.is_some() && readiness.blockers.is_empty()
    );
    readiness.blockers.iter().map(|one| one.code).collect()
}

/// The blockers of `live` after something else was on record than a good day.
fn before_live(change: impl FnOnce(&mut Asked)) -> Vec<&'static str> {
    let mut asked = asked();
    change(&mut asked);
    codes(&snapshot(Stage::Shadow), Some(&asked))
}

fn codes(snapshot: &Snapshot, asked: Option<&Asked>) -> Vec<&'static str> {
    judged(&facts(snapshot, asked, &config::Readiness::default()))
}

#[test]
fn with_nothing_in_the_way_the_next_stage_is_ready() {
    for stage in Stage::ALL {
        let blockers = codes(&snapshot(stage), Some(&asked()));
        assert!(blockers.is_empty(), "{stage}: {blockers:?}");
    }
}

#[test]
fn a_stale_storage_may_be_filled_but_not_compared() {
    let stale = |stage| Snapshot {
        storage_stale: true,
        ..snapshot(stage)
    };
    assert!(codes(&stale(Stage::Off), Some(&asked())).is_empty());
    assert_eq!(
        codes(&stale(Stage::DualWrite), Some(&asked())),
        ["storage_stale"]
    );
}

#[test]
fn a_service_that_cannot_delete_never_becomes_the_authority() {
    let (snapshot, asked, settings) = (
        snapshot(Stage::Shadow),
        asked(),
        config::Readiness::default(),
    );
    let lesser = Facts {
        highest_stage: Stage::Shadow,
        ..facts(&snapshot, Some(&asked), &settings)
    };
    assert_eq!(judged(&lesser), ["capability_ceiling"]);
}

#[test]
fn a_table_that_storage_was_not_filled_with_holds_shadow_and_live() {
    let (asked, settings) = (asked(), config::Readiness::default());
    for (stage, expected) in [
        (Stage::Off, &[][..]),
        (Stage::DualWrite, &["backfill_incomplete"]),
        (Stage::Shadow, &["backfill_incomplete"]),
    ] {
        let snapshot = snapshot(stage);
        let pending = Facts {
            pending_tables: vec!["ads".to_owned()],
            ..facts(&snapshot, Some(&asked), &settings)
        };
        assert_eq!(judged(&pending), expected, "{stage}");
    }
}

#[test]
fn a_young_debt_is_traffic_and_an_old_one_is_a_blocker() {
    let mut asked = asked();
    asked.owed.to_storage = 3;
    asked.owed.oldest_us = 1_000_000;
    assert!(codes(&snapshot(Stage::DualWrite), Some(&asked)).is_empty());
    asked.owed.oldest_us = 6_000_000;
    assert_eq!(codes(&snapshot(Stage::DualWrite), Some(&asked)), ["owed"]);
}

#[test]
fn replicas_must_be_heard_of_and_alike() {
    let mut asked = asked();
    asked.replicas[1].leased = false;
    asked.replicas[1].version = "2".to_owned();
    asked.replicas[1].config_digest = "b".to_owned();
    assert_eq!(
        codes(&snapshot(Stage::Off), Some(&asked)),
        ["replica_silent", "mixed_versions", "mixed_configs"]
    );
}

#[test]
fn without_the_database_nothing_is_ready_and_at_the_end_nothing_is_next() {
    assert_eq!(codes(&snapshot(Stage::Off), None), ["legacy_down"]);
    assert!(codes(&snapshot(Stage::Complete), None).is_empty());
}

#[test]
fn live_needs_a_full_verify_that_was_clean_and_is_young() {
    assert_eq!(before_live(|day| day.verified = None), ["verify_stale"]);
    let spoilt = |change: fn(&mut Verified)| {
        before_live(|day| {
            if let Some(verified) = &mut day.verified {
                change(verified);
            }
        })
    };
    assert_eq!(spoilt(|last| last.clean = false), ["verify_stale"]);
    assert_eq!(spoilt(|last| last.age_us = 25 * HOUR_US), ["verify_stale"]);
    let earlier = Asked {
        verified: None,
        ..asked()
    };
    assert!(codes(&snapshot(Stage::DualWrite), Some(&earlier)).is_empty());
}

#[test]
fn live_needs_a_day_of_shadow_and_every_operation_compared() {
    assert_eq!(before_live(|day| day.shadow = None), ["min_shadow"]);
    let short = before_live(|day| {
        day.shadow = Some(Entered {
            epoch: Epoch(2),
            age_us: 23 * HOUR_US,
        });
    });
    assert_eq!(short, ["min_shadow"]);
    assert_eq!(
        before_live(|day| day.compared[1].compared = 99),
        ["min_comparisons"]
    );
    // A table that nobody read is no table that agrees.
    assert_eq!(before_live(|day| day.compared.clear()), ["min_comparisons"]);
}

#[test]
fn a_writer_past_the_proxy_holds_live_up_for_a_day() {
    let wrote = |hours: i64| {
        before_live(|day| {
            day.bypassed = vec![Bypassed {
                table: "campaigns".to_owned(),
                rows: 1,
                last_age_us: hours * HOUR_US,
            }];
        })
    };
    assert_eq!(wrote(23), ["bypass_writes"]);
    assert!(wrote(24).is_empty());
}

#[test]
fn legacy_must_be_fit_to_be_the_secondary() {
    let behind = before_live(|day| {
        day.sequences = vec![SequenceBehind {
            table: "ads".to_owned(),
            column: "id".to_owned(),
            sequence: "public.ads_id_seq".to_owned(),
            last: 7,
            greatest: 9,
        }];
    });
    assert_eq!(behind, ["sequences_behind"]);
    let firing = before_live(|day| {
        day.app_triggers = vec![AppTrigger {
            table: "ads".to_owned(),
            trigger: "stamp".to_owned(),
        }];
    });
    assert_eq!(firing, ["app_triggers"]);
}

#[test]
fn callers_may_not_wait_much_longer_than_in_off() {
    let snapshot = snapshot(Stage::DualWrite);
    let with = |replica: usize, p95_us: i64, samples: i64| {
        let mut asked = asked();
        let reads = CallersLately {
            kind: "read".to_owned(),
            samples,
            p95_us,
        };
        asked.replicas[replica].callers = CallersLately::tell(&[reads]);
        codes(&snapshot, Some(&asked))
    };
    for replica in [0, 1] {
        assert_eq!(with(replica, 55_000, 20), ["latency_baseline"]);
        assert!(with(replica, 54_000, 20).is_empty());
        let few = with(replica, 900_000, 19);
        assert!(few.is_empty(), "too few calls say nothing");
    }
}

#[test]
fn off_is_left_once_a_baseline_is_on_record() {
    let without = Asked {
        baselines: vec![],
        ..asked()
    };
    assert_eq!(
        codes(&snapshot(Stage::Off), Some(&without)),
        ["latency_baseline"]
    );
    assert!(codes(&snapshot(Stage::DualWrite), Some(&without)).is_empty());
}

#[test]
fn a_trigger_above_half_its_threshold_or_blind_holds_what_it_watches() {
    let (asked, settings) = (asked(), config::Readiness::default());
    let with = |stage: Stage, value: f64, blind: bool| {
        let snapshot = snapshot(stage);
        judged(&Facts {
            triggers: vec![TriggerFact {
                trigger: "failure_rate".to_owned(),
                blind,
                value,
                threshold: 0.01,
            }],
            ..facts(&snapshot, Some(&asked), &settings)
        })
    };
    assert_eq!(with(Stage::Shadow, 0.006, false), ["trigger_high"]);
    assert_eq!(with(Stage::Shadow, 0.0, true), ["trigger_blind"]);
    assert!(with(Stage::Shadow, 0.005, false).is_empty());
    assert!(with(Stage::Off, 0.006, true).is_empty());
}

#[test]
fn a_maintenance_a_backfill_a_drift_and_the_hour_are_named() {
    let (snapshot, asked) = (snapshot(Stage::DualWrite), asked());
    let settings = config::Readiness {
        change_window: vec!["Mon-Fri 08:00-17:00 UTC".parse().unwrap()],
        ..config::Readiness::default()
    };
    // 1 January 1970 was a Thursday; it began at midnight.
    let named = judged(&Facts {
        backfill_under_way: true,
        maintenance: vec!["storage is under maintenance".to_owned()],
        drift: vec![Difference {
            table: "ads".to_owned(),
            kind: DriftKind::MissingColumn,
            column: Some("price".to_owned()),
            what: None,
        }],
        ..facts(&snapshot, Some(&asked), &settings)
    });
    assert_eq!(
        named,
        [
            "maintenance",
            "backfill_incomplete",
            "change_window",
            "schema_drift"
        ]
    );
    let at_nine = Facts {
        now_us: 9 * HOUR_US,
        ..facts(&snapshot, Some(&asked), &settings)
    };
    assert!(judged(&at_nine).is_empty());
}
