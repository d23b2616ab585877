//! How far a backfill is with one table, written in the very transaction that owes the keys: after a crash
//! it goes on behind the last key that is owed, wherever it goes on.

use serde::Serialize;

use crate::contract::Key;
use crate::sql::{Arg, Db, Fault, Record};
use crate::walk::Note;

/// Where a table stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Its turn has not come.
    Waiting,
    /// Legacy's keys are being owed.
    Legacy,
    /// Keys that only storage has are being looked for.
    Storage,
    /// Every key was owed.
    Done,
}

/// One table's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The table.
    pub table: String,
    /// Where it stands.
    pub state: TableState,
    /// The last key that was owed in this state.
    pub last: Option<Key>,
    /// Legacy's last key when the table's turn came: what is newer was captured.
    pub upper: Option<Key>,
    /// Keys of legacy that were owed.
    pub rows: i64,
    /// Keys that only storage had.
    pub extra: i64,
    /// How many there are, as far as that is known cheaply.
    pub total: Option<i64>,
}

/// Who may write the lines of a run: the replica that holds its lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    pub(super) run_id: String,
    pub(super) owner: String,
}

const COLUMNS: &str = "tbl, state, last_key, upper_key, done_rows, extra_rows, total_rows";

impl TableState {
    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Legacy => "legacy",
            Self::Storage => "storage",
            Self::Done => "done",
        }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        [Self::Waiting, Self::Legacy, Self::Storage, Self::Done]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Fault::Unexpected(format!("a table that is {text}")))
    }
}

impl Checkpoint {
    /// The line as it is now, to be written only while `hold` holds.
    pub(super) fn note(&self, hold: &Hold) -> Note {
        let text = |key: &Option<Key>| Arg::from(key.as_ref().map(|key| key.0.clone()));
        Note {
            sql: "UPDATE cutover.backfill SET state = $1, last_key = $2, upper_key = $3, done_rows = $4, \
                  extra_rows = $5, total_rows = $6 WHERE tbl = $7 AND run_id = $8 AND EXISTS \
                  (SELECT 1 FROM cutover.backfill_run r WHERE r.run_id = $8 AND r.owner = $9 \
                  AND r.state = 'running') RETURNING 1::bigint",
            args: vec![
                self.state.as_str().into(),
                text(&self.last),
                text(&self.upper),
                self.rows.into(),
                self.extra.into(),
                self.total.into(),
                self.table.as_str().into(),
                hold.run_id.as_str().into(),
                hold.owner.as_str().into(),
            ],
        }
    }

    fn read(record: &Record) -> Result<Self, Fault> {
        Ok(Self {
            table: record.some_text(0)?,
            state: TableState::parse(&record.some_text(1)?)?,
            last: record.text(2)?.map(Key),
            upper: record.text(3)?.map(Key),
            rows: record.some_int(4)?,
            extra: record.some_int(5)?,
            total: record.int(6)?,
        })
    }
}

/// The lines of a run, in the order in which tables are filled.
pub(super) async fn of_run(db: &Db, run_id: &str) -> Result<Vec<Checkpoint>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM cutover.backfill WHERE run_id = $1 ORDER BY place");
    let records = db.control(&sql, vec![run_id.into()]).await?;
    records.iter().map(Checkpoint::read).collect()
}

/// The configured tables that storage was not filled with since the journal's last generation began.
///
/// # Errors
/// See [`Fault`].
pub async fn pending(db: &Db, tables: &[String], generation: i64) -> Result<Vec<String>, Fault> {
    let records = db
        .control(
            "SELECT tbl FROM cutover.backfill WHERE state = 'done' AND generation = $1",
            vec![generation.into()],
        )
        .await?;
    let mut filled = Vec::with_capacity(records.len());
    for record in &records {
        filled.push(record.some_text(0)?);
    }
    let pending = tables.iter().filter(|table| !filled.contains(table));
    Ok(pending.cloned().collect())
}
