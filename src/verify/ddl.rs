//! The table that says whose turn it is to verify.

use crate::control::{Migration, migrate, migrations_sql};
use crate::sql::{Db, Dialect, Fault};

const MIGRATIONS: &[Migration] = &[Migration {
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
}];

/// Creates what is missing. The control state must be installed.
///
/// # Errors
/// See [`Fault`].
pub async fn install(db: &Db) -> Result<(), Fault> {
    migrate(db, "verify", MIGRATIONS).await
}

/// The statements of `install`.
#[must_use]
pub fn install_sql(dialect: Dialect) -> String {
    migrations_sql(dialect, MIGRATIONS)
}
