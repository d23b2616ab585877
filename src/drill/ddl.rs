//! The tables of the drills.

use crate::sql::{Component, Step};

/// A row per drill, of which the latest are kept, and one per moment and replica.
pub const COMPONENT: Component = Component {
    name: "drill",
    steps: &[Step {
        portable: TABLES,
        postgres: &[],
        sqlite: &[],
    }],
};

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS cutover.drills (
      id bigint PRIMARY KEY,
      provokes text NOT NULL,
      epoch bigint NOT NULL,
      actor text NOT NULL,
      reason text NOT NULL,
      started_us bigint NOT NULL,
      until_us bigint NOT NULL,
      ended_us bigint,
      outcome text
    )",
    "CREATE TABLE IF NOT EXISTS cutover.drill_marks (
      drill bigint NOT NULL,
      moment text NOT NULL,
      replica text NOT NULL,
      at_us bigint NOT NULL,
      PRIMARY KEY (drill, moment, replica)
    )",
];
