//! PostgreSQL: tables from the catalog, under the names that the contract gives them.
//!
//! A table that the contract calls `app.orders` is one table of that name in storage. Whole rows are shipped,
//! keys included, so an identity column is `BY DEFAULT` there, whatever it is in legacy.

use std::collections::HashMap;

use super::{Blueprint, closes_a_circle, used_types};
use crate::schema::{Column, Generated, Kind, Schema, Table};
use crate::sql::render::quote;
use crate::sql::{Arg, Db, Fault, Tx};

/// Whether the object (`class`, `oid`) calls a function that is neither built in nor an extension's.
macro_rules! calls_own_function {
    ($class:literal, $oid:literal) => {
        concat!(
            "EXISTS (SELECT FROM pg_depend p WHERE p.classid = '",
            $class,
            "'::regclass AND p.objid = ",
            $oid,
            " AND p.refclassid = 'pg_proc'::regclass AND NOT EXISTS (SELECT FROM pg_depend e \
             WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.refobjid AND e.deptype = 'e'))"
        )
    };
}

/// What is computed or filled in, by column.
const EXPRESSIONS: &str = concat!(
    "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid), ",
    calls_own_function!("pg_attrdef", "d.oid"),
    " FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
     WHERE d.adrelid = $1::text::regclass"
);

/// Checks, unique and exclusion constraints.
const CONSTRAINTS: &str = concat!(
    "SELECT format('CONSTRAINT %I %s', conname, pg_get_constraintdef(k.oid)), ",
    calls_own_function!("pg_constraint", "k.oid"),
    ", NOT convalidated",
    " FROM pg_constraint k WHERE conrelid = $1::text::regclass AND contype IN ('c', 'u', 'x') \
     ORDER BY contype DESC, conname"
);

/// Indexes that no constraint makes.
const INDEXES: &str = concat!(
    "SELECT pg_get_indexdef(i.indexrelid), ",
    calls_own_function!("pg_class", "i.indexrelid"),
    " FROM pg_index i WHERE i.indrelid = $1::text::regclass AND i.indisvalid AND NOT i.indisprimary \
     AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) \
     ORDER BY i.indexrelid::regclass::text"
);

/// Relations; those that a partition inherits are its parent's.
const RELATIONS: &str = "\
SELECT quote_ident(conname), pg_get_constraintdef(k.oid), \
 (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
  WHERE c.oid = confrelid), confrelid::regclass::text, NOT convalidated \
FROM pg_constraint k WHERE conrelid = $1::text::regclass AND contype = 'f' \
AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid) ORDER BY conname";

pub(super) async fn blueprint(db: &Db, schema: &Schema) -> Result<Blueprint, Fault> {
    let mut tx = db.begin().await?;
    // So that every name is spelled with its schema, and means the same in any session.
    tx.fetch(
        "SELECT set_config('search_path', 'pg_catalog', true)",
        Vec::new(),
    )
    .await?;
    let mut blueprint = Blueprint {
        statements: used_types::statements(&mut tx, schema).await?,
        ..Blueprint::default()
    };
    for table in schema.tables.values() {
        let create = create_table(&mut tx, table, &mut blueprint.left_out).await?;
        blueprint.statements.push(create);
    }
    for table in schema.tables.values() {
        indexes(&mut tx, table, &mut blueprint).await?;
    }
    for table in schema.tables.values() {
        relations(&mut tx, schema, table, &mut blueprint).await?;
    }
    tx.commit().await?;
    Ok(blueprint)
}

async fn create_table(
    tx: &mut Tx,
    table: &Table,
    left_out: &mut Vec<String>,
) -> Result<String, Fault> {
    let name = || vec![Arg::from(table.sql_name.as_str())];
    let mut expressions = HashMap::new();
    for record in &tx.fetch(EXPRESSIONS, name()).await? {
        let expression = record.some_text(1)?;
        if record.some_bool(2)? {
            let (table, column) = (&table.name, record.some_text(0)?);
            left_out.push(format!(
                "{table}.{column}: {expression} calls a function that storage does not have"
            ));
        } else {
            expressions.insert(record.some_text(0)?, expression);
        }
    }
    let mut parts = Vec::with_capacity(table.columns.len() + 1);
    for column in &table.columns {
        let sequence = start_of(tx, column).await?;
        let expression = expressions.get(&column.name).map(String::as_str);
        parts.push(define(column, expression, sequence));
    }
    let key: Vec<String> = table.key_columns().map(|c| quote(&c.name)).collect();
    parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    for record in &tx.fetch(CONSTRAINTS, name()).await? {
        let constraint = record.some_text(0)?;
        if record.some_bool(2)? {
            left_out.push(not_validated(table, &constraint));
        } else if record.some_bool(1)? {
            left_out.push(format!(
                "{}: {constraint} calls a function that storage does not have",
                table.name
            ));
        } else {
            parts.push(constraint);
        }
    }
    let parts = parts.join(",\n  ");
    Ok(format!(
        "CREATE TABLE {} (\n  {parts}\n)",
        quote(&table.name)
    ))
}

/// Where a column's sequence starts and how it steps, where the column can be an identity.
async fn start_of(tx: &mut Tx, column: &Column) -> Result<Option<(i64, i64)>, Fault> {
    let (Some(sequence), Kind::Int(_)) = (&column.sequence, &column.kind) else {
        return Ok(None);
    };
    let records = tx
        .fetch(
            "SELECT seqstart, seqincrement FROM pg_sequence WHERE seqrelid = $1::text::regclass",
            vec![Arg::from(sequence.as_str())],
        )
        .await?;
    let record = records.first();
    record
        .map(|record| Ok((record.some_int(0)?, record.some_int(1)?)))
        .transpose()
}

fn define(column: &Column, expression: Option<&str>, sequence: Option<(i64, i64)>) -> String {
    let mut text = format!("{} {}", quote(&column.name), column.sql_type);
    match (column.generated, expression, sequence) {
        (Generated::Expression, Some(expression), _) => {
            text.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED"));
        }
        (Generated::IdentityAlways | Generated::IdentityByDefault, _, Some((start, step))) => {
            text.push_str(&format!(
                " GENERATED BY DEFAULT AS IDENTITY (START WITH {start} INCREMENT BY {step})"
            ));
        }
        // A sequence behind a column that cannot be an identity: legacy gives the value.
        (Generated::IdentityAlways | Generated::IdentityByDefault, _, None)
        | (Generated::Expression, None, _)
        | (Generated::No, None, _) => {}
        (Generated::No, Some(expression), _) => text.push_str(&format!(" DEFAULT {expression}")),
    }
    if !column.nullable {
        text.push_str(" NOT NULL");
    }
    text
}

async fn indexes(tx: &mut Tx, table: &Table, blueprint: &mut Blueprint) -> Result<(), Fault> {
    let name = vec![Arg::from(table.sql_name.as_str())];
    for record in &tx.fetch(INDEXES, name).await? {
        let index = record.some_text(0)?;
        if record.some_bool(1)? {
            blueprint.left_out.push(format!(
                "{index}: calls a function that storage does not have"
            ));
            continue;
        }
        let to = format!(" ON {} USING ", quote(&table.name));
        let index = index
            .replacen(&format!(" ON ONLY {} USING ", table.sql_name), &to, 1)
            .replacen(&format!(" ON {} USING ", table.sql_name), &to, 1);
        blueprint.statements.push(index);
    }
    Ok(())
}

/// Rows that break it may be there, and storage would refuse them.
fn not_validated(table: &Table, constraint: &str) -> String {
    format!(
        "{}: {constraint}: legacy itself has rows that it never checked",
        table.name
    )
}

async fn relations(
    tx: &mut Tx,
    schema: &Schema,
    table: &Table,
    blueprint: &mut Blueprint,
) -> Result<(), Fault> {
    let name = vec![Arg::from(table.sql_name.as_str())];
    for record in &tx.fetch(RELATIONS, name).await? {
        let (constraint, definition) = (record.some_text(0)?, record.some_text(1)?);
        let (target, spelled) = (record.some_text(2)?, record.some_text(3)?);
        if record.some_bool(4)? {
            blueprint.left_out.push(not_validated(table, &definition));
            continue;
        }
        let Some(to) = schema.tables.values().find(|to| to.sql_name == target) else {
            blueprint.left_out.push(format!(
                "{}: {definition}: that table is not configured",
                table.name
            ));
            continue;
        };
        let definition = definition.replacen(
            &format!(" REFERENCES {spelled}("),
            &format!(" REFERENCES {}(", quote(&to.name)),
            1,
        );
        let statement = format!(
            "ALTER TABLE {} ADD CONSTRAINT {constraint} {definition}",
            quote(&table.name)
        );
        if closes_a_circle(schema, table, to) {
            blueprint.later.push(statement);
        } else {
            blueprint.statements.push(statement);
        }
    }
    Ok(())
}
