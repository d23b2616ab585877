//! The one row that everything hangs on: stage, epoch and what goes with them.
//!
//! It is read and written here alone, so that its columns are spelled once.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::contract::Epoch;
use crate::sql::{Arg, Dialect, Fault, Record, Tx};

use crate::stage::{Backend, Stage};

/// Whether the stage is at rest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// At rest.
    Steady,
    /// A transition waits until nothing is owed; writers hold.
    Draining,
    /// History was lost; writes are refused until an operator recovers.
    Recovering,
}

/// The control state as the database holds it. Times are Unix microseconds by the database's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Grows with every change of this row.
    pub epoch: Epoch,
    /// How far the migration is.
    pub stage: Stage,
    /// Whether the stage is at rest.
    pub phase: Phase,
    /// Journal entries of an older generation are void.
    pub generation: i64,
    /// Whether the database refuses writes that bypass the proxy.
    pub bypass_refused: bool,
    /// After a rollback nothing advances until an operator re-arms.
    pub latched: bool,
    /// When the stage or phase began.
    pub since_us: i64,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// When a draining phase is given up by whoever notices.
    pub drain_deadline_us: Option<i64>,
    /// The stage that a draining phase leads to.
    pub drain_to: Option<Stage>,
    /// The replica that conducts the draining phase.
    pub coordinator: Option<String>,
    /// Programs that speak an older protocol stay out.
    pub version_min: i64,
    /// Legacy lacks writes that were acknowledged.
    pub legacy_stale: bool,
    /// Storage lacks writes that were acknowledged.
    pub storage_stale: bool,
    /// No request sent for an entry of an older generation takes effect after this: a backfill waits for it (P11).
    pub deadline_last_us: i64,
    /// The history this row belongs to (P16).
    pub lineage: String,
}

/// How many columns `State::COLUMNS` names.
const WIDTH: usize = 17;

impl Phase {
    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Draining => "draining",
            Self::Recovering => "recovering",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Steady, Self::Draining, Self::Recovering]
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| Fault::Unexpected(format!("no such phase: {text}")))
    }
}

impl State {
    /// What `from_record` reads, in its order.
    pub(super) const COLUMNS: &'static str = "epoch, stage, phase, generation, bypass_refused, latched, since_us, reason, actor, \
         drain_deadline_us, drain_to, coordinator, version_min, legacy_stale, storage_stale, deadline_last_us, lineage";
    /// The column after the state's own, where a caller may add more.
    pub(super) const NEXT_COLUMN: usize = WIDTH;

    /// The state at install.
    pub(super) fn initial(now_us: i64, lineage: String) -> Self {
        Self {
            epoch: Epoch(1),
            stage: Stage::Off,
            phase: Phase::Steady,
            generation: 1,
            bypass_refused: false,
            latched: false,
            since_us: now_us,
            reason: "installed".to_owned(),
            actor: "cutover".to_owned(),
            drain_deadline_us: None,
            drain_to: None,
            coordinator: None,
            version_min: super::ddl::VERSION,
            legacy_stale: false,
            // Nobody has filled it yet.
            storage_stale: true,
            deadline_last_us: 0,
            lineage,
        }
    }

    /// Whether captured writes are owed to storage: the capture triggers append entries.
    #[must_use]
    pub fn journaling(&self) -> bool {
        self.stage.owes() == Some(Backend::Storage)
    }

    /// Whether `backend` lacks writes that were acknowledged.
    #[must_use]
    pub fn stale(&self, backend: Backend) -> bool {
        match backend {
            Backend::Legacy => self.legacy_stale,
            Backend::Storage => self.storage_stale,
        }
    }

    /// Reads the row, if the state is installed.
    pub(super) async fn read(tx: &mut Tx) -> Result<Option<Self>, Fault> {
        Self::select(tx, "").await
    }

    /// Reads the row and keeps it locked: heartbeats and other transitions wait.
    pub(super) async fn lock(tx: &mut Tx) -> Result<Self, Fault> {
        Self::select(tx, "FOR UPDATE")
            .await?
            .ok_or_else(not_installed)
    }

    async fn select(tx: &mut Tx, lock: &str) -> Result<Option<Self>, Fault> {
        let columns = Self::COLUMNS;
        let rows = tx
            .control(
                &format!("SELECT {columns} FROM cutover.state WHERE id = 1 {lock}"),
                vec![],
            )
            .await?;
        rows.first().map(Self::from_record).transpose()
    }

    /// Reads a row that starts with `COLUMNS`.
    pub(super) fn from_record(row: &Record) -> Result<Self, Fault> {
        Ok(Self {
            epoch: Epoch(row.some_int(0)?),
            stage: stage(&row.some_text(1)?)?,
            phase: row.some_text(2)?.parse()?,
            generation: row.some_int(3)?,
            bypass_refused: row.some_bool(4)?,
            latched: row.some_bool(5)?,
            since_us: row.some_int(6)?,
            reason: row.some_text(7)?,
            actor: row.some_text(8)?,
            drain_deadline_us: row.int(9)?,
            drain_to: row.text(10)?.as_deref().map(stage).transpose()?,
            coordinator: row.text(11)?,
            version_min: row.some_int(12)?,
            legacy_stale: row.some_bool(13)?,
            storage_stale: row.some_bool(14)?,
            deadline_last_us: row.some_int(15)?,
            lineage: row.some_text(16)?,
        })
    }

    pub(super) async fn insert(&self, tx: &mut Tx) -> Result<(), Fault> {
        let columns = Self::COLUMNS;
        let sql = format!(
            "INSERT INTO cutover.state (id, journaling, {columns})
             VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
        );
        tx.control(&sql, self.args()).await.map(drop)
    }

    /// Compare-and-set: replaces the row if its epoch is still `current`.
    pub(super) async fn replace(&self, tx: &mut Tx, current: Epoch) -> Result<(), Fault> {
        let mut args = self.args();
        args.push(current.into());
        let rows = tx
            .control(
                "UPDATE cutover.state SET journaling = $1, epoch = $2, stage = $3, phase = $4, generation = $5,
                 bypass_refused = $6, latched = $7, since_us = $8, reason = $9, actor = $10,
                 drain_deadline_us = $11, drain_to = $12, coordinator = $13, version_min = $14,
                 legacy_stale = $15, storage_stale = $16, deadline_last_us = $17, lineage = $18
                 WHERE id = 1 AND epoch = $19 RETURNING epoch",
                args,
            )
            .await?;
        match rows.len() {
            1 => Ok(()),
            _ => Err(Fault::Unexpected(
                "the state row moved while it was locked".to_owned(),
            )),
        }
    }

    /// `journaling`, then `COLUMNS`.
    fn args(&self) -> Vec<Arg> {
        vec![
            self.journaling().into(),
            self.epoch.into(),
            self.stage.as_str().into(),
            self.phase.as_str().into(),
            self.generation.into(),
            self.bypass_refused.into(),
            self.latched.into(),
            self.since_us.into(),
            self.reason.clone().into(),
            self.actor.clone().into(),
            self.drain_deadline_us.into(),
            self.drain_to.map(|stage| stage.as_str().to_owned()).into(),
            self.coordinator.clone().into(),
            self.version_min.into(),
            self.legacy_stale.into(),
            self.storage_stale.into(),
            self.deadline_last_us.into(),
            self.lineage.clone().into(),
        ]
    }
}

/// A stage as the database spells it.
pub(super) fn stage(text: &str) -> Result<Stage, Fault> {
    text.parse::<Stage>()
        .map_err(|error| Fault::Unexpected(error.to_string()))
}

/// The database's clock.
pub(super) async fn now_us(tx: &mut Tx) -> Result<i64, Fault> {
    let rows = tx.control("SELECT cutover.now_us()", vec![]).await?;
    rows.first().ok_or_else(not_installed)?.some_int(0)
}

/// Which history the database itself says this is.
pub(super) async fn lineage(tx: &mut Tx) -> Result<String, Fault> {
    let sql = format!("SELECT {}", lineage_sql(tx.dialect()));
    let rows = tx.fetch(&sql, vec![]).await?;
    rows.first().ok_or_else(not_installed)?.some_text(0)
}

/// What `cutover.lineage_v1()` answers where it may not look.
pub(super) const LINEAGE_WITHHELD: &str = "withheld";

/// The expression for it. A SQLite file has no timeline; a restored one shows by its epoch alone.
pub(super) fn lineage_sql(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "cutover.lineage_v1()",
        Dialect::Sqlite => "'sqlite'",
    }
}

pub(super) fn not_installed() -> Fault {
    Fault::Unexpected("the control state is not installed in this database".to_owned())
}
