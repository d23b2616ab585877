//! Writes of the guard's own, to a table made for them: in slow hours they show that writes still work.
//!
//! A canary is an upsert through the repository, as a caller's write is, so that every rule holds for it: it
//! is journaled, fenced, compared and verified like any row. Each host writes one row, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Sentinel;
use crate::contract::{Insert, OpId, Query, Request, Row};
use crate::repository::{Call, OpIdSource};
use crate::schema::{Kind, Table};
use crate::storage::Capability;
use crate::telemetry::Door;

/// How long to wait before looking again whether there is a canary to write.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Names hosts as UUIDs.
const HOSTS: Uuid = Uuid::from_u128(0x7c1f_0d3a_5b60_4d0e_9a46_2f5c_9e1b_83d7);

/// What is written, and how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canary {
    /// The table that is made for it.
    pub table: String,
    /// How often, when nobody else writes or reads.
    pub every: Duration,
}

impl Sentinel {
    pub(super) async fn canaries(&self, shutdown: &CancellationToken) {
        let mut last = 0;
        let mut told = false;
        loop {
            let canary = self.options.load().canary.clone();
            let pause = canary.as_ref().map_or(LOOK_AGAIN, |canary| canary.every);
            if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            let calls = self.guard().traffic().calls;
            let quiet = calls == last;
            last = calls;
            let Some(canary) = canary.filter(|_| quiet && self.measures()) else {
                continue;
            };
            match self.canary_row(&canary.table) {
                Ok(row) => self.write_canary(canary.table, row).await,
                Err(why) if !told => {
                    told = true;
                    tracing::error!(table = canary.table, why, "no canary can be written");
                }
                Err(_) => {}
            }
        }
    }

    async fn write_canary(&self, table: String, row: Row) {
        let query = Query::Upsert(Insert {
            table,
            rows: vec![row],
            single: true,
        });
        let call = Call {
            request: Request {
                db: self.options.load().db.clone(),
                query,
                op_id: Some(OpId::fresh()),
            },
            op_id_source: OpIdSource::Client,
            door: Door::Http,
            traceparent: None,
            received: Instant::now(),
        };
        // What became of it, the guard hears as it hears of every write.
        if let Err(error) = self.repository.execute(call).await.result {
            tracing::warn!(code = error.code.as_str(), "a canary was not written");
        }
    }

    fn canary_row(&self, table: &str) -> Result<Row, &'static str> {
        if !self.parts.storage.capabilities().has(Capability::Upsert) {
            return Err("the storage service has no `upsert`");
        }
        let schema = self.parts.legacy.schema();
        let table: &Arc<Table> = schema.table(table).ok_or("the table is not there")?;
        let replica = &self.parts.control.options().replica_id;
        row(table, host(replica), &crate::clock::rfc3339_now())
    }
}

/// The row of a host at a time.
fn row(table: &Table, host: &str, now: &str) -> Result<Row, &'static str> {
    let mut keys = table.key_columns();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err("its key is not one column");
    };
    let id: Value = match key.kind {
        Kind::Text => json!(host),
        Kind::Uuid => json!(Uuid::new_v5(&HOSTS, host.as_bytes())),
        _ => return Err("its key is neither text nor uuid"),
    };
    let time = (0..table.columns.len())
        .find(|index| {
            table.columns[*index].kind == Kind::Timestamptz
                && table.policy.soft_delete != Some(*index)
        })
        .ok_or("it has no timestamptz to set")?;
    let must_be_given = table.columns.iter().enumerate().any(|(index, column)| {
        let given = index == time || table.key.contains(&index);
        !given && !column.nullable && !column.has_default
    });
    if must_be_given {
        return Err("it has other columns that must be given");
    }
    let mut row = Row::new();
    row.insert(key.name.clone(), id);
    row.insert(table.columns[time].name.clone(), json!(now));
    Ok(row)
}

/// The host of a replica: its name without the process and what is random in it.
fn host(replica_id: &str) -> &str {
    let mut parts = replica_id.rsplitn(3, '-');
    let last = parts.nth(2);
    last.unwrap_or(replica_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, Generated, Policy};

    fn table(columns: &[(&str, Kind, bool)]) -> Table {
        let column = |(name, kind, nullable): &(&str, Kind, bool)| Column {
            name: (*name).to_owned(),
            kind: kind.clone(),
            sql_type: String::new(),
            base_type: String::new(),
            nullable: *nullable,
            has_default: false,
            generated: Generated::No,
            sequence: None,
        };
        Table {
            name: "canary".to_owned(),
            sql_name: "canary".to_owned(),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            unique: vec![],
            references: vec![],
            policy: Policy::default(),
            row_sql: Default::default(),
        }
    }

    #[test]
    fn each_host_has_one_row_whatever_its_process() {
        let hosts = ["db-1.internal-77-a1b2c3", "db-1.internal-9-ffffff"].map(host);
        assert_eq!(hosts, ["db-1.internal"; 2]);
        let made = table(&[("id", Kind::Uuid, false), ("at", Kind::Timestamptz, false)]);
        let row = |now| row(&made, hosts[0], now).unwrap();
        assert_eq!(row("1")["id"], row("2")["id"]);
        assert_eq!(row("2")["at"], "2");
    }

    #[test]
    fn a_table_that_was_made_for_something_else_gets_no_canary() {
        let at = ("at", Kind::Timestamptz, true);
        let refused = |columns: &[(&str, Kind, bool)]| row(&table(columns), "h", "1").is_err();
        assert!(refused(&[("id", Kind::Int(64), false), at.clone()]));
        assert!(refused(&[("id", Kind::Text, false)]));
        let owner = ("owner", Kind::Text, false);
        assert!(refused(&[("id", Kind::Text, false), at.clone(), owner]));
        assert!(!refused(&[("id", Kind::Text, false), at]));
    }
}
