//! Commands that work on the legacy database itself, with no proxy in between.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;

use super::AppError;
use super::build::COMPONENTS;
use super::options::{pool_options, table_specs};
use crate::config::Config;
use crate::contract::Epoch;
use crate::control::{Control, ControlOptions, GateHolder, TransitionKind, TransitionRequest};
use crate::legacy::capture_script;
use crate::sql::{Component, Db, Dialect, INSTALL_LOCK, PoolOptions, ground_script, introspect};
use crate::stage::Stage;

const HEADER: &str = "\
-- The control schema. `cutover serve` installs it by itself where it may; else let the owner of the tables run
-- this, once for each version of cutover. What is there is left alone.
-- It needs the role of the proxy, here called cutover_proxy: CREATE ROLE cutover_proxy LOGIN
";

const SQLITE: &str =
    "-- SQLite has no roles: `cutover serve` installs its tables and triggers by itself.\n";

/// The least that the proxy's own role needs once the objects exist. Writers need nothing: the trigger
/// functions are `SECURITY DEFINER`.
const GRANTS: &str = "
-- Least grants for the proxy's role, besides its DML on the tables themselves.
GRANT USAGE ON SCHEMA cutover TO cutover_proxy;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cutover TO cutover_proxy;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA cutover TO cutover_proxy;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cutover TO cutover_proxy;
-- So that applying rows fires no trigger (PostgreSQL 15 and newer; a superuser has it anyway):
-- GRANT SET ON PARAMETER session_replication_role TO cutover_proxy;
";

/// How often it is looked who holds the gate.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// How long a statement on a busy database may take at least: a person asks, and no caller waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives the authority back to legacy in the database itself, for the day when no proxy answers. Meanwhile
/// `tell` hears who holds the gate.
///
/// # Errors
/// When the database cannot be reached, or the rollback would lose writes.
pub async fn rollback_in_database(
    url: &str,
    to: Option<Stage>,
    reason: &str,
    tell: impl FnMut(&[GateHolder]),
) -> Result<(Stage, Epoch), AppError> {
    let db = Db::open(url, &patient(PoolOptions::default()))?;
    let options = ControlOptions {
        replica_id: format!("cli-{}", uuid::Uuid::new_v4().simple()),
        ..ControlOptions::default()
    };
    let control = Control::open(db, options).await?;
    let from = control.snapshot().stage;
    let request = TransitionRequest {
        to: to.unwrap_or(Stage::DualWrite),
        kind: TransitionKind::Rollback,
        actor: "rollback --database".to_owned(),
        reason: reason.to_owned(),
        ticket: None,
        expected_epoch: None,
        force: false,
        dry_run: false,
        evidence: json!({ "from": from }),
    };
    let moved = tokio::select! {
        moved = control.transition(request) => moved,
        never = tell_for_ever(&control, tell) => match never {},
    };
    match moved {
        Ok(done) => Ok((done.to, done.epoch)),
        Err(error) => Err(AppError::Refused(error.to_string())),
    }
}

async fn tell_for_ever(control: &Control, mut tell: impl FnMut(&[GateHolder])) -> Infallible {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        tell(&control.gate_held_by());
    }
}

fn patient(options: PoolOptions) -> PoolOptions {
    PoolOptions {
        statement_timeout: options.statement_timeout.max(PATIENCE),
        ..options
    }
}

/// The DDL that makes storage's tables out of legacy's, for a DBA to read or to run.
///
/// # Errors
/// When the legacy database cannot be reached or lacks a configured table.
pub async fn storage_schema(config: &Config) -> Result<String, AppError> {
    let db = Db::open(config.legacy.url.expose(), &patient(pool_options(config)))?;
    let schema = introspect(&db, &table_specs(config))
        .await
        .map_err(crate::legacy::OpenError::from)?;
    Ok(crate::sql::blueprint(&db, &schema).await?.to_string())
}

/// The DDL of the control schema and of the capture triggers, for a DBA to read or to run.
///
/// # Errors
/// When the legacy database cannot be reached or lacks a configured table.
pub async fn control_schema(config: &Config) -> Result<String, AppError> {
    let db = Db::open(config.legacy.url.expose(), &patient(pool_options(config)))?;
    if db.dialect() == Dialect::Sqlite {
        return Ok(SQLITE.to_owned());
    }
    let schema = introspect(&db, &table_specs(config))
        .await
        .map_err(crate::legacy::OpenError::from)?;
    let components: String = COMPONENTS.map(Component::script).concat();
    Ok(format!(
        "{HEADER}BEGIN;\nSELECT pg_advisory_xact_lock({INSTALL_LOCK});\n{ground}{components}\n\
         -- The gate, and the capture triggers, one set per table.\n{capture}{GRANTS}COMMIT;\n",
        ground = ground_script(),
        capture = capture_script(&schema),
    ))
}
