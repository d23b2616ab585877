//! Commands that work on the legacy database itself, with no proxy in between.

use serde_json::json;

use super::AppError;
use super::build::{pool_options, table_specs};
use crate::config::Config;
use crate::contract::Epoch;
use crate::control::{Control, ControlOptions, TransitionKind, TransitionRequest};
use crate::legacy::capture_sql;
use crate::sql::{Db, Dialect, PoolOptions, introspect};
use crate::stage::Stage;
use crate::{backfill, divergence, drill, evidence, journal, verify};

/// The least that the proxy's own role needs once the objects exist. Writers need nothing: the trigger
/// functions are `SECURITY DEFINER`.
const GRANTS: &str = "
-- Least grants for the proxy's role, here called cutover_proxy, besides its DML on the tables themselves.
GRANT USAGE ON SCHEMA cutover TO cutover_proxy;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cutover TO cutover_proxy;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA cutover TO cutover_proxy;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cutover TO cutover_proxy;
-- So that applying rows fires no trigger (PostgreSQL 15 and newer; a superuser has it anyway):
-- GRANT SET ON PARAMETER session_replication_role TO cutover_proxy;
";

/// Gives the authority back to legacy in the database itself, for the day when no proxy answers.
///
/// # Errors
/// When the database cannot be reached, or the rollback would lose writes.
pub async fn rollback_in_database(
    url: &str,
    to: Option<Stage>,
    reason: &str,
) -> Result<(Stage, Epoch), AppError> {
    let db = Db::open(url, &PoolOptions::default())?;
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
    match control.transition(request).await {
        Ok(done) => Ok((done.to, done.epoch)),
        Err(error) => Err(AppError::Refused(error.to_string())),
    }
}

/// The DDL that makes storage's tables out of legacy's, for a DBA to read or to run.
///
/// # Errors
/// When the legacy database cannot be reached or lacks a configured table.
pub async fn storage_schema(config: &Config) -> Result<String, AppError> {
    let db = Db::open(config.legacy.url.expose(), &pool_options(config))?;
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
    let db = Db::open(config.legacy.url.expose(), &pool_options(config))?;
    let schema = introspect(&db, &table_specs(config))
        .await
        .map_err(crate::legacy::OpenError::from)?;
    let dialect = db.dialect();
    let mut sql = String::from(
        "-- The control schema. `cutover serve` installs it by itself where it may.\n",
    );
    for statements in journal::install_sql(dialect) {
        sql.push_str(statements);
    }
    sql.push_str(&crate::control::install_sql(dialect));
    sql.push_str(divergence::install_sql(dialect));
    sql.push_str(&evidence::install_sql(dialect));
    sql.push_str(&backfill::install_sql(dialect));
    sql.push_str(&verify::install_sql(dialect));
    sql.push_str(&drill::install_sql(dialect));
    sql.push_str("\n-- The capture triggers, one set per table.\n");
    for table in schema.tables.values() {
        sql.push_str(&capture_sql(dialect, table));
    }
    if dialect == Dialect::Postgres {
        sql.push_str(GRANTS);
    }
    Ok(sql)
}
