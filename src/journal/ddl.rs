//! The tables of the journal and of operation records.

use crate::sql::{Component, Step};

/// The journal and the operation records.
///
/// `fillfactor` keeps claims on the page (heap-only updates); vacuum comes early because entries are
/// short-lived.
pub const COMPONENT: Component = Component {
    name: "journal",
    steps: &[
        Step {
            portable: &[],
            postgres: POSTGRES,
            sqlite: SQLITE,
        },
        Step {
            portable: BONDS,
            postgres: &[],
            sqlite: &[],
        },
        Step {
            portable: DEPARTURES,
            postgres: &[],
            sqlite: &[],
        },
        Step {
            portable: &[],
            postgres: CREATED_POSTGRES,
            sqlite: CREATED_SQLITE,
        },
        Step {
            portable: FLOOR,
            postgres: &[],
            sqlite: &[],
        },
        Step {
            portable: &[],
            postgres: BY_KEY,
            sqlite: &[],
        },
        Step {
            portable: REMOVALS,
            postgres: &[],
            sqlite: &[],
        },
    ],
};

/// What a write does to relations that act (see `Bonds`).
const BONDS: &[&str] = &[
    "ALTER TABLE cutover.journal ADD COLUMN leaves boolean NOT NULL DEFAULT false",
    "ALTER TABLE cutover.journal ADD COLUMN points boolean NOT NULL DEFAULT false",
    "CREATE INDEX journal_leaves ON cutover.journal (tbl, key) WHERE leaves",
];

/// What left storage while legacy is paid (see `departures`). The row without a name counts.
const DEPARTURES: &[&str] = &[
    "ALTER TABLE cutover.journal ADD COLUMN left_by bigint NOT NULL DEFAULT 0",
    "ALTER TABLE cutover.journal ADD COLUMN noted bigint NOT NULL DEFAULT 0",
    "CREATE TABLE cutover.departures (
      name text PRIMARY KEY,
      number bigint NOT NULL,
      looked bigint NOT NULL DEFAULT 0,
      at_us bigint NOT NULL
    )",
    "INSERT INTO cutover.departures (name, number, at_us) VALUES ('', 0, 0)",
];

/// What callers created while legacy is paid (see `created`).
const CREATED_POSTGRES: &[&str] = &[
    r#"CREATE TABLE cutover.created (
      seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      tbl text COLLATE "C" NOT NULL,
      key text COLLATE "C" NOT NULL,
      number bigint NOT NULL,
      at_us bigint NOT NULL
    )"#,
    "CREATE INDEX created_since ON cutover.created (tbl, number)",
];

/// The same.
const CREATED_SQLITE: &[&str] = &[
    "CREATE TABLE cutover_created (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      tbl TEXT NOT NULL,
      key TEXT NOT NULL,
      number INTEGER NOT NULL,
      at_us INTEGER NOT NULL
    )",
    "CREATE INDEX cutover_created_since ON cutover_created (tbl, number)",
];

/// The oldest entry that an entry stands for, 0 where that is itself; and whether storage may have been asked to remove
/// the row (see `behind`).
const REMOVALS: &[&str] = &[
    "ALTER TABLE cutover.journal ADD COLUMN since bigint NOT NULL DEFAULT 0",
    "ALTER TABLE cutover.journal ADD COLUMN removing boolean NOT NULL DEFAULT false",
    "CREATE INDEX journal_since ON cutover.journal (since) WHERE since > 0",
];

/// Below the highest of these nothing is owed (see `floor`).
const FLOOR: &[&str] = &["CREATE TABLE cutover.journal_floor (seq bigint PRIMARY KEY)"];

/// The entries of a key from the floor on (see `claim::entries_of_keys`).
const BY_KEY: &[&str] = &[
    "DROP INDEX cutover.journal_key",
    "CREATE INDEX journal_key ON cutover.journal (tbl, key, (seq + 0))",
];

const POSTGRES: &[&str] = &[
    r#"CREATE TABLE IF NOT EXISTS cutover.journal (
      seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      generation bigint NOT NULL,
      direction text NOT NULL CHECK (direction IN ('storage', 'legacy')),
      kind text NOT NULL CHECK (kind IN ('copy', 'intent')),
      tbl text COLLATE "C" NOT NULL,
      key text COLLATE "C" NOT NULL,
      op_id uuid,
      bypass boolean NOT NULL DEFAULT false,
      epoch bigint NOT NULL,
      created_us bigint NOT NULL,
      token uuid,
      attempt_id uuid,
      deadline_us bigint NOT NULL DEFAULT 0,
      attempts bigint NOT NULL DEFAULT 0,
      not_before_us bigint NOT NULL DEFAULT 0,
      parked text
    ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)"#,
    "CREATE INDEX IF NOT EXISTS journal_key ON cutover.journal (tbl, key, seq)",
    "CREATE TABLE IF NOT EXISTS cutover.operations (
      op_id uuid PRIMARY KEY,
      digest text NOT NULL,
      state text NOT NULL CHECK (state IN ('open', 'done', 'converted', 'not_applied', 'unknown', 'refused')),
      reply text,
      epoch bigint NOT NULL,
      created_us bigint NOT NULL,
      settled_us bigint
    )",
    "CREATE INDEX IF NOT EXISTS operations_settled ON cutover.operations USING brin (settled_us)",
];

const SQLITE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS cutover_journal (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      generation INTEGER NOT NULL,
      direction TEXT NOT NULL CHECK (direction IN ('storage', 'legacy')),
      kind TEXT NOT NULL CHECK (kind IN ('copy', 'intent')),
      tbl TEXT NOT NULL,
      key TEXT NOT NULL,
      op_id TEXT,
      bypass INTEGER NOT NULL DEFAULT 0,
      epoch INTEGER NOT NULL,
      created_us INTEGER NOT NULL,
      token TEXT,
      attempt_id TEXT,
      deadline_us INTEGER NOT NULL DEFAULT 0,
      attempts INTEGER NOT NULL DEFAULT 0,
      not_before_us INTEGER NOT NULL DEFAULT 0,
      parked TEXT
    )",
    "CREATE INDEX IF NOT EXISTS cutover_journal_key ON cutover_journal (tbl, key, seq)",
    "CREATE TABLE IF NOT EXISTS cutover_operations (
      op_id TEXT PRIMARY KEY,
      digest TEXT NOT NULL,
      state TEXT NOT NULL CHECK (state IN ('open', 'done', 'converted', 'not_applied', 'unknown', 'refused')),
      reply TEXT,
      epoch INTEGER NOT NULL,
      created_us INTEGER NOT NULL,
      settled_us INTEGER
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS cutover_ctx (
      epoch INTEGER NOT NULL,
      op_id TEXT,
      role TEXT NOT NULL
    )",
];
