//! Looking at the audit, the divergences, the journal and the configuration.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::Uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::contract::{Code, Error};
use crate::{divergence, journal};

use super::AdminState;
use super::failed::{Answer, ok};
use super::now::JournalView;
use super::record::{ActionView, DivergenceView, EntryView, TransitionView};

/// Lines shown when nobody says how many.
const LIMIT_DEFAULT: u32 = 100;
/// Lines shown at most.
const LIMIT_MAX: u32 = 1_000;

/// How much of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
}

/// How much of the audit, and whether to prove it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditPage {
    limit: Option<u32>,
    #[serde(default)]
    verify: bool,
}

/// Transitions and actions, the newest first; with `verify=true` also whether their chains are whole.
pub(super) async fn transitions(State(state): State<Arc<AdminState>>, uri: Uri) -> Answer {
    let page: AuditPage = parameters(&uri)?;
    let limit = lines(page.limit);
    let transitions = state.control.history(limit).await?;
    let actions = state.control.actions(limit).await?;
    let mut body = json!({
        "transitions": transitions.into_iter().map(TransitionView::from).collect::<Vec<_>>(),
        "actions": actions.into_iter().map(ActionView::from).collect::<Vec<_>>(),
    });
    if page.verify {
        let report = state.control.verify_chain().await?;
        body["intact"] = json!(report.intact());
        body["broken_at"] = json!(report.broken);
        body["verified"] = json!({"transitions": report.transitions, "actions": report.actions});
    }
    ok(&body)
}

/// The confirmed divergences, the latest first, and how many are not explained.
pub(super) async fn divergences(State(state): State<Arc<AdminState>>, uri: Uri) -> Answer {
    let page: Page = parameters(&uri)?;
    let db = state.legacy.db();
    let divergences = divergence::list(db, lines(page.limit).into()).await?;
    let open = divergence::count_open(db).await?;
    let divergences: Vec<_> = divergences.into_iter().map(DivergenceView::from).collect();
    ok(&json!({"open": open, "divergences": divergences}))
}

/// What is owed, and the oldest open entries.
pub(super) async fn journal(State(state): State<Arc<AdminState>>, uri: Uri) -> Answer {
    let page: Page = parameters(&uri)?;
    let db = state.legacy.db();
    let entries = journal::entries(db, lines(page.limit).into()).await?;
    let owed = journal::owed(db).await?;
    let entries: Vec<_> = entries.into_iter().map(EntryView::from).collect();
    let (_, full_in) = state.observer.last_owed();
    ok(&json!({"journal": JournalView::new(&owed, full_in), "entries": entries}))
}

/// One open entry.
pub(super) async fn entry(State(state): State<Arc<AdminState>>, Path(seq): Path<String>) -> Answer {
    let entry = journal::entry(state.legacy.db(), number(&seq)?).await?;
    let entry = entry.ok_or_else(|| Error::new(Code::NotFound, "no open entry has this number"))?;
    ok(&EntryView::from(entry))
}

/// The configuration without its secrets.
pub(super) async fn config(State(state): State<Arc<AdminState>>) -> Answer {
    ok(&**state.config_view.load())
}

/// The number in a path.
pub(super) fn number(text: &str) -> Result<i64, Error> {
    text.parse()
        .map_err(|_| Error::new(Code::InvalidRequest, "the path takes a number"))
}

fn lines(asked: Option<u32>) -> u32 {
    asked.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)
}

fn parameters<T: DeserializeOwned>(uri: &Uri) -> Result<T, Error> {
    Query::try_from_uri(uri)
        .map(|Query(parameters)| parameters)
        .map_err(|error| Error::new(Code::InvalidRequest, error.body_text()))
}
