//! The tables of the evidence.

use crate::sql::{Component, Step};

/// A handful of rows each: one per backend, table, kind of call.
pub const COMPONENT: Component = Component {
    name: "evidence",
    steps: &[Step {
        portable: TABLES,
        postgres: &[],
        sqlite: &[],
    }],
};

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS cutover.verified (
      backend text PRIMARY KEY,
      at_us bigint NOT NULL,
      clean boolean NOT NULL,
      clean_us bigint,
      epoch bigint NOT NULL,
      actor text NOT NULL,
      details text NOT NULL
    )",
    "CREATE TABLE IF NOT EXISTS cutover.bypassed (
      tbl text PRIMARY KEY,
      written bigint NOT NULL,
      last_us bigint NOT NULL
    )",
    "CREATE TABLE IF NOT EXISTS cutover.baseline (
      kind text PRIMARY KEY,
      samples bigint NOT NULL,
      p50_us bigint NOT NULL,
      p95_us bigint NOT NULL,
      at_us bigint NOT NULL
    )",
    "CREATE TABLE IF NOT EXISTS cutover.compared (
      tbl text NOT NULL,
      op text NOT NULL,
      epoch bigint NOT NULL,
      asked bigint NOT NULL,
      compared bigint NOT NULL,
      PRIMARY KEY (tbl, op, epoch)
    )",
];
