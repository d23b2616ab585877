//! SQLite's pragmas (<https://www.sqlite.org/pragma.html>).
//!
//! Columns have an affinity and no type, so the declared name says what the contract holds. A NUMERIC
//! column would round to 15 digits: declare `NUMERIC TEXT` where every digit counts.

use crate::schema::{Column, Generated, Kind, OnChange, Reference};
use crate::sql::render::quote;
use crate::sql::{Arg, Db, Fault, Record};

use super::{Found, IntrospectError};

pub(super) async fn tables(db: &Db, names: &[String]) -> Result<Vec<Found>, IntrospectError> {
    let records = db
        .fetch(
            "SELECT name, wr FROM pragma_table_list \
             WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
            Vec::new(),
        )
        .await?;
    let mut existing = Vec::with_capacity(records.len());
    for record in &records {
        existing.push((record.some_text(0)?, record.some_int(1)? == 0));
    }
    if names.is_empty() {
        existing.retain(|(name, _)| !is_ours(name));
    } else if let Some(missing) = names
        .iter()
        .find(|name| !existing.iter().any(|(existing, _)| existing == *name))
    {
        return Err(IntrospectError::TableMissing(missing.clone()));
    } else {
        existing.retain(|(name, _)| names.contains(name));
    }
    let mut found = Vec::with_capacity(existing.len());
    for (name, has_rowid) in existing {
        found.push(table(db, name, has_rowid).await?);
    }
    Ok(found)
}

/// Whether a table is the proxy's or the reference service's own: what are schemas elsewhere are prefixes here.
fn is_ours(name: &str) -> bool {
    name.starts_with("cutover_") || name.starts_with("refsvc_")
}

async fn table(db: &Db, name: String, has_rowid: bool) -> Result<Found, IntrospectError> {
    let records = db
        .fetch(
            "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden \
             FROM pragma_table_xinfo($1) WHERE hidden <> 1 ORDER BY cid",
            vec![Arg::from(name.as_str())],
        )
        .await?;
    let mut columns = Vec::with_capacity(records.len());
    let mut key = Vec::new();
    for (index, record) in records.iter().enumerate() {
        columns.push(column(record)?);
        let place = record.some_int(4)?;
        if place > 0 {
            key.push((place, index));
        }
    }
    key.sort_unstable();
    let key: Vec<usize> = key.into_iter().map(|(_, index)| index).collect();
    for &index in &key {
        columns[index].nullable = false;
        if columns[index].kind == Kind::Bytes {
            return Err(IntrospectError::KeyUnsupported {
                table: name,
                sql_type: columns[index].sql_type.clone(),
            });
        }
    }
    let sql_name = quote(&name);
    // INTEGER PRIMARY KEY is the rowid, which SQLite gives out; its "sequence" is the table.
    if let [index] = key[..]
        && has_rowid
        && columns[index].sql_type.eq_ignore_ascii_case("INTEGER")
    {
        let rowid = &mut columns[index];
        rowid.has_default = true;
        rowid.generated = Generated::IdentityByDefault;
        rowid.sequence = Some(sql_name.clone());
    }
    Ok(Found {
        unique: unique(db, &name, &columns).await?,
        references: references(db, &name, &columns).await?,
        sql_name,
        name,
        columns,
        key,
    })
}

fn column(record: &Record) -> Result<Column, Fault> {
    let sql_type = record.some_text(1)?;
    let is_expression = record.some_int(5)? >= 2;
    Ok(Column {
        name: record.some_text(0)?,
        kind: kind(&sql_type),
        base_type: sql_type.clone(),
        sql_type,
        nullable: record.some_int(2)? == 0,
        has_default: record.some_int(3)? == 1 || is_expression,
        generated: if is_expression {
            Generated::Expression
        } else {
            Generated::No
        },
        sequence: None,
    })
}

/// The kind that a declared type stands for.
fn kind(declared: &str) -> Kind {
    let name = declared.trim().to_ascii_uppercase();
    if let Some(element) = name.strip_suffix("[]") {
        return Kind::Array(Box::new(kind(element)));
    }
    let plain = name.split('(').next().unwrap_or_default().trim();
    let first = plain.split_whitespace().next().unwrap_or_default();
    match first {
        "BOOL" | "BOOLEAN" => Kind::Bool,
        "SMALLINT" | "INT2" => Kind::Int(16),
        "INT4" | "MEDIUMINT" => Kind::Int(32),
        "INT" | "INTEGER" | "BIGINT" | "INT8" => Kind::Int(64),
        "NUMERIC" | "DECIMAL" => Kind::Numeric,
        "REAL" | "DOUBLE" | "FLOAT" | "FLOAT4" | "FLOAT8" => Kind::Float(64),
        "UUID" => Kind::Uuid,
        "TIMESTAMPTZ" => Kind::Timestamptz,
        "TIMESTAMP" if name.ends_with("WITH TIME ZONE") => Kind::Timestamptz,
        "TIMESTAMP" | "DATETIME" => Kind::Timestamp,
        "DATE" => Kind::Date,
        "TIME" => Kind::Time,
        "INTERVAL" => Kind::Interval,
        "BYTEA" | "BLOB" => Kind::Bytes,
        "JSON" => Kind::Json(false),
        "JSONB" => Kind::Json(true),
        _ if ["TEXT", "CHAR", "CLOB"]
            .iter()
            .any(|text| plain.contains(text)) =>
        {
            Kind::Text
        }
        _ => Kind::Other,
    }
}

async fn unique(db: &Db, table: &str, columns: &[Column]) -> Result<Vec<Vec<usize>>, Fault> {
    let records = db
        .fetch(
            "SELECT l.name, i.name FROM pragma_index_list($1) AS l, pragma_index_info(l.name) AS i \
             WHERE l.\"unique\" = 1 AND l.origin <> 'pk' ORDER BY l.seq, i.seqno",
            vec![Arg::from(table)],
        )
        .await?;
    let mut indexes: Vec<(String, Vec<usize>)> = Vec::new();
    for record in &records {
        let index = record.some_text(0)?;
        // An expression has no name.
        let Some(column) = record.text(1)?.and_then(|name| position(columns, &name)) else {
            continue;
        };
        match indexes.last_mut() {
            Some((last, members)) if *last == index => members.push(column),
            _ => indexes.push((index, vec![column])),
        }
    }
    Ok(indexes.into_iter().map(|(_, members)| members).collect())
}

async fn references(db: &Db, table: &str, columns: &[Column]) -> Result<Vec<Reference>, Fault> {
    let records = db
        .fetch(
            "SELECT f.id, f.\"table\", f.\"from\", \
             coalesce(f.\"to\", (SELECT name FROM pragma_table_info(f.\"table\") WHERE pk = f.seq + 1)), \
             f.on_delete, f.on_update FROM pragma_foreign_key_list($1) AS f ORDER BY f.id, f.seq",
            vec![Arg::from(table)],
        )
        .await?;
    let mut references: Vec<(i64, Reference)> = Vec::new();
    for record in &records {
        let id = record.some_int(0)?;
        if references.last().is_none_or(|(last, _)| *last != id) {
            let reference = Reference {
                columns: Vec::new(),
                table: record.some_text(1)?,
                target: Vec::new(),
                on_delete: on_change(&record.some_text(4)?),
                on_update: on_change(&record.some_text(5)?),
                clears: Vec::new(),
            };
            references.push((id, reference));
        }
        if let Some((_, reference)) = references.last_mut() {
            let column = position(columns, &record.some_text(2)?);
            reference.columns.extend(column);
            reference.clears.extend(column);
            reference.target.push(record.some_text(3)?);
        }
    }
    Ok(references
        .into_iter()
        .map(|(_, reference)| reference)
        .collect())
}

fn position(columns: &[Column], name: &str) -> Option<usize> {
    columns
        .iter()
        .position(|column| column.name.eq_ignore_ascii_case(name))
}

fn on_change(action: &str) -> OnChange {
    match action {
        "CASCADE" => OnChange::Cascade,
        "SET NULL" => OnChange::SetNull,
        "SET DEFAULT" => OnChange::SetDefault,
        _ => OnChange::Refuse,
    }
}
