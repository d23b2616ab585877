//! The table of divergences.

use crate::sql::{Component, Step};

/// The table of divergences.
pub const COMPONENT: Component = Component {
    name: "divergence",
    steps: &[Step {
        portable: &[],
        postgres: POSTGRES,
        sqlite: SQLITE,
    }],
};

const POSTGRES: &[&str] = &[r#"CREATE TABLE IF NOT EXISTS cutover.divergences (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      tbl text NOT NULL,
      kind text NOT NULL,
      key text COLLATE "C" NOT NULL,
      fields text NOT NULL,
      first_us bigint NOT NULL,
      last_us bigint NOT NULL,
      seen bigint NOT NULL,
      explained text,
      explained_until_us bigint,
      UNIQUE (tbl, kind, key)
    )"#];

const SQLITE: &[&str] = &["CREATE TABLE IF NOT EXISTS cutover_divergences (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      tbl TEXT NOT NULL,
      kind TEXT NOT NULL,
      key TEXT NOT NULL,
      fields TEXT NOT NULL,
      first_us INTEGER NOT NULL,
      last_us INTEGER NOT NULL,
      seen INTEGER NOT NULL,
      explained TEXT,
      explained_until_us INTEGER,
      UNIQUE (tbl, kind, key)
    )"];
