//! Every metric, by what it counts. Callers say what happened in the domain's words; names and help are in
//! `series`.

use std::collections::HashSet;
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder as _, Registry, Result, TextEncoder};

use super::labels::{
    ActorKind, AmqpAnswer, Comparison, DivergenceKind, Door, DriftKind, ErrorKind, Op, Payment,
    Peer, ReplicaState, Shed, Trigger,
};
use super::register::{Register, whole};
use super::series::{
    BackendSeries, ControlSeries, DoorSeries, GuardSeries, JournalSeries, WalkSeries,
};
use crate::contract::{Code, Epoch};
use crate::stage::{Backend, Stage};

/// The `table` of requests that name none, several, or one that is not configured.
const NO_TABLE: &str = "";

/// The metrics of one proxy, in a registry of its own so that tests can run several in one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    tables: HashSet<String>,
    doors: DoorSeries,
    backends: BackendSeries,
    owing: JournalSeries,
    state: ControlSeries,
    guard: GuardSeries,
    pub(super) walks: WalkSeries,
}

/// What the journal holds, for its gauges.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct JournalGauges {
    /// Open entries owed to storage.
    pub owed_to_storage: u64,
    /// Open entries owed to legacy.
    pub owed_to_legacy: u64,
    /// Age of the oldest open entry.
    pub oldest: Duration,
    /// Entries whose last attempt may have happened.
    pub in_doubt: u64,
    /// Entries that need a person.
    pub quarantined: u64,
    /// Until the journal is full at the present rate; none when it does not grow.
    pub full_in: Option<Duration>,
}

/// What a trigger of the guard sees, for its gauges.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TriggerGauges {
    /// What it measures.
    pub value: f64,
    /// What it fires at.
    pub threshold: f64,
    /// What the value rests on.
    pub samples: u64,
    /// Whether these are too few.
    pub blind: bool,
}

impl Metrics {
    /// Registers everything. `tables` are the configured tables: the only values of label `table`.
    ///
    /// # Errors
    /// Only when two metrics have one name, which a test rules out.
    pub fn new(tables: impl IntoIterator<Item = String>) -> Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let r = Register(&registry);
        r.gauges(
            "cutover_build_info",
            "The version that runs; always 1.",
            &["version"],
        )?
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        let metrics = Self {
            tables: tables.into_iter().collect(),
            doors: DoorSeries::register(&r)?,
            backends: BackendSeries::register(&r)?,
            owing: JournalSeries::register(&r)?,
            state: ControlSeries::register(&r)?,
            guard: GuardSeries::register(&r)?,
            walks: WalkSeries::register(&r)?,
            registry,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Makes the series of small closed sets, so that a rate over them is never absent.
    fn begin(&self) {
        for what in Shed::ALL {
            self.doors.shed.with_label_values(&[what.as_str()]);
        }
        for result in AmqpAnswer::ALL {
            self.doors
                .amqp_answers
                .with_label_values(&[result.as_str()]);
        }
        for door in Door::ALL {
            self.doors.inflight.with_label_values(&[door.as_str()]);
        }
        for table in &self.tables {
            self.backends.bypass_writes.with_label_values(&[table]);
            for kind in DivergenceKind::ALL {
                self.backends
                    .divergences
                    .with_label_values(&[table.as_str(), kind.as_str()]);
            }
            for kind in DriftKind::ALL {
                self.drift(table, *kind, None);
            }
        }
        self.owing.journal_full_in.set(f64::INFINITY);
        self.verify_age(None);
    }

    /// The text exposition, as `/metrics` answers it.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self) -> Result<String> {
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The content type of `render`.
    #[must_use]
    pub fn content_type() -> String {
        TextEncoder::new().format_type().to_owned()
    }

    /// A request was answered. `table` is as the caller spelled it; an unknown one is not kept.
    pub fn request(&self, door: Door, op: Op, table: Option<&str>, code: Option<Code>) {
        let code = code.map_or("ok", Code::as_str);
        self.doors
            .requests
            .with_label_values(&[door.as_str(), op.as_str(), self.table(table), code])
            .inc();
    }

    /// How long it took, and under which stage.
    pub fn request_took(&self, door: Door, op: Op, stage: Stage, took: Duration) {
        self.doors
            .request_duration
            .with_label_values(&[door.as_str(), op.as_str(), stage.as_str()])
            .observe(took.as_secs_f64());
    }

    /// A call to a backend ended, well or not.
    pub fn backend_took(&self, backend: Backend, op: Op, took: Duration) {
        self.backends
            .backend_duration
            .with_label_values(&[backend.as_str(), op.as_str()])
            .observe(took.as_secs_f64());
    }

    /// A call to a backend failed.
    pub fn backend_failed(&self, backend: Backend, op: Op, kind: ErrorKind) {
        self.backends
            .backend_errors
            .with_label_values(&[backend.as_str(), op.as_str(), kind.as_str()])
            .inc();
    }

    /// A call went to both backends and both answered.
    pub fn paired(&self, op: Op, legacy: Duration, storage: Duration) {
        self.backends
            .latency_delta
            .with_label_values(&[op.as_str()])
            .observe(storage.as_secs_f64() - legacy.as_secs_f64());
    }

    /// A comparison ended.
    pub fn compared(&self, table: &str, op: Op, result: Comparison) {
        self.backends
            .comparisons
            .with_label_values(&[self.table(Some(table)), op.as_str(), result.as_str()])
            .inc();
    }

    /// A divergence was confirmed.
    pub fn diverged(&self, table: &str, kind: DivergenceKind) {
        self.backends
            .divergences
            .with_label_values(&[self.table(Some(table)), kind.as_str()])
            .inc();
    }

    /// How many divergences are open.
    pub fn divergences_open(&self, open: u64) {
        self.backends.divergences_open.set(whole(open));
    }

    /// Rows were written past the proxy.
    pub fn bypassed(&self, table: &str, rows: u64) {
        self.backends
            .bypass_writes
            .with_label_values(&[self.table(Some(table))])
            .inc_by(rows);
    }

    /// What the journal holds.
    pub fn journal(&self, gauges: &JournalGauges) {
        let owed = |to: Backend| self.owing.journal_owed.with_label_values(&[to.as_str()]);
        owed(Backend::Storage).set(whole(gauges.owed_to_storage));
        owed(Backend::Legacy).set(whole(gauges.owed_to_legacy));
        self.owing.journal_oldest.set(gauges.oldest.as_secs_f64());
        self.owing.journal_in_doubt.set(whole(gauges.in_doubt));
        self.owing
            .journal_quarantined
            .set(whole(gauges.quarantined));
        let full_in = gauges
            .full_in
            .map_or(f64::INFINITY, |time| time.as_secs_f64());
        self.owing.journal_full_in.set(full_in);
    }

    /// An attempt to pay ended.
    pub fn paid(&self, to: Backend, result: Payment) {
        self.owing
            .payments
            .with_label_values(&[to.as_str(), result.as_str()])
            .inc();
    }

    /// An entry was paid so long after its write.
    pub fn payment_lag(&self, lag: Duration) {
        self.owing.payment_lag.observe(lag.as_secs_f64());
    }

    /// The control state, as this replica knows it.
    pub fn control(&self, stage: Stage, epoch: Epoch, latched: bool) {
        for one in Stage::ALL {
            self.state
                .stage
                .with_label_values(&[one.as_str()])
                .set(i64::from(one == stage));
        }
        for backend in [Backend::Legacy, Backend::Storage] {
            self.state
                .authority
                .with_label_values(&[backend.as_str()])
                .set(i64::from(backend == stage.authority()));
        }
        self.state.epoch.set(epoch.0);
        self.state.latched.set(i64::from(latched));
    }

    /// Whether giving the authority back would lose no write.
    pub fn rollback_safe(&self, safe: bool) {
        self.state.rollback_safe.set(i64::from(safe));
    }

    /// Whether the flag file asks for another stage.
    pub fn flag_file_disagrees(&self, disagrees: bool) {
        self.state.flag_file_disagrees.set(i64::from(disagrees));
    }

    /// This replica moved the stage.
    pub fn moved(&self, from: Stage, to: Stage, actor: ActorKind) {
        self.state
            .transitions
            .with_label_values(&[from.as_str(), to.as_str(), actor.as_str()])
            .inc();
    }

    /// A transition held writers for so long.
    pub fn flip_paused(&self, pause: Duration) {
        self.state.flip_pause.observe(pause.as_secs_f64());
    }

    /// A read was answered without a lease.
    pub fn lease_expired_read(&self) {
        self.doors.lease_expired_reads.inc();
    }

    /// A reload of the configuration failed, in whole or in part.
    pub fn config_reload_failed(&self) {
        self.doors.config_reload_failed.inc();
    }

    /// A peer's clock minus ours, in seconds.
    pub fn clock_skew(&self, peer: Peer, seconds: f64) {
        self.state
            .clock_skew
            .with_label_values(&[peer.as_str()])
            .set(seconds);
    }

    /// What a trigger of the guard sees.
    pub fn trigger(&self, trigger: Trigger, gauges: &TriggerGauges) {
        let label = &[trigger.as_str()];
        self.guard.value.with_label_values(label).set(gauges.value);
        let threshold = self.guard.threshold.with_label_values(label);
        threshold.set(gauges.threshold);
        let samples = self.guard.samples.with_label_values(label);
        samples.set(whole(gauges.samples));
        let blind = self.guard.blind.with_label_values(label);
        blind.set(i64::from(gauges.blind));
    }

    /// Whether the present state is of a drill that provokes this trigger.
    pub fn drill(&self, trigger: Trigger, rehearsed: bool) {
        let label = &[trigger.as_str()];
        let drill = self.guard.drill.with_label_values(label);
        drill.set(i64::from(rehearsed));
    }

    /// A trigger gave the authority back to legacy.
    pub fn rolled_back(&self, trigger: Trigger) {
        let label = &[trigger.as_str()];
        self.guard.rollbacks.with_label_values(label).inc();
    }

    /// How many replicas are in a state.
    pub fn replicas(&self, state: ReplicaState, count: u64) {
        self.state
            .replicas
            .with_label_values(&[state.as_str()])
            .set(whole(count));
    }

    /// How long ago the last full and clean verify of storage ended; none when there was none.
    pub fn verify_age(&self, age: Option<Duration>) {
        let age = age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        self.state.verify_age.set(age);
    }

    /// How many differences of a kind storage's table has; none when that is not known.
    pub fn drift(&self, table: &str, kind: DriftKind, count: Option<u64>) {
        self.backends
            .schema_drift
            .with_label_values(&[table, kind.as_str()])
            .set(count.map_or(f64::NAN, |count| count as f64));
    }

    /// Whether calls to a backend are expected to fail.
    pub fn maintenance(&self, backend: Backend, expected: bool) {
        self.state
            .maintenance
            .with_label_values(&[backend.as_str()])
            .set(i64::from(expected));
    }

    /// Whether history was lost and nobody has recovered yet.
    pub fn recovering(&self, recovering: bool) {
        self.state.recovering.set(i64::from(recovering));
    }

    /// Something was refused or left out for want of room.
    pub fn shed(&self, what: Shed) {
        self.doors.shed.with_label_values(&[what.as_str()]).inc();
    }

    /// A request is in work at a door.
    pub fn entered(&self, door: Door) {
        self.doors
            .inflight
            .with_label_values(&[door.as_str()])
            .inc();
    }

    /// It no longer is.
    pub fn left(&self, door: Door) {
        self.doors
            .inflight
            .with_label_values(&[door.as_str()])
            .dec();
    }

    /// An AMQP request was settled.
    pub fn amqp_answered(&self, result: AmqpAnswer) {
        self.doors
            .amqp_answers
            .with_label_values(&[result.as_str()])
            .inc();
    }

    /// The configured table of that name, for a caller that must let go of its own spelling.
    #[must_use]
    pub fn known_table(&self, name: Option<&str>) -> Option<&str> {
        self.tables.get(name?).map(String::as_str)
    }

    pub(super) fn table(&self, name: Option<&str>) -> &str {
        self.known_table(name).unwrap_or(NO_TABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(["campaigns".to_owned()]).unwrap()
    }

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let text = metrics().render().unwrap();
        assert!(text.contains("cutover_build_info{version="));
        assert!(text.contains("process_start_time_seconds"));
    }

    #[test]
    fn an_unknown_table_never_becomes_a_label() {
        let metrics = metrics();
        metrics.request(Door::Http, Op::Select, Some("campaigns"), None);
        metrics.request(
            Door::Http,
            Op::Select,
            Some("../etc"),
            Some(Code::UnknownTable),
        );
        let text = metrics.render().unwrap();
        assert!(
            text.contains(
                r#"cutover_requests_total{code="ok",door="http",op="select",table="campaigns"} 1"#
            ),
            "{text}"
        );
        assert!(text.contains(r#"code="unknown_table",door="http",op="select",table=""} 1"#));
        assert!(!text.contains("../etc"));
    }

    #[test]
    fn one_stage_and_one_authority_are_set() {
        let metrics = metrics();
        metrics.control(Stage::Shadow, Epoch(4), false);
        metrics.control(Stage::Live, Epoch(5), true);
        let text = metrics.render().unwrap();
        assert!(text.contains(r#"cutover_stage{stage="live"} 1"#));
        assert!(text.contains(r#"cutover_stage{stage="shadow"} 0"#));
        assert!(text.contains(r#"cutover_authority{backend="storage"} 1"#));
        assert!(text.contains("cutover_epoch 5"));
        assert!(text.contains("cutover_latched 1"));
    }

    #[test]
    fn a_storage_that_is_faster_counts_below_zero() {
        let metrics = metrics();
        metrics.paired(
            Op::Select,
            Duration::from_millis(30),
            Duration::from_millis(2),
        );
        let text = metrics.render().unwrap();
        assert!(
            text.contains(r#"cutover_latency_delta_seconds_bucket{op="select",le="-0.025"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"cutover_latency_delta_seconds_bucket{op="select",le="-0.05"} 0"#));
    }
}
