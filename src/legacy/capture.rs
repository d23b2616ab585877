//! The capture triggers: gate, journal and witness in the writer's own transaction.
//!
//! One trigger per table and event. In PostgreSQL it is an `AFTER … FOR EACH STATEMENT` trigger with
//! transition tables, so a statement pays once however many rows it touches, and everything that a
//! statement does not show is seen: `BEFORE` triggers, defaults, cascades, key changes. It runs last in
//! the statement, after the row locks, so a blocked row holds up neither a transition nor other writers.
//!
//! The function takes the epoch's lock shared and then reads `state` in a fresh snapshot: a VOLATILE
//! PL/pgSQL function takes one per inner statement under READ COMMITTED. A writer with a stronger
//! isolation level reads the row `FOR SHARE`, which fails with a serialization error instead of reading
//! the past (PostgreSQL manual, "Transaction Isolation").
//!
//! Only the key's columns are named in it, so adding, dropping or changing other columns cannot break a
//! writer.

use super::OpenError;
use crate::journal::{GATE_LOCK, gate_in_pg_locks};
use crate::schema::{Schema, Table};
use crate::sql::render::{is_spelled_by_session, key_expr, literal, quote};
use crate::sql::{Db, Dialect, Fault, INSTALL_LOCK, SPELLING};

/// Bytes of a name in PostgreSQL (`NAMEDATALEN` - 1).
const IDENTIFIER_BYTES_MAX: usize = 63;

/// Installs the gate and the triggers of every table. What is there unchanged is left alone: DDL takes locks that
/// wait for the application's transactions, and asks for rights that a proxy need not have.
pub(super) async fn install(db: &Db, schema: &Schema) -> Result<(), OpenError> {
    match db.dialect() {
        Dialect::Postgres => {
            for object in objects(schema) {
                if !object.is_installed(db).await? {
                    // A batch is one transaction: two replicas may start at once.
                    let lock = format!("SELECT pg_advisory_xact_lock({INSTALL_LOCK});\n");
                    let done = db.batch(&(lock + &object.script())).await;
                    done.map_err(|fault| object.not_installed(fault))?;
                }
            }
        }
        Dialect::Sqlite => {
            for table in schema.tables.values() {
                db.batch(&sqlite(table)).await?;
            }
        }
    }
    Ok(())
}

/// What `install` does on PostgreSQL, as a script that may be run again.
#[must_use]
pub fn capture_script(schema: &Schema) -> String {
    objects(schema).map(|object| object.script()).collect()
}

/// A function in PostgreSQL and what goes with it, marked with a digest of its DDL.
struct Object<'a> {
    /// The function's name.
    function: String,
    /// The table whose triggers call it.
    table: Option<&'a Table>,
    ddl: String,
}

fn objects(schema: &Schema) -> impl Iterator<Item = Object<'_>> {
    let gate = Object {
        function: "gate_v1".to_owned(),
        table: None,
        ddl: gate_function(),
    };
    let tables = schema.tables.values().map(|table| Object {
        function: function_name(table),
        table: Some(table),
        ddl: postgres(table),
    });
    [gate].into_iter().chain(tables)
}

impl Object<'_> {
    fn not_installed(&self, fault: Fault) -> OpenError {
        if !fault.is_not_permitted() {
            return fault.into();
        }
        let table = self.table.map_or("every table", |table| &table.name);
        OpenError::Capture {
            table: table.to_owned(),
            fault,
        }
    }

    fn script(&self) -> String {
        let (function, mark) = (quote(&self.function), self.mark());
        format!(
            "{}COMMENT ON FUNCTION cutover.{function} IS '{mark}';\n",
            self.ddl
        )
    }

    /// A digest of the DDL.
    fn mark(&self) -> String {
        digest(&self.ddl)
    }

    async fn is_installed(&self, db: &Db) -> Result<bool, Fault> {
        let (table, triggers) = match self.table {
            Some(table) => (table.sql_name.as_str(), EVENTS.len() + 1),
            None => ("", 0),
        };
        let rows = db
            .fetch(
                "SELECT obj_description(p.oid, 'pg_proc') FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                 WHERE n.nspname = 'cutover' AND p.proname = $1 AND (SELECT count(*) FROM pg_trigger t \
                 WHERE t.tgrelid = to_regclass(nullif($2, '')) AND t.tgfoid = p.oid) = $3::int8",
                vec![
                    self.function.as_str().into(),
                    table.into(),
                    (triggers as i64).into(),
                ],
            )
            .await?;
        let mark = rows.first().map_or(Ok(None), |row| row.text(0))?;
        Ok(mark == Some(self.mark()))
    }
}

/// The DDL that takes the triggers off one table.
#[must_use]
pub fn uninstall_sql(dialect: Dialect, table: &Table) -> String {
    match dialect {
        Dialect::Postgres => format!(
            "DROP FUNCTION IF EXISTS cutover.{}() CASCADE;",
            quote(&function_name(table))
        ),
        Dialect::Sqlite => EVENTS
            .iter()
            .map(|event| {
                format!(
                    "DROP TRIGGER IF EXISTS {};",
                    sqlite_trigger(table, event.name)
                )
            })
            .collect(),
    }
}

struct Event {
    name: &'static str,
    transition: &'static str,
    sqlite_rows: &'static [&'static str],
}

const EVENTS: [Event; 3] = [
    Event {
        name: "INSERT",
        transition: "REFERENCING NEW TABLE AS new_rows",
        sqlite_rows: &["NEW"],
    },
    Event {
        name: "UPDATE",
        transition: "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
        sqlite_rows: &["OLD", "NEW"],
    },
    Event {
        name: "DELETE",
        transition: "REFERENCING OLD TABLE AS old_rows",
        sqlite_rows: &["OLD"],
    },
];

/// Names carry a version so that two neighbouring versions of the program can run side by side. PostgreSQL would cut a
/// long one off, and two tables that begin alike would share a function: it ends in a digest instead.
fn function_name(table: &Table) -> String {
    let name = format!("capture_v1 {}", table.name);
    if name.len() <= IDENTIFIER_BYTES_MAX {
        return name;
    }
    let digest = digest(&table.name);
    let room = IDENTIFIER_BYTES_MAX - digest.len() - 1;
    let kept = (0..=room).rev().find(|&end| name.is_char_boundary(end));
    format!("{} {digest}", &name[..kept.unwrap_or(0)])
}

/// Sixteen digits that tell texts apart.
fn digest(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(text.as_bytes());
    let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// What the function sets for itself: the writer's session may spell the key's values in its own way, and an entry
/// under another key is a row that nobody finds. Tables that need none of it do not pay for it.
fn spelling(table: &Table) -> String {
    let mut kinds = table.key_columns().map(|column| &column.kind);
    if !kinds.any(is_spelled_by_session) {
        return String::new();
    }
    let set = |(name, value)| format!(" SET {name} = '{value}'");
    SPELLING.map(set).concat()
}

/// The gate for writers that fire no trigger (what is applied to legacy as the secondary).
fn gate_function() -> String {
    format!(
        "CREATE OR REPLACE FUNCTION cutover.gate_v1(writer_epoch bigint) RETURNS void \
         LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gate$
BEGIN
  PERFORM pg_advisory_xact_lock_shared({GATE_LOCK});
  IF (SELECT epoch FROM cutover.state) IS DISTINCT FROM writer_epoch THEN
    RAISE EXCEPTION 'cutover: the epoch is not % any more', writer_epoch USING ERRCODE = 'CT001';
  END IF;
END $gate$;
"
    )
}

fn postgres(table: &Table) -> String {
    let function = quote(&function_name(table));
    let mut sql = postgres_function(table, &function);
    for event in &EVENTS {
        let trigger = quote(&format!("cutover_capture_{}", event.name.to_lowercase()));
        sql.push_str(&format!(
            "DROP TRIGGER IF EXISTS {trigger} ON {on};
CREATE TRIGGER {trigger} AFTER {event} ON {on} {transition} FOR EACH STATEMENT EXECUTE FUNCTION cutover.{function}();
",
            on = table.sql_name,
            event = event.name,
            transition = event.transition,
        ));
    }
    sql.push_str(&format!(
        "DROP TRIGGER IF EXISTS cutover_capture_truncate ON {on};
CREATE TRIGGER cutover_capture_truncate BEFORE TRUNCATE ON {on} FOR EACH STATEMENT EXECUTE FUNCTION cutover.{function}();
",
        on = table.sql_name
    ));
    sql
}

/// What a stranger does before it takes the gate's lock: while an advance drains it waits, as our own writers
/// do in memory, or one that never pauses would owe storage something new at every look. When the drain is
/// over, or its time is up, it goes on and is captured or refused like any other.
///
/// A transaction that holds the gate's lock already must not wait, because the drain waits for it; nor must a
/// `TRUNCATE`, whose lock on the table keeps payments from reading it. Whether it holds the lock is looked up
/// only while there is something to wait for. Under READ COMMITTED each look is a fresh snapshot; a stronger
/// isolation sees the past and is let go by the deadline.
fn wait_for_drain() -> String {
    format!(
        "    WHILE TG_OP <> 'TRUNCATE' AND EXISTS (SELECT FROM cutover.state
      WHERE phase = 'draining' AND NOT bypass_refused AND drain_deadline_us > cutover.now_us()) LOOP
      EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE {gate} AND pid = pg_backend_pid());
      PERFORM pg_sleep(0.01);
    END LOOP;",
        gate = gate_in_pg_locks(),
    )
}

/// Gate first, then the writer's right to be here, then the journal.
fn postgres_function(table: &Table, function: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION cutover.{function}() RETURNS trigger \
         LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp{spelling} AS $capture$
DECLARE
  st record;
  ctx text := current_setting('cutover.ctx', true);
  bypasses boolean := coalesce(ctx, '') = '';
  op uuid;
BEGIN
  IF bypasses THEN
{wait}
  END IF;
  -- The proxy's transactions of several statements ask the gate themselves, after the last row lock: one that
  -- waits for a row must not hold the gate. What is read here is proved by it: nothing of the state changes
  -- without the epoch.
  IF split_part(coalesce(ctx, ''), '|', 3) NOT IN ('steps', 'apply') THEN
    PERFORM pg_advisory_xact_lock_shared({GATE_LOCK});
  END IF;
  IF current_setting('transaction_isolation') = 'read committed' THEN
    SELECT epoch, generation, journaling, bypass_refused INTO STRICT st FROM cutover.state;
  ELSE
    SELECT epoch, generation, journaling, bypass_refused INTO STRICT st FROM cutover.state FOR SHARE;
  END IF;
  IF bypasses THEN
    IF st.bypass_refused OR TG_OP = 'TRUNCATE' AND st.journaling THEN
      RAISE EXCEPTION 'cutover: % on % must go through the proxy now', TG_OP, {name}
        USING ERRCODE = 'CT002', HINT = 'Send it to the proxy, or ask the operator for its stage.';
    END IF;
  ELSE
    IF split_part(ctx, '|', 1)::bigint <> st.epoch THEN
      RAISE EXCEPTION 'cutover: the epoch is not % any more', split_part(ctx, '|', 1) USING ERRCODE = 'CT001';
    END IF;
    IF split_part(ctx, '|', 3) = 'apply' THEN
      RETURN NULL;
    END IF;
    op := split_part(ctx, '|', 2)::uuid;
  END IF;
  IF NOT st.journaling THEN
    RETURN NULL;
  END IF;
{appends}
  RETURN NULL;
END $capture$;
",
        spelling = spelling(table),
        wait = wait_for_drain(),
        name = literal(&table.name),
        appends = postgres_appends(table),
    )
}

/// One entry per key that the statement touched, old and new.
fn postgres_appends(table: &Table) -> String {
    let new_keys = format!(
        "SELECT {} FROM new_rows",
        key_expr(Dialect::Postgres, table, "new_rows")
    );
    let old_keys = format!(
        "SELECT {} FROM old_rows",
        key_expr(Dialect::Postgres, table, "old_rows")
    );
    let append = |keys: &str| {
        format!(
            "INSERT INTO cutover.journal (generation, direction, kind, tbl, key, op_id, bypass, epoch, created_us) \
             SELECT st.generation, 'storage', 'copy', {}, k.key, op, bypasses, st.epoch, cutover.now_us() \
             FROM ({keys}) AS k (key);",
            literal(&table.name)
        )
    };
    format!(
        "  CASE TG_OP
  WHEN 'INSERT' THEN {}
  WHEN 'UPDATE' THEN {}
  WHEN 'DELETE' THEN {}
  ELSE NULL;
  END CASE;",
        append(&new_keys),
        append(&format!("{new_keys} UNION {old_keys}")),
        append(&old_keys),
    )
}

/// SQLite has row triggers and one writer: the writer's context is a row that only exists inside its own
/// transaction.
fn sqlite(table: &Table) -> String {
    let name = literal(&table.name);
    let mut sql = String::new();
    for event in &EVENTS {
        let trigger = sqlite_trigger(table, event.name);
        let keys: Vec<String> = event
            .sqlite_rows
            .iter()
            .map(|row| format!("SELECT {} AS key", key_expr(Dialect::Sqlite, table, row)))
            .collect();
        sql.push_str(&format!(
            "DROP TRIGGER IF EXISTS {trigger};
CREATE TRIGGER {trigger} AFTER {event} ON {on} FOR EACH ROW BEGIN
  SELECT RAISE(ABORT, 'CT001 cutover: the epoch has changed')
    FROM cutover_state s, cutover_ctx c WHERE c.epoch <> s.epoch;
  SELECT RAISE(ABORT, 'CT002 cutover: this table must be written through the proxy now')
    FROM cutover_state s WHERE s.bypass_refused AND NOT EXISTS (SELECT 1 FROM cutover_ctx);
  INSERT INTO cutover_journal (generation, direction, kind, tbl, key, op_id, bypass, epoch, created_us)
    SELECT s.generation, 'storage', 'copy', {name}, k.key, c.op_id, c.epoch IS NULL, s.epoch,
      CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    FROM cutover_state s LEFT JOIN cutover_ctx c ON true, ({keys}) AS k
    WHERE s.journaling AND coalesce(c.role, '') <> 'apply';
END;
",
            event = event.name,
            on = table.sql_name,
            keys = keys.join(" UNION "),
        ));
    }
    sql
}

fn sqlite_trigger(table: &Table, event: &str) -> String {
    quote(&format!(
        "cutover_capture_{}_{}",
        table.name,
        event.to_lowercase()
    ))
}
