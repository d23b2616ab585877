//! The tables that make a backfill durable: the run, and how far each table is.

use crate::sql::{Component, Step};

/// A table's line outlives its run: `done` under the journal's generation means that storage was filled.
const TABLES: &[Step] = &[Step {
    portable: &[
        "CREATE TABLE cutover.backfill_run (
            id bigint PRIMARY KEY CHECK (id = 1),
            run_id text NOT NULL,
            state text NOT NULL CHECK (state IN ('running', 'paused', 'done', 'cancelled', 'failed')),
            actor text NOT NULL,
            reason text NOT NULL,
            tables text NOT NULL,
            rate bigint,
            generation bigint NOT NULL,
            started_us bigint NOT NULL,
            ended_us bigint,
            resumed_us bigint NOT NULL,
            resumed_rows bigint NOT NULL,
            owner text,
            lease_until_us bigint NOT NULL,
            quarantined bigint NOT NULL,
            storage_walked boolean NOT NULL,
            error text)",
        "CREATE TABLE cutover.backfill (
            tbl text PRIMARY KEY,
            run_id text NOT NULL,
            place bigint NOT NULL,
            generation bigint NOT NULL,
            state text NOT NULL CHECK (state IN ('waiting', 'legacy', 'storage', 'done')),
            last_key text,
            upper_key text,
            done_rows bigint NOT NULL,
            extra_rows bigint NOT NULL,
            total_rows bigint)",
    ],
    postgres: &[],
    sqlite: &[],
}];

/// The tables of the backfill.
pub const COMPONENT: Component = Component {
    name: "backfill",
    steps: TABLES,
};
