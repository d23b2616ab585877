//! Keeping an eye on the schemas of both sides, on every replica: what each knows, it uses itself.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::config::Hot;
use crate::repository::Parts;
use crate::schema::Schema;

/// How often the shape of legacy's tables is looked at.
const SHAPE_EVERY: Duration = Duration::from_secs(10);
/// The least time between two looks at storage, however often somebody suspects drift.
const LOOK_GAP: Duration = Duration::from_secs(1);

/// What it takes.
pub(super) struct Schemas {
    parts: Parts,
    hot: Arc<ArcSwap<Hot>>,
}

impl Engine {
    pub(super) fn schemas(&self) -> Schemas {
        Schemas {
            parts: self.parts.clone(),
            hot: Arc::clone(&self.hot),
        }
    }
}

impl Schemas {
    /// Notices columns that come and go, and where storage's are others, until `shutdown`. Storage is looked at
    /// every `readiness.drift_every`, when legacy changed, and when somebody suspects drift.
    pub(super) async fn follow(self, shutdown: CancellationToken) {
        let mut due = Instant::now();
        while !shutdown.is_cancelled() {
            let known = self.parts.legacy.schema();
            let schema = self
                .parts
                .legacy
                .schema_now()
                .await
                .unwrap_or_else(|| Arc::clone(&known));
            let served: Vec<String> = schema.tables.keys().cloned().collect();
            if let Err(fault) = self.parts.control.follow_tables(&served).await {
                tracing::debug!(%fault, "which tables are pending could not be read yet");
            }
            let now = Instant::now();
            if !Arc::ptr_eq(&schema, &known) || now >= due {
                self.look(&schema).await;
                due = now + self.hot.load().readiness.drift_every;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep_until(due.min(now + SHAPE_EVERY)) => {}
                () = self.parts.drift.suspected() => {
                    due = now + LOOK_GAP;
                    shutdown.run_until_cancelled(sleep_until(due)).await;
                }
            }
        }
    }

    async fn look(&self, schema: &Schema) {
        let before = self.parts.drift.found();
        let epoch = self.parts.control.snapshot().epoch;
        let found = self.parts.drift.look(schema, epoch).await;
        for new in found.differences() {
            if !before.differences().any(|known| known == new) {
                tracing::warn!(
                    table = new.table,
                    kind = new.kind.as_str(),
                    "the sides' schemas differ: {new}"
                );
            }
        }
    }
}
