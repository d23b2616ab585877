//! Blockers that are judged by hours and days: what is on record about the migration.

use std::time::Duration;

use super::{Asked, Blockers, Facts, TriggerFact};
use crate::clock::micros;
use crate::control::Replica;
use crate::evidence::{CallersLately, Tally};
use crate::guard::{Action, Standing, Verdict};
use crate::stage::Stage;

/// Fewer calls than this say nothing about how long callers wait now.
const PRESENT_SAMPLES_MIN: i64 = 20;

/// The replica whose callers wait longest for one kind of call, of those that can be heard of.
fn slowest<'a>(asked: &'a Asked, kind: &str) -> Option<(&'a str, CallersLately)> {
    let of = |replica: &'a Replica| {
        CallersLately::hear(&replica.callers)
            .into_iter()
            .find(|one| one.kind == kind && one.samples >= PRESENT_SAMPLES_MIN)
            .map(|one| (replica.id.as_str(), one))
    };
    let heard = asked.replicas.iter().filter(|replica| replica.leased);
    heard.filter_map(of).max_by_key(|(_, one)| one.p95_us)
}

impl TriggerFact {
    /// Of those that are watched in this stage.
    pub(in crate::admin) fn all(verdicts: &[Verdict]) -> Vec<Self> {
        // A trigger that only observes is not relied upon, so it holds nothing back.
        let watched = |verdict: &&Verdict| {
            verdict.standing != Standing::Off && verdict.action != Action::Observe
        };
        let fact = |verdict: &Verdict| Self {
            trigger: verdict.trigger.to_string(),
            blind: verdict.standing == Standing::Blind,
            value: verdict.value,
            threshold: verdict.threshold,
        };
        verdicts.iter().filter(watched).map(fact).collect()
    }
}

impl Blockers {
    /// Outside the hours in which stages may be advanced.
    pub(super) fn of_window(&mut self, facts: &Facts<'_>) {
        let windows = &facts.settings.change_window;
        if windows.is_empty() || windows.iter().any(|one| one.contains(facts.now_us)) {
            return;
        }
        let open: Vec<String> = windows.iter().map(ToString::to_string).collect();
        let message = format!(
            "outside readiness.change_window: wait for {}",
            open.join(", ")
        );
        self.add("change_window", message);
    }

    /// A trigger that is near its threshold, or sees nothing.
    pub(super) fn of_guard(&mut self, facts: &Facts<'_>, next: Stage) {
        // In `off` and `complete` nothing is measured.
        if !(Stage::Shadow..=Stage::RampDown).contains(&next) {
            return;
        }
        for trigger in &facts.triggers {
            let name = &trigger.trigger;
            if trigger.blind {
                let message = format!(
                    "{name} has too few samples to decide: let traffic flow, or configure [guard.canary]"
                );
                self.add("trigger_blind", message);
            } else if trigger.value > trigger.threshold / 2.0 {
                let message = format!(
                    "{name} is at {:.4} of {:.4}, above half its threshold: find out why before going on",
                    trigger.value, trigger.threshold
                );
                self.add("trigger_high", message);
            }
        }
    }

    /// Callers wait longer than they did in `off`, or nobody knows how long that was.
    pub(super) fn of_callers(&mut self, facts: &Facts<'_>, asked: &Asked, next: Stage) {
        if next == Stage::DualWrite {
            if facts.settings.baseline_samples_min > 0 && asked.baselines.is_empty() {
                let message = format!(
                    "no latency of callers is on record for `off`: let {} reads or writes through first",
                    facts.settings.baseline_samples_min
                );
                self.add("latency_baseline", message);
            }
            return;
        }
        for baseline in &asked.baselines {
            let Some((replica, now)) = slowest(asked, &baseline.kind) else {
                continue;
            };
            if now.p95_us - baseline.p95_us >= micros(facts.settings.latency_increase_max) {
                let ms = |us: i64| us as f64 / 1000.0;
                let message = format!(
                    "{}s take {:.1} ms (95th percentile, on {replica}), {:.1} ms in `off`: find out why",
                    baseline.kind,
                    ms(now.p95_us),
                    ms(baseline.p95_us)
                );
                self.add("latency_baseline", message);
            }
        }
    }

    /// Nobody has proven lately that storage holds what legacy holds.
    pub(super) fn of_verify(&mut self, facts: &Facts<'_>, asked: &Asked) {
        let most = facts.settings.verify_max_age;
        let message = match &asked.verified {
            None => "no full verify is on record: run `cutover verify`".to_owned(),
            Some(last) if !last.clean => {
                "the last full verify was not clean: repair, and run `cutover verify` again"
                    .to_owned()
            }
            Some(last) if last.age_us > micros(most) => format!(
                "the last full verify was {} ago, more than {}: run `cutover verify`",
                spoken(last.age_us),
                spoken(micros(most))
            ),
            Some(_) => return,
        };
        self.add("verify_stale", message);
    }

    /// Too little was seen in `shadow`.
    pub(super) fn of_shadow(&mut self, facts: &Facts<'_>, asked: &Asked) {
        let least_us = micros(facts.settings.min_shadow);
        let age_us = asked.shadow.map_or(0, |entered| entered.age_us);
        if age_us < least_us {
            let message = format!(
                "in shadow for {} of {}: wait",
                spoken(age_us),
                spoken(least_us)
            );
            self.add("min_shadow", message);
        }
        let least = i64::from(facts.settings.min_comparisons);
        if least == 0 {
            return;
        }
        let few: Vec<String> = facts
            .tables
            .iter()
            .flat_map(|table| too_few(table, &asked.compared, least))
            .collect();
        if !few.is_empty() {
            let message = format!(
                "fewer than {least} comparisons in shadow: {}; let traffic flow, and look at compare.sample",
                few.join(", ")
            );
            self.add("min_comparisons", message);
        }
    }

    /// Somebody still writes past the proxy; from `live` on the database would refuse them.
    pub(super) fn of_strangers(&mut self, facts: &Facts<'_>, asked: &Asked) {
        let quiet_us = micros(facts.settings.bypass_quiet);
        let recent: Vec<String> = asked
            .bypassed
            .iter()
            .filter(|one| one.last_age_us < quiet_us)
            .map(|one| format!("{} {} ago", one.table, spoken(one.last_age_us)))
            .collect();
        if !recent.is_empty() {
            let message = format!(
                "written past the proxy: {}; bring the writer to the proxy, from live on it is refused",
                recent.join(", ")
            );
            self.add("bypass_writes", message);
        }
    }
}

/// The operations that callers use on a table and that were compared too seldom. Nothing at all is too seldom.
fn too_few(table: &str, compared: &[Tally], least: i64) -> Vec<String> {
    let own: Vec<&Tally> = compared.iter().filter(|one| one.table == table).collect();
    if own.is_empty() {
        return vec![format!("{table} not at all")];
    }
    own.into_iter()
        .filter(|tally| tally.compared < least)
        .map(|tally| format!("{table} {} {}", tally.op, tally.compared))
        .collect()
}

/// A time span for people.
fn spoken(us: i64) -> String {
    let span = Duration::from_micros(u64::try_from(us).unwrap_or(0));
    let seconds = span.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", span.as_secs_f64() / 3600.0),
    }
}
