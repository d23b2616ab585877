//! How the control tables come to be: components, each a list of steps that run once.
//!
//! Two hands install them: the proxy at its start, where its role may, and a DBA who runs the script that
//! `cutover schema --control` prints. Both leave the same record of the steps that were done, so either can
//! go on where the other stopped, and a proxy that finds every step done asks for no right to create anything.
//!
//! Steps only add, so two neighbouring versions of the program run side by side.

use std::fmt::Write as _;

use super::{Db, Dialect, Fault, Tx};

/// The tables of one part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// As the record of steps names it.
    pub name: &'static str,
    /// In order; a step is never changed once it was released.
    pub steps: &'static [Step],
}

/// One step of a component. Lists of single statements, because a transaction speaks the extended protocol,
/// which takes one at a time.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Statements in the portable subset, run on both databases first.
    pub portable: &'static [&'static str],
    /// Statements for PostgreSQL alone, run after.
    pub postgres: &'static [&'static str],
    /// Statements for SQLite alone, run after.
    pub sqlite: &'static [&'static str],
}

/// The advisory lock under which DDL is run (PostgreSQL): several replicas may start at once.
/// On SQLite `BEGIN IMMEDIATE` is the lock.
pub const INSTALL_LOCK: i64 = 7_163_668_001;

/// What the steps rest on: functions that let control SQL be written once (SQLite has the same under other
/// names, see `Dialect::control`).
const GROUND: &[&str] = &[
    "CREATE SCHEMA IF NOT EXISTS cutover",
    "CREATE OR REPLACE FUNCTION cutover.now_us() RETURNS bigint LANGUAGE sql VOLATILE
  AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$",
    "CREATE OR REPLACE FUNCTION cutover.each(items text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE
  AS $$ SELECT jsonb_array_elements_text(items::jsonb) $$",
];

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS cutover.schema_versions (
  component text NOT NULL,
  version bigint NOT NULL,
  at_us bigint NOT NULL,
  PRIMARY KEY (component, version))";

impl Component {
    /// Brings the component's tables up to its newest step. Safe to repeat and to race.
    ///
    /// # Errors
    /// When the database is out of reach or refuses a statement.
    pub async fn install(&'static self, db: &Db) -> Result<(), Fault> {
        let db = db.clone();
        // In a task of its own: see `Db` about transactions that are dropped half-way.
        let work = tokio::spawn(async move {
            let mut tx = db.begin().await?;
            tx.lock(INSTALL_LOCK).await?;
            prepare(&mut tx).await?;
            let done = self.done(&mut tx).await?;
            for (version, step) in self.numbered().filter(|(version, _)| *version > done) {
                step.run(&mut tx).await?;
                tx.control(
                    "INSERT INTO cutover.schema_versions (component, version, at_us) \
                     VALUES ($1, $2, cutover.now_us())",
                    vec![self.name.into(), version.into()],
                )
                .await?;
            }
            tx.commit().await
        });
        work.await
            .map_err(|error| Fault::Unexpected(error.to_string()))?
    }

    /// The same as a script for PostgreSQL. It may be run again: what is done is left alone.
    #[must_use]
    pub fn script(&self) -> String {
        let mut sql = String::new();
        for (version, step) in self.numbered() {
            let which = format!("component = '{}' AND version = {version}", self.name);
            // Writing to a String cannot fail.
            let _written = write!(
                sql,
                "DO $cutover$ BEGIN\n\
                 IF NOT EXISTS (SELECT FROM cutover.schema_versions WHERE {which}) THEN\n\
                 {statements}\
                 INSERT INTO cutover.schema_versions VALUES ('{name}', {version}, cutover.now_us());\n\
                 END IF;\nEND $cutover$;\n",
                statements = script(step.portable.iter().chain(step.postgres)),
                name = self.name,
            );
        }
        sql
    }

    fn numbered(&self) -> impl Iterator<Item = (i64, &'static Step)> + use<> {
        (1..).zip(self.steps)
    }

    async fn done(&self, tx: &mut Tx) -> Result<i64, Fault> {
        let rows = tx
            .control(
                "SELECT coalesce(max(version), 0) FROM cutover.schema_versions WHERE component = $1",
                vec![self.name.into()],
            )
            .await?;
        rows.first().map_or(Ok(0), |row| row.some_int(0))
    }
}

impl Step {
    async fn run(&self, tx: &mut Tx) -> Result<(), Fault> {
        for statement in self.portable {
            tx.control(statement, vec![]).await?;
        }
        let own = match tx.dialect() {
            Dialect::Postgres => self.postgres,
            Dialect::Sqlite => self.sqlite,
        };
        for statement in own {
            tx.fetch(statement, vec![]).await?;
        }
        Ok(())
    }
}

/// What comes before the components in a script for PostgreSQL.
#[must_use]
pub fn ground_script() -> String {
    script(GROUND.iter().chain([&VERSIONS]))
}

fn script<'a>(statements: impl Iterator<Item = &'a &'a str>) -> String {
    statements.fold(String::new(), |sql, statement| sql + statement + ";\n")
}

/// `CREATE … IF NOT EXISTS` asks for the right to create even where there is nothing to do.
async fn prepare(tx: &mut Tx) -> Result<(), Fault> {
    if tx.dialect() == Dialect::Postgres {
        let there = tx
            .fetch(
                "SELECT to_regclass('cutover.schema_versions') IS NOT NULL",
                vec![],
            )
            .await?;
        if there.first().map_or(Ok(false), |row| row.some_bool(0))? {
            return Ok(());
        }
        for statement in GROUND {
            tx.fetch(statement, vec![]).await?;
        }
    }
    tx.control(VERSIONS, vec![]).await.map(drop)
}
