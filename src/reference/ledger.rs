//! The service's own tables: which attempts it has seen and how they ended, and the fence of each key.
//!
//! An attempt's row is inserted first in its write's own transaction. Its primary key is what makes a repeat
//! wait for the first send, and what makes `resolve`, which inserts the same row as refused, wait for a
//! write in flight and keep out a late one (rules P6 and P7).

use std::time::Duration;

use super::answer::Answer;
use crate::contract::{AttemptId, Code, Error, Key};
use crate::sql::{Arg, Db, Dialect, Fault, Tx};

/// How long after its deadline an attempt is remembered: longer than any clock skew or requeued message.
const REMEMBERED_AFTER_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// How long an attempt without a deadline, or a key's fence, is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Rows forgotten per statement, so that no delete holds locks for long.
const FORGET_BATCH: i64 = 1_000;

const CREATE: &str = "\
CREATE TABLE IF NOT EXISTS reference.attempts (
    attempt_id text PRIMARY KEY,
    refused boolean NOT NULL,
    status bigint NOT NULL,
    reply text,
    forget_us bigint NOT NULL,
    created_us bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS refsvc_attempts_forget ON reference.attempts (forget_us);
CREATE TABLE IF NOT EXISTS reference.fences (
    tbl text NOT NULL,
    key text NOT NULL,
    token bigint NOT NULL,
    forget_us bigint NOT NULL,
    PRIMARY KEY (tbl, key)
);
CREATE INDEX IF NOT EXISTS refsvc_fences_forget ON reference.fences (forget_us);
CREATE TABLE IF NOT EXISTS reference.ddl (digest text PRIMARY KEY);";

/// Before `CREATE` on PostgreSQL: the schema and its clock, which unlike `now()` moves within a transaction.
/// The lock keeps two services that start at once from tripping over `IF NOT EXISTS`.
const CREATE_SCHEMA: &str = "\
SELECT pg_advisory_xact_lock(hashtext('cutover reference'));
CREATE SCHEMA IF NOT EXISTS reference;
CREATE OR REPLACE FUNCTION reference.now_us() RETURNS bigint LANGUAGE sql VOLATILE
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint';
";

/// Creates the tables where they are missing.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn create(db: &Db) -> Result<(), Fault> {
    let statements = match db.dialect() {
        // Sent as one batch, the statements are one transaction.
        Dialect::Postgres => format!("{CREATE_SCHEMA}{CREATE}"),
        Dialect::Sqlite => spelled(Dialect::Sqlite, CREATE),
    };
    db.batch(&statements).await
}

/// Whether the DDL of this digest has been run.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn has_run(db: &Db, digest: &str) -> Result<bool, Fault> {
    let sql = "SELECT 1 FROM reference.ddl WHERE digest = $1";
    let rows = db
        .fetch(&spelled(db.dialect(), sql), vec![digest.into()])
        .await?;
    Ok(!rows.is_empty())
}

/// The statement that records it.
pub(super) fn ran(dialect: Dialect, digest: &str) -> String {
    spelled(
        dialect,
        &format!("INSERT INTO reference.ddl (digest) VALUES ('{digest}')"),
    )
}

/// What became of taking an attempt's place in the ledger.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is new; its row is in this transaction.
    New,
    /// It was there: this is how it ended.
    Seen(Answer),
}

/// Takes the attempt's place, after whoever is taking it at the moment has committed or rolled back.
///
/// # Errors
/// See [`Fault`]; another send of the same attempt may still be running then.
pub(super) async fn take(
    tx: &mut Tx,
    attempt: AttemptId,
    deadline_ms: Option<i64>,
    answer: Option<&Answer>,
) -> Result<Taken, Fault> {
    let margin = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let sql =
        "INSERT INTO reference.attempts (attempt_id, refused, status, reply, forget_us, created_us)
         VALUES ($1, $2, $3, $4, COALESCE($5 + $6, reference.now_us() + $7), reference.now_us())
         ON CONFLICT (attempt_id) DO NOTHING RETURNING status";
    let args = vec![
        attempt.into(),
        answer.is_some().into(),
        answer.map_or(0, |answer| i64::from(answer.status)).into(),
        answer.map(|answer| answer.json.clone()).into(),
        deadline_ms.map(|ms| ms.saturating_mul(1_000)).into(),
        margin(REMEMBERED_AFTER_DEADLINE).into(),
        margin(REMEMBERED).into(),
    ];
    if !fetch(tx, sql, args).await?.is_empty() {
        return Ok(Taken::New);
    }
    // A new statement sees what the other transaction committed.
    let sql = "SELECT status, reply FROM reference.attempts WHERE attempt_id = $1";
    let rows = fetch(tx, sql, vec![attempt.into()]).await?;
    let Some(row) = rows.first() else {
        return Err(Fault::Unavailable(
            "the attempt was being forgotten".to_owned(),
        ));
    };
    Ok(Taken::Seen(Answer {
        status: u16::try_from(row.some_int(0)?).unwrap_or(500),
        json: row.some_text(1)?,
    }))
}

/// Records how the attempt ended, as the last statement of its write, and returns the database's time.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn finish(
    tx: &mut Tx,
    attempt: Option<AttemptId>,
    answer: &Answer,
) -> Result<i64, Fault> {
    let rows = match attempt {
        Some(attempt) => {
            let sql = "UPDATE reference.attempts SET status = $2, reply = $3 WHERE attempt_id = $1
                 RETURNING reference.now_us()";
            let status = i64::from(answer.status);
            let args = vec![attempt.into(), status.into(), answer.json.as_str().into()];
            fetch(tx, sql, args).await?
        }
        None => fetch(tx, "SELECT reference.now_us()", Vec::new()).await?,
    };
    let row = rows.first();
    row.ok_or_else(|| Fault::Unexpected("the attempt's row is gone".to_owned()))?
        .some_int(0)
}

/// Raises the fence of each key; `Err` inside when a newer token was there.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn raise(
    tx: &mut Tx,
    table: &str,
    fences: &[(Key, i64)],
) -> Result<Result<(), Error>, Fault> {
    // In one order everywhere, so that two writes never wait for each other.
    let mut ordered: Vec<_> = fences.iter().collect();
    ordered.sort();
    for (key, token) in ordered {
        let sql = "INSERT INTO reference.fences AS held (tbl, key, token, forget_us)
             VALUES ($1, $2, $3, reference.now_us() + $4)
             ON CONFLICT (tbl, key) DO UPDATE SET token = excluded.token, forget_us = excluded.forget_us
             WHERE held.token <= excluded.token RETURNING token";
        let remembered = i64::try_from(REMEMBERED.as_micros()).unwrap_or(i64::MAX);
        let args = vec![
            table.into(),
            key.0.as_str().into(),
            (*token).into(),
            remembered.into(),
        ];
        if fetch(tx, sql, args).await?.is_empty() {
            let refused = Error::new(Code::Conflict, "a newer fence token was seen for this key")
                .with_details(serde_json::json!({ "table": table, "reason": "fenced" }));
            return Ok(Err(refused));
        }
    }
    Ok(Ok(()))
}

/// Forgets attempts and fences whose time is over; returns how many rows are gone.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn forget(db: &Db) -> Result<usize, Fault> {
    let mut gone = 0;
    for sql in [
        "DELETE FROM reference.attempts WHERE attempt_id IN (SELECT attempt_id FROM reference.attempts
             WHERE forget_us < reference.now_us() LIMIT $1) RETURNING 1",
        "DELETE FROM reference.fences WHERE (tbl, key) IN (SELECT tbl, key FROM reference.fences
             WHERE forget_us < reference.now_us() LIMIT $1) RETURNING 1",
    ] {
        loop {
            let sql = spelled(db.dialect(), sql);
            let rows = db.fetch(&sql, vec![FORGET_BATCH.into()]).await?.len();
            gone += rows;
            if rows < usize::try_from(FORGET_BATCH).unwrap_or(usize::MAX) {
                break;
            }
        }
    }
    Ok(gone)
}

async fn fetch(tx: &mut Tx, sql: &str, args: Vec<Arg>) -> Result<Vec<crate::sql::Record>, Fault> {
    let sql = spelled(tx.dialect(), sql);
    tx.fetch(&sql, args).await
}

/// SQLite has no schemas and no functions of ours.
fn spelled(dialect: Dialect, sql: &str) -> String {
    match dialect {
        Dialect::Postgres => sql.to_owned(),
        Dialect::Sqlite => sql
            .replace(
                "reference.now_us()",
                "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
            )
            .replace("reference.", "refsvc_"),
    }
}
