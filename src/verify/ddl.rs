//! The table that says whose turn it is to verify, and how far that one is.

use crate::sql::{Component, Step};

/// Of one row. `job` is what its owner last showed of itself, as JSON without any row's value; `cancelled` is an owner
/// that is to end.
pub const COMPONENT: Component = Component {
    name: "verify",
    steps: &[
        Step {
            portable: &[
                "CREATE TABLE cutover.verify_turn (
            id bigint PRIMARY KEY CHECK (id = 1),
            owner text,
            lease_until_us bigint NOT NULL,
            not_before_us bigint NOT NULL)",
                "INSERT INTO cutover.verify_turn VALUES (1, NULL, 0, 0)",
            ],
            postgres: &[],
            sqlite: &[],
        },
        Step {
            portable: &[
                "ALTER TABLE cutover.verify_turn ADD COLUMN by_itself boolean NOT NULL DEFAULT true",
                "ALTER TABLE cutover.verify_turn ADD COLUMN job text",
            ],
            postgres: &[],
            sqlite: &[],
        },
        Step {
            portable: &["ALTER TABLE cutover.verify_turn ADD COLUMN cancelled text"],
            postgres: &[],
            sqlite: &[],
        },
    ],
};
