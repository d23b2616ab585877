//! The tables of the control state, and its first record.

use crate::sql::{Component, Db, Fault, INSTALL_LOCK, Step, Tx};

use super::audit::{self, TransitionRecord};
use super::state::State;

/// The version of the protocol this program speaks; `state.version_min` stops programs below it.
pub const VERSION: i64 = 1;

/// The advisory lock of the gate (PostgreSQL): exclusive for a transition, shared for a writer.
/// On SQLite `BEGIN IMMEDIATE` is the lock.
pub use crate::journal::GATE_LOCK;

/// The control state's own tables.
const TABLES: &[Step] = &[
    Step {
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
    },
    Step {
        // What the callers of each replica waited lately.
        portable: &["ALTER TABLE cutover.replicas ADD COLUMN callers text NOT NULL DEFAULT ''"],
        postgres: &[],
        sqlite: &[],
    },
    Step {
        // The tables that take part (`tables`).
        portable: &["CREATE TABLE cutover.tables (
            tbl text PRIMARY KEY,
            pending boolean NOT NULL,
            joined_us bigint NOT NULL)"],
        postgres: &[],
        sqlite: &[],
    },
];

/// The control state's own tables, for `cutover schema --control`.
pub const COMPONENT: Component = Component {
    name: "control",
    steps: TABLES,
};

/// Creates what is missing of the control state: `off`, epoch 1, with its audit record. Safe to repeat and to race.
///
/// # Errors
/// When the database is out of reach or grants too little.
pub async fn install(db: &Db) -> Result<(), Fault> {
    COMPONENT.install(db).await?;
    let db = db.clone();
    super::task::run_to_end(async move {
        let mut tx = db.begin().await?;
        tx.lock(INSTALL_LOCK).await?;
        if State::read(&mut tx).await?.is_none() {
            first_state(&mut tx).await?;
        }
        tx.commit().await
    })
    .await
}

async fn first_state(tx: &mut Tx) -> Result<(), Fault> {
    let now_us = super::state::now_us(tx).await?;
    let lineage = super::state::lineage(tx).await?;
    let state = State::initial(now_us, lineage);
    state.insert(tx).await?;
    audit::record_transition(tx, &TransitionRecord::first(&state)).await?;
    Ok(())
}
