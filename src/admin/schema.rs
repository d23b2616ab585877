//! `GET /admin/schema`: where the sides' schemas differ, looked at for whoever asks.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use tokio::time::timeout;

use crate::clock::rfc3339;
use crate::drift::{Difference, Found, Unknown};

use super::AdminState;
use super::failed::{Answer, ok};

/// How long looking may take; then what was known before is shown.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of the drift.
#[derive(Serialize, Debug)]
pub(super) struct SchemaView {
    /// When every table was last looked at; none before the first time.
    looked_at: Option<String>,
    drift: Vec<DifferenceView>,
    /// Tables that could not be looked at: neither drift nor agreement.
    unknown: Vec<Unknown>,
}

#[derive(Serialize, Debug)]
struct DifferenceView {
    #[serde(flatten)]
    difference: Difference,
    /// Whether it holds an advance up.
    blocks: bool,
    message: String,
}

/// The differences, as of now.
pub(super) async fn schema(State(state): State<Arc<AdminState>>) -> Answer {
    let found = look(&state).await;
    ok(&SchemaView::new(&found))
}

/// Looks now, at both sides.
pub(super) async fn look(state: &AdminState) -> Arc<Found> {
    let looked = timeout(LOOK_TIMEOUT, async {
        let schema = state.legacy.schema_now().await;
        let schema = schema.unwrap_or_else(|| state.legacy.schema());
        let epoch = state.control.snapshot().epoch;
        state.drift.look(&schema, epoch).await
    });
    looked.await.unwrap_or_else(|_| state.drift.found())
}

impl SchemaView {
    pub(super) fn new(found: &Found) -> Self {
        let view = |difference: &Difference| DifferenceView {
            difference: difference.clone(),
            blocks: difference.kind.blocks(),
            message: difference.to_string(),
        };
        Self {
            looked_at: found.at_us.map(rfc3339),
            drift: found.differences().map(view).collect(),
            unknown: found.unknown().collect(),
        }
    }
}
