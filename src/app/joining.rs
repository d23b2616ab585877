//! Taking legacy into use, with tables that are new in the configuration.
//!
//! A new table whose rows are in legacy joins as pending (`control::tables`). Where storage answers callers
//! already it cannot join: its reads would find nothing. A table without rows on either side has nothing to be
//! filled with and joins in any stage. What decides that is looked at after its capture is installed, because
//! from then on no row comes unseen; where storage answers, also before, because from then on the database
//! refuses whoever writes the table directly.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::AppError;
use super::options::table_specs;
use crate::config::Config;
use crate::contract::Epoch;
use crate::control::{Control, Newcomer};
use crate::legacy::{self, Legacy};
use crate::schema::{Schema, Table};
use crate::sql::{Db, introspect};
use crate::stage::Backend;
use crate::storage::{Look, Storage, StorageError};

/// How long a new table waits for storage to say whether it has rows.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a service may take to notice a table that was just made.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);
/// How often the decision is made anew because the epoch moved meanwhile.
const TRIES_MAX: u32 = 5;

/// Opens legacy with every configured table taking part.
pub(super) async fn open_legacy(
    config: &Config,
    db: Db,
    control: &Control,
    storage: &Storage,
) -> Result<Legacy, AppError> {
    let specs = table_specs(config);
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    for _ in 0..TRIES_MAX {
        control.refresh().await?;
        let snapshot = control.snapshot();
        let new = control.newcomers(&names).await?;
        let storage_answers = snapshot.stage.authority() == Backend::Storage;
        if storage_answers && !new.is_empty() {
            let schema = introspect(&db, &specs).await;
            let schema = schema.map_err(legacy::OpenError::from)?;
            let look = newcomers(&db, &schema, &new, storage, snapshot.epoch).await?;
            refuse_pending(&look)?;
        }
        let legacy = Legacy::open(db.clone(), specs.clone()).await?;
        if new.is_empty() {
            control.read_pending().await?;
            return Ok(legacy);
        }
        let look = newcomers(&db, &legacy.schema(), &new, storage, snapshot.epoch).await?;
        if storage_answers && let Err(error) = refuse_pending(&look) {
            legacy.release(&new).await?;
            return Err(error);
        }
        match control.admit_tables(&look, snapshot.epoch).await {
            Ok(()) => {
                for table in &look {
                    tracing::info!(table = table.name, pending = table.pending, "a table joins");
                }
                control.read_pending().await?;
                return Ok(legacy);
            }
            Err(fault) if fault.is_stale_epoch() => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    let why = "the stage changes again and again: start when it is at rest";
    Err(AppError::Refused(why.to_owned()))
}

/// What is to be said of each new table.
async fn newcomers(
    db: &Db,
    schema: &Schema,
    new: &[String],
    storage: &Storage,
    epoch: Epoch,
) -> Result<Vec<Newcomer>, AppError> {
    let mut found = Vec::with_capacity(new.len());
    for table in new.iter().filter_map(|name| schema.table(name)) {
        let nothing_there =
            legacy::is_empty(db, table).await? && is_empty_in_storage(storage, table, epoch).await;
        found.push(Newcomer {
            name: table.name.clone(),
            pending: !nothing_there,
        });
    }
    Ok(found)
}

/// Storage has the table, and no row in it. What it does not say in time is not so.
async fn is_empty_in_storage(storage: &Storage, table: &Table, epoch: Epoch) -> bool {
    let begun = Instant::now();
    loop {
        let patience = match storage.look_at(table, epoch).await {
            Ok(Look::Table { row, .. }) => return row.is_none(),
            Err(StorageError::Rejected(_)) => return false,
            Ok(Look::NoTable) => NOTICED_WITHIN,
            Err(StorageError::Unavailable(_) | StorageError::InDoubt(_)) => LOOK_WITHIN,
        };
        if begun.elapsed() >= patience {
            return false;
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn refuse_pending(look: &[Newcomer]) -> Result<(), AppError> {
    let pending = look.iter().filter(|table| table.pending);
    let pending: Vec<&str> = pending.map(|table| table.name.as_str()).collect();
    if pending.is_empty() {
        return Ok(());
    }
    Err(AppError::Refused(format!(
        "new in the configuration while storage answers callers, and not empty on both sides: {}. Go back first \
         (`cutover rollback`), start with the table, `cutover backfill --table`, `cutover verify --table`, and \
         advance again",
        pending.join(", ")
    )))
}
