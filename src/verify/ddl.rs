//! The table that says whose turn it is to verify.

use crate::sql::{Component, Step};

/// The table that says whose turn it is to verify.
pub const COMPONENT: Component = Component {
    name: "verify",
    steps: &[Step {
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
    }],
};
