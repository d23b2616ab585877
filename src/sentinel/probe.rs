//! Reads of the guard's own: so that a slow hour is measured, and an outage is noticed within its time.
//!
//! A probe asks for one row by its key, which need not exist: any service can answer that, and it costs next
//! to nothing. It goes to storage and then to legacy, so that it is a pair. Probes are sent when nobody else
//! called or paired since the last one was due; and while calls fail, or take long, more often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Sentinel;
use crate::guard::{Settings, Traffic};
use crate::schema::{Filter, Kind, Read, Table, read_query};
use crate::stage::Stage;
use crate::storage::{Call, Capability, Storage, UnixMs};
use crate::telemetry::Op;

/// Probes under way at most: all that can be sent within one deadline while storage is silent.
const PROBES_MAX: usize = 24;
/// Between two probes while storage fails or is silent.
const HURRY: Duration = Duration::from_millis(100);
/// So many unanswered ones mean that storage is silent.
const SILENT: usize = 2;

impl Sentinel {
    pub(super) async fn probe(&self, shutdown: &CancellationToken) {
        let room = Arc::new(Semaphore::new(PROBES_MAX));
        let mut last = Traffic::default();
        loop {
            let waiting = PROBES_MAX - room.available_permits();
            let failing = self.guard().is_failing();
            let pause = pause(&self.guard().settings(), failing, waiting);
            if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            let traffic = self.guard().traffic();
            let quiet = traffic.calls == last.calls || traffic.pairs == last.pairs;
            last = traffic;
            if !self.measures() || !(quiet || failing) {
                continue;
            }
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                continue;
            };
            if let Some(read) = self.probe_read() {
                let (parts, epoch) = (self.parts.clone(), self.situation().epoch);
                self.probes.spawn(async move {
                    let _place = place;
                    let query = query(&parts.storage, &read);
                    let call = Call::new(query, deadline(&parts.storage), epoch);
                    let started = Instant::now();
                    let answered = parts.storage.call(&call).await;
                    let storage = started.elapsed();
                    let error = answered.as_ref().err();
                    parts.observer.storage(Op::Probe, storage, error);
                    if answered.is_err() {
                        return;
                    }
                    let started = Instant::now();
                    let answered = parts.legacy.read(&read).await;
                    let legacy = started.elapsed();
                    let fault = answered.as_ref().err();
                    parts.observer.legacy(Op::Probe, legacy, fault);
                    if answered.is_ok() {
                        parts.observer.paired(Op::Probe, legacy, storage);
                    }
                });
            }
        }
    }

    /// Whether storage matters in this stage, and legacy is there to compare with.
    pub(super) fn measures(&self) -> bool {
        match self.parts.control.snapshot().stage {
            Stage::Off | Stage::Complete => false,
            Stage::DualWrite | Stage::Shadow | Stage::Live | Stage::RampDown => true,
        }
    }

    fn probe_read(&self) -> Option<Read> {
        let schema = self.parts.legacy.schema();
        let by_key = schema.tables.values().find_map(|table| {
            let key = no_key(table)?;
            Some(Read::whole_rows(table, Filter::Keys(vec![key]), None))
        });
        // Keys of kinds that no value is known for: the first row will do.
        by_key.or_else(|| {
            let table = schema.tables.values().next()?;
            Some(Read::whole_rows(table, Filter::All(vec![]), Some(1)))
        })
    }
}

/// A key of the right kinds that most likely no row has.
fn no_key(table: &Table) -> Option<Vec<Value>> {
    table
        .key_columns()
        .map(|column| match &column.kind {
            Kind::Int(_) => Some(json!(0)),
            Kind::Text => Some(json!("")),
            Kind::Uuid => Some(json!(uuid::Uuid::nil())),
            Kind::Bool
            | Kind::Numeric
            | Kind::Float(_)
            | Kind::Timestamptz
            | Kind::Timestamp
            | Kind::Date
            | Kind::Time
            | Kind::Interval
            | Kind::Bytes
            | Kind::Json(_)
            | Kind::Enum(_)
            | Kind::Array(_)
            | Kind::Other => None,
        })
        .collect()
}

fn query(storage: &Storage, read: &Read) -> crate::contract::Query {
    read_query(read, storage.capabilities().has(Capability::OrderBy))
}

/// As long as a caller's call may take: what callers still get an answer from is not down.
fn deadline(storage: &Storage) -> UnixMs {
    UnixMs::after(storage.rpc_deadline())
}

/// How long until the next probe.
fn pause(settings: &Settings, failing: bool, waiting: usize) -> Duration {
    let usual = settings.probe_every();
    if failing || waiting >= SILENT {
        usual.min(HURRY)
    } else {
        usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_hurry_while_storage_fails_or_is_silent() {
        let settings = Settings::default();
        let usual = settings.probe_every();
        assert_eq!(pause(&settings, false, 0), usual);
        assert_eq!(pause(&settings, false, 1), usual);
        assert_eq!(pause(&settings, false, SILENT), HURRY);
        assert_eq!(pause(&settings, true, 0), HURRY);
    }
}
