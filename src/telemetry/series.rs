//! The series behind the metrics: name, help, labels, buckets. Grouped by who feeds them.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Result,
};

use super::register::{DELTA_SECONDS, LAG_SECONDS, LATENCY_SECONDS, Register};

/// What the doors count.
#[derive(Debug)]
pub(super) struct DoorSeries {
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) lease_expired_reads: IntCounter,
    pub(super) config_reload_failed: IntCounter,
    pub(super) shed: IntCounterVec,
    pub(super) inflight: IntGaugeVec,
    pub(super) amqp_answers: IntCounterVec,
}

/// What calls to the two sides and their comparison count.
#[derive(Debug)]
pub(super) struct BackendSeries {
    pub(super) backend_duration: HistogramVec,
    pub(super) backend_errors: IntCounterVec,
    pub(super) latency_delta: HistogramVec,
    pub(super) comparisons: IntCounterVec,
    pub(super) divergences: IntCounterVec,
    pub(super) divergences_open: IntGauge,
    pub(super) bypass_writes: IntCounterVec,
    pub(super) schema_drift: GaugeVec,
}

/// What the journal and its payment count.
#[derive(Debug)]
pub(super) struct JournalSeries {
    pub(super) journal_owed: IntGaugeVec,
    pub(super) journal_oldest: Gauge,
    pub(super) journal_in_doubt: IntGauge,
    pub(super) journal_quarantined: IntGauge,
    pub(super) journal_full_in: Gauge,
    pub(super) payments: IntCounterVec,
    pub(super) payment_lag: Histogram,
}

/// What the control state and its changes show.
#[derive(Debug)]
pub(super) struct ControlSeries {
    pub(super) stage: IntGaugeVec,
    pub(super) authority: IntGaugeVec,
    pub(super) epoch: IntGauge,
    pub(super) latched: IntGauge,
    pub(super) rollback_safe: IntGauge,
    pub(super) flag_file_disagrees: IntGauge,
    pub(super) transitions: IntCounterVec,
    pub(super) flip_pause: Histogram,
    pub(super) clock_skew: GaugeVec,
    pub(super) replicas: IntGaugeVec,
    pub(super) verify_age: Gauge,
    pub(super) maintenance: IntGaugeVec,
    pub(super) recovering: IntGauge,
}

/// What the guard sees and did.
#[derive(Debug)]
pub(super) struct GuardSeries {
    pub(super) value: GaugeVec,
    pub(super) threshold: GaugeVec,
    pub(super) samples: IntGaugeVec,
    pub(super) blind: IntGaugeVec,
    pub(super) rollbacks: IntCounterVec,
    pub(super) drill: IntGaugeVec,
}

/// What backfills and verifies count.
#[derive(Debug)]
pub(super) struct WalkSeries {
    pub(super) backfill_rows: IntGaugeVec,
    pub(super) verify_rows: IntCounterVec,
}

impl DoorSeries {
    pub(super) fn register(r: &Register<'_>) -> Result<Self> {
        Ok(Self {
            requests: r.counters(
                "cutover_requests_total",
                "Requests answered, by door, operation, table and code (ok or the error's).",
                &["door", "op", "table", "code"],
            )?,
            request_duration: r.histograms(
                "cutover_request_duration_seconds",
                "From a request's arrival to its answer.",
                &LATENCY_SECONDS,
                &["door", "op", "stage"],
            )?,
            config_reload_failed: r.counter(
                "cutover_config_reload_failed_total",
                "Reloads that failed, in whole or in part.",
            )?,
            lease_expired_reads: r.counter(
                "cutover_lease_expired_reads_total",
                "Reads answered without a lease on the epoch.",
            )?,
            shed: r.counters(
                "cutover_shed_total",
                "Refused or left out for want of room.",
                &["what"],
            )?,
            inflight: r.gauges("cutover_inflight", "Requests in work.", &["door"])?,
            amqp_answers: r.counters(
                "cutover_amqp_answers_total",
                "What became of requests at the AMQP door.",
                &["result"],
            )?,
        })
    }
}

impl BackendSeries {
    pub(super) fn register(r: &Register<'_>) -> Result<Self> {
        Ok(Self {
            backend_duration: r.histograms(
                "cutover_backend_duration_seconds",
                "One call to a backend.",
                &LATENCY_SECONDS,
                &["backend", "op"],
            )?,
            backend_errors: r.counters(
                "cutover_backend_errors_total",
                "Calls to a backend that failed, by what the failure means.",
                &["backend", "op", "kind"],
            )?,
            latency_delta: r.histograms(
                "cutover_latency_delta_seconds",
                "Storage minus legacy, on calls that went to both.",
                &DELTA_SECONDS,
                &["op"],
            )?,
            comparisons: r.counters(
                "cutover_comparisons_total",
                "Comparisons of the two sides, by result.",
                &["table", "op", "result"],
            )?,
            divergences: r.counters(
                "cutover_divergences_total",
                "Confirmed divergences, by kind.",
                &["table", "kind"],
            )?,
            divergences_open: r.gauge(
                "cutover_divergences_open",
                "Confirmed divergences that nobody explained or repaired.",
            )?,
            bypass_writes: r.counters(
                "cutover_bypass_writes_total",
                "Rows written to legacy past the proxy.",
                &["table"],
            )?,
            schema_drift: r.floats(
                "cutover_schema_drift",
                "Differences of storage's schema from legacy's; NaN while that is not known.",
                &["table", "kind"],
            )?,
        })
    }
}

impl JournalSeries {
    pub(super) fn register(r: &Register<'_>) -> Result<Self> {
        Ok(Self {
            journal_owed: r.gauges(
                "cutover_journal_owed",
                "Open journal entries, by the side that is owed.",
                &["direction"],
            )?,
            journal_oldest: r.float(
                "cutover_journal_oldest_seconds",
                "Age of the oldest open journal entry.",
            )?,
            journal_in_doubt: r.gauge(
                "cutover_journal_in_doubt",
                "Entries whose last attempt may have happened.",
            )?,
            journal_quarantined: r
                .gauge("cutover_journal_quarantined", "Entries that need a person.")?,
            journal_full_in: r.float(
                "cutover_journal_full_in_seconds",
                "Until the journal is full at the present rate; +Inf when it does not grow.",
            )?,
            payments: r.counters(
                "cutover_payments_total",
                "Attempts to pay an entry, by result.",
                &["direction", "result"],
            )?,
            payment_lag: r.histogram(
                "cutover_payment_lag_seconds",
                "From a write's commit to its payment.",
                &LAG_SECONDS,
            )?,
        })
    }
}

impl ControlSeries {
    pub(super) fn register(r: &Register<'_>) -> Result<Self> {
        Ok(Self {
            stage: r.gauges("cutover_stage", "1 for the present stage.", &["stage"])?,
            authority: r.gauges(
                "cutover_authority",
                "1 for the backend whose commit is the truth.",
                &["backend"],
            )?,
            epoch: r.gauge(
                "cutover_epoch",
                "Grows by one with every change of the control state.",
            )?,
            latched: r.gauge(
                "cutover_latched",
                "1 after a rollback, until an operator re-arms.",
            )?,
            rollback_safe: r.gauge(
                "cutover_rollback_safe",
                "1 while giving the authority back would lose no write.",
            )?,
            flag_file_disagrees: r.gauge(
                "cutover_flag_file_disagrees",
                "1 while the flag file asks for another stage than the present one.",
            )?,
            transitions: r.counters(
                "cutover_transitions_total",
                "Changes of stage that this replica made.",
                &["from", "to", "actor_kind"],
            )?,
            flip_pause: r.histogram(
                "cutover_flip_pause_seconds",
                "How long writers were held by a transition.",
                &LATENCY_SECONDS,
            )?,
            clock_skew: r.floats(
                "cutover_clock_skew_seconds",
                "A peer's clock minus this replica's.",
                &["peer"],
            )?,
            replicas: r.gauges(
                "cutover_replicas",
                "Replicas, by what is known of them.",
                &["state"],
            )?,
            verify_age: r.float(
                "cutover_verify_age_seconds",
                "Since the last full and clean verify of storage; +Inf when there was none.",
            )?,
            maintenance: r.gauges(
                "cutover_maintenance",
                "1 while calls to a backend are expected to fail.",
                &["backend"],
            )?,
            recovering: r.gauge(
                "cutover_recovering",
                "1 after history was lost, until an operator recovers: writes are refused.",
            )?,
        })
    }
}

impl WalkSeries {
    pub(super) fn register(r: &Register<'_>) -> Result<Self> {
        Ok(Self {
            backfill_rows: r.gauges(
                "cutover_backfill_rows",
                "Rows of the backfill that this replica works on: owed so far (done), yet to be owed (left, an \
                 estimate), and those that only storage had (extra).",
                &["table", "state"],
            )?,
            verify_rows: r.counters(
                "cutover_verify_rows_total",
                "Rows that a verify on this replica held against the other side, by result.",
                &["table", "result"],
            )?,
        })
    }
}

impl GuardSeries {
    pub(super) fn register(r: &Register<'_>) -> Result<Self> {
        Ok(Self {
            value: r.floats(
                "cutover_trigger_value",
                "What a trigger measures: a share, a count, seconds, or calls in a row.",
                &["trigger"],
            )?,
            threshold: r.floats(
                "cutover_trigger_threshold",
                "What it fires at, in the same unit.",
                &["trigger"],
            )?,
            samples: r.gauges(
                "cutover_trigger_samples",
                "What the value rests on.",
                &["trigger"],
            )?,
            blind: r.gauges(
                "cutover_trigger_blind",
                "1 while a trigger that is watched has too few samples to decide.",
                &["trigger"],
            )?,
            rollbacks: r.counters(
                "cutover_rollbacks_total",
                "Rollbacks that a trigger on this replica made.",
                &["trigger"],
            )?,
            drill: r.gauges(
                "cutover_drill",
                "1 while a drill provokes this trigger, and while its rollback holds the latch.",
                &["trigger"],
            )?,
        })
    }
}
