//! The tables of the control state, and how they come to be.
//!
//! Migrations only add, so two neighbouring versions run side by side; each runs once, under an advisory
//! lock, in one transaction. They are lists of single statements because a transaction speaks the
//! extended protocol, which takes one at a time.

use crate::sql::{Arg, Db, Dialect, Fault, Tx};

use super::audit::{self, TransitionRecord};
use super::state::State;

/// The version of the protocol this program speaks; `state.version_min` stops programs below it.
pub const VERSION: i64 = 1;

/// The advisory lock of the gate (PostgreSQL): exclusive for a transition, shared for a writer.
/// On SQLite `BEGIN IMMEDIATE` is the lock.
pub use crate::journal::GATE_LOCK;

/// The advisory lock that lets one replica migrate at a time.
pub(super) const MIGRATE_LOCK: i64 = GATE_LOCK + 1;

/// One step of a component's schema. Never changed once released.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Statements in the portable subset, run on both databases first.
    pub portable: &'static [&'static str],
    /// Statements for PostgreSQL alone, run after.
    pub postgres: &'static [&'static str],
    /// Statements for SQLite alone, run after.
    pub sqlite: &'static [&'static str],
}

/// The control state's own steps, in order.
pub const MIGRATIONS: &[Migration] = &[FIRST, TABLES];

/// The tables that take part (`tables`).
const TABLES: Migration = Migration {
    portable: &["CREATE TABLE cutover.tables (
            tbl text PRIMARY KEY,
            pending boolean NOT NULL,
            joined_us bigint NOT NULL)"],
    postgres: &[],
    sqlite: &[],
};

const FIRST: Migration = Migration {
    portable: &[
        "CREATE TABLE cutover.state (
            id bigint PRIMARY KEY CHECK (id = 1),
            epoch bigint NOT NULL,
            stage text NOT NULL,
            phase text NOT NULL CHECK (phase IN ('steady', 'draining', 'recovering')),
            generation bigint NOT NULL,
            journaling boolean NOT NULL,
            bypass_refused boolean NOT NULL,
            latched boolean NOT NULL,
            since_us bigint NOT NULL,
            reason text NOT NULL,
            actor text NOT NULL,
            drain_deadline_us bigint,
            drain_to text,
            coordinator text,
            version_min bigint NOT NULL,
            legacy_stale boolean NOT NULL,
            storage_stale boolean NOT NULL,
            deadline_last_us bigint NOT NULL,
            lineage text NOT NULL)",
        "CREATE TABLE cutover.transitions (
            epoch bigint PRIMARY KEY,
            at_us bigint NOT NULL,
            request_id text NOT NULL,
            step text NOT NULL,
            kind text NOT NULL,
            from_stage text NOT NULL,
            to_stage text NOT NULL,
            phase text NOT NULL,
            actor text NOT NULL,
            reason text NOT NULL,
            ticket text,
            forced boolean NOT NULL,
            evidence text NOT NULL,
            previous_hash text NOT NULL,
            hash text NOT NULL)",
        "CREATE UNIQUE INDEX cutover_transitions_request ON cutover.transitions (request_id)",
        "CREATE TABLE cutover.actions (
            id bigint PRIMARY KEY,
            at_us bigint NOT NULL,
            actor text NOT NULL,
            kind text NOT NULL,
            reason text NOT NULL,
            details text NOT NULL,
            previous_hash text NOT NULL,
            hash text NOT NULL)",
        "CREATE TABLE cutover.replicas (
            id text PRIMARY KEY,
            version text NOT NULL,
            config_digest text NOT NULL,
            epoch bigint NOT NULL,
            seen_us bigint NOT NULL,
            lease_until_us bigint NOT NULL,
            dirty boolean NOT NULL,
            votes text NOT NULL DEFAULT '')",
        "CREATE TABLE cutover.flag_requests (
            digest text PRIMARY KEY,
            at_us bigint NOT NULL,
            epoch bigint NOT NULL,
            result text NOT NULL)",
        "CREATE TABLE cutover.maintenance (
            backend text PRIMARY KEY,
            since_us bigint NOT NULL,
            until_us bigint NOT NULL,
            actor text NOT NULL,
            reason text NOT NULL)",
    ],
    postgres: &[
        // Which history this is: the cluster and its timeline. Where a managed service withholds either
        // function, the epoch alone must show a lost history.
        "CREATE FUNCTION cutover.lineage_v1() RETURNS text LANGUAGE plpgsql VOLATILE
            SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RETURN (SELECT system_identifier::text FROM pg_control_system())
                || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8);
        EXCEPTION WHEN insufficient_privilege THEN
            RETURN 'withheld';
        END $$",
    ],
    sqlite: &[],
};

/// Creates what is missing of the control state: `off`, epoch 1, with its audit record. Safe to repeat and to race.
///
/// # Errors
/// When the database is out of reach or grants too little.
pub async fn install(db: &Db) -> Result<(), Fault> {
    migrate(db, "control", MIGRATIONS).await?;
    let db = db.clone();
    super::task::run_to_end(async move {
        let mut tx = db.begin().await?;
        lock(&mut tx, MIGRATE_LOCK).await?;
        if State::read(&mut tx).await?.is_none() {
            first_state(&mut tx).await?;
        }
        tx.commit().await
    })
    .await
}

/// The statements of `install`, for `cutover schema --control`.
#[must_use]
pub fn install_sql(dialect: Dialect) -> String {
    migrations_sql(dialect, MIGRATIONS)
}

/// The statements of a component's steps.
#[must_use]
pub fn migrations_sql(dialect: Dialect, steps: &[Migration]) -> String {
    let mut sql = String::new();
    for step in steps {
        let own = match dialect {
            Dialect::Postgres => step.postgres,
            Dialect::Sqlite => step.sqlite,
        };
        for statement in step.portable.iter().chain(own) {
            sql.push_str(&dialect.control(statement));
            sql.push_str(";\n");
        }
    }
    sql
}

/// Brings one component's tables (`control`, `journal`, …) up to its newest step, each step once.
///
/// # Errors
/// When the database is out of reach or refuses a statement.
pub async fn migrate(
    db: &Db,
    component: &'static str,
    steps: &'static [Migration],
) -> Result<(), Fault> {
    let db = db.clone();
    super::task::run_to_end(async move {
        let mut tx = db.begin().await?;
        lock(&mut tx, MIGRATE_LOCK).await?;
        prepare(&mut tx).await?;
        let done = tx
            .control(
                "SELECT coalesce(max(version), 0) FROM cutover.schema_versions WHERE component = $1",
                vec![component.into()],
            )
            .await?
            .first()
            .map_or(Ok(0), |row| row.some_int(0))?;
        for (version, step) in (1_i64..).zip(steps).filter(|(version, _)| *version > done) {
            run_step(&mut tx, step).await?;
            tx.control(
                "INSERT INTO cutover.schema_versions (component, version, at_us) VALUES ($1, $2, cutover.now_us())",
                vec![component.into(), version.into()],
            )
            .await?;
        }
        tx.commit().await
    })
    .await
}

/// Takes an advisory lock until the transaction ends; SQLite's transaction is the lock already.
pub(super) async fn lock(tx: &mut Tx, key: i64) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Postgres => tx
            .fetch(
                "SELECT pg_advisory_xact_lock($1)::text",
                vec![Arg::from(key)],
            )
            .await
            .map(drop),
        Dialect::Sqlite => Ok(()),
    }
}

async fn prepare(tx: &mut Tx) -> Result<(), Fault> {
    if tx.dialect() == Dialect::Postgres {
        // `CREATE … IF NOT EXISTS` still asks for the right to create, which a running proxy need not have.
        let there = tx
            .fetch(
                "SELECT to_regclass('cutover.schema_versions') IS NOT NULL",
                vec![],
            )
            .await?;
        if there.first().map_or(Ok(false), |row| row.some_bool(0))? {
            return Ok(());
        }
        for statement in [
            "CREATE SCHEMA IF NOT EXISTS cutover",
            "CREATE OR REPLACE FUNCTION cutover.now_us() RETURNS bigint LANGUAGE sql VOLATILE
                AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$",
        ] {
            tx.fetch(statement, vec![]).await?;
        }
    }
    tx.control(
        "CREATE TABLE IF NOT EXISTS cutover.schema_versions (
            component text NOT NULL,
            version bigint NOT NULL,
            at_us bigint NOT NULL,
            PRIMARY KEY (component, version))",
        vec![],
    )
    .await
    .map(drop)
}

async fn run_step(tx: &mut Tx, step: &Migration) -> Result<(), Fault> {
    for statement in step.portable {
        tx.control(statement, vec![]).await?;
    }
    let own = match tx.dialect() {
        Dialect::Postgres => step.postgres,
        Dialect::Sqlite => step.sqlite,
    };
    for statement in own {
        tx.fetch(statement, vec![]).await?;
    }
    Ok(())
}

async fn first_state(tx: &mut Tx) -> Result<(), Fault> {
    let now_us = super::state::now_us(tx).await?;
    let lineage = super::state::lineage(tx).await?;
    let state = State::initial(now_us, lineage);
    state.insert(tx).await?;
    audit::record_transition(tx, &TransitionRecord::first(&state)).await?;
    Ok(())
}
