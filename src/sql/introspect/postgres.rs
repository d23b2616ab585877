//! PostgreSQL's catalog (<https://www.postgresql.org/docs/current/catalogs.html>).
//!
//! Names are resolved with the session's `search_path`; after that it is emptied for the transaction, so
//! that every type, table and sequence is spelled with its schema and means the same in any session.

use crate::schema::{Column, Generated, Kind, OnChange, Reference};
use crate::sql::{Arg, Db, Fault, Record, Tx};

use super::{Found, IntrospectError};

struct Relation {
    oid: i64,
    contract_name: String,
}

/// Column numbers of the catalog (they have gaps) by position.
struct Columns {
    numbers: Vec<i64>,
    columns: Vec<Column>,
}

pub(super) async fn tables(db: &Db, names: &[String]) -> Result<Vec<Found>, IntrospectError> {
    let mut tx = db.begin().await?;
    let relations = relations(&mut tx, names).await?;
    tx.fetch(
        "SELECT set_config('search_path', 'pg_catalog', true)",
        Vec::new(),
    )
    .await?;
    let mut found = Vec::with_capacity(relations.len());
    for relation in &relations {
        found.push(table(&mut tx, relation, &relations).await?);
    }
    tx.commit().await?;
    Ok(found)
}

async fn relations(tx: &mut Tx, names: &[String]) -> Result<Vec<Relation>, IntrospectError> {
    if names.is_empty() {
        return every_relation(tx).await;
    }
    let mut relations = Vec::with_capacity(names.len());
    for name in names {
        let quoted: Vec<_> = name.splitn(2, '.').map(crate::sql::render::quote).collect();
        let records = tx
            .fetch(
                "SELECT oid::int8, relispartition \
                 OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid AND c.relkind = 'r'), \
                 EXISTS (SELECT FROM pg_index k WHERE k.indrelid = c.oid AND k.indisprimary AND NOT k.indimmediate) \
                 FROM pg_class c WHERE oid = to_regclass($1::text) AND relkind IN ('r', 'p')",
                vec![Arg::from(quoted.join("."))],
            )
            .await?;
        let record = records
            .first()
            .ok_or_else(|| IntrospectError::TableMissing(name.clone()))?;
        if record.some_bool(1)? {
            return Err(IntrospectError::Inherits(name.clone()));
        }
        if record.some_bool(2)? {
            return Err(IntrospectError::DeferrableKey(name.clone()));
        }
        relations.push(Relation {
            oid: record.some_int(0)?,
            contract_name: name.clone(),
        });
    }
    Ok(relations)
}

/// The tables that a name without a schema reaches.
async fn every_relation(tx: &mut Tx) -> Result<Vec<Relation>, IntrospectError> {
    let records = tx
        .fetch(
            "SELECT c.oid::int8, c.relname::text \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'cutover', 'reference') \
             AND pg_table_is_visible(c.oid) ORDER BY 2",
            Vec::new(),
        )
        .await?;
    let mut relations = Vec::with_capacity(records.len());
    for record in &records {
        relations.push(Relation {
            oid: record.some_int(0)?,
            contract_name: record.some_text(1)?,
        });
    }
    Ok(relations)
}

async fn table(
    tx: &mut Tx,
    relation: &Relation,
    relations: &[Relation],
) -> Result<Found, IntrospectError> {
    let Columns { numbers, columns } = columns(tx, relation.oid).await?;
    let (key, unique) = indexes(tx, relation.oid, &numbers).await?;
    if let Some(index) = ambiguous(tx, relation.oid, &numbers, &key, &columns).await? {
        return Err(IntrospectError::KeySpelling {
            table: relation.contract_name.clone(),
            column: columns[index].name.clone(),
            sql_type: columns[index].sql_type.clone(),
        });
    }
    let references = references(tx, relation.oid, &numbers, relations).await?;
    let records = tx
        .fetch(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::int8::oid",
            vec![Arg::from(relation.oid)],
        )
        .await?;
    let record = records
        .first()
        .ok_or_else(|| IntrospectError::TableMissing(relation.contract_name.clone()))?;
    Ok(Found {
        name: relation.contract_name.clone(),
        sql_name: record.some_text(0)?,
        columns,
        key,
        unique,
        references,
    })
}

/// A domain is followed to its base type and that type's modifiers, also below an array.
const COLUMNS: &str = "\
SELECT a.attnum::int8, a.attname::text, format_type(a.atttypid, a.atttypmod), \
 a.attnotnull OR t.typnotnull, a.atthasdef OR t.typdefault IS NOT NULL, \
 a.attidentity::text, a.attgenerated::text, \
 coalesce(pg_get_serial_sequence($1::int8::oid::regclass::text, a.attname), s.name), \
 base.name, base.labels, element.name, element.labels, base.spelled \
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
CROSS JOIN LATERAL ( \
 WITH RECURSIVE chain AS ( \
  SELECT b.*, a.atttypmod AS modifier FROM pg_type b WHERE b.oid = a.atttypid \
  UNION ALL SELECT b.*, chain.typtypmod FROM pg_type b JOIN chain ON b.oid = chain.typbasetype \
  WHERE chain.typtype = 'd') \
 SELECT CASE WHEN typtype = 'e' THEN 'enum' WHEN typnamespace = 'pg_catalog'::regnamespace THEN typname::text \
  ELSE 'other' END AS name, \
  (SELECT json_agg(enumlabel ORDER BY enumsortorder)::text FROM pg_enum WHERE enumtypid = chain.oid) AS labels, \
  CASE WHEN typcategory = 'A' AND typlen = -1 THEN typelem END AS element, \
  format_type(oid, modifier) AS spelled \
 FROM chain WHERE typtype <> 'd') AS base \
LEFT JOIN LATERAL ( \
 WITH RECURSIVE chain AS ( \
  SELECT b.* FROM pg_type b WHERE b.oid = base.element \
  UNION ALL SELECT b.* FROM pg_type b JOIN chain ON b.oid = chain.typbasetype WHERE chain.typtype = 'd') \
 SELECT CASE WHEN typtype = 'e' THEN 'enum' WHEN typnamespace = 'pg_catalog'::regnamespace THEN typname::text \
  ELSE 'other' END AS name, \
  (SELECT json_agg(enumlabel ORDER BY enumsortorder)::text FROM pg_enum WHERE enumtypid = chain.oid) AS labels \
 FROM chain WHERE typtype <> 'd') AS element ON true \
LEFT JOIN LATERAL ( \
 SELECT p.refobjid::regclass::text AS name FROM pg_attrdef d \
 JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass \
 JOIN pg_class q ON q.oid = p.refobjid AND q.relkind = 'S' \
 WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum LIMIT 1) AS s ON true \
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

async fn columns(tx: &mut Tx, oid: i64) -> Result<Columns, Fault> {
    let records = tx.fetch(COLUMNS, vec![Arg::from(oid)]).await?;
    let mut found = Columns {
        numbers: Vec::with_capacity(records.len()),
        columns: Vec::with_capacity(records.len()),
    };
    for record in &records {
        found.numbers.push(record.some_int(0)?);
        found.columns.push(column(record)?);
    }
    Ok(found)
}

fn column(record: &Record) -> Result<Column, Fault> {
    let identity = record.some_text(5)?;
    let sequence = record.text(7)?;
    let generated = if !record.some_text(6)?.is_empty() {
        Generated::Expression
    } else if identity == "a" {
        Generated::IdentityAlways
    } else if identity == "d" || sequence.is_some() {
        Generated::IdentityByDefault
    } else {
        Generated::No
    };
    let kind = match record.text(10)? {
        Some(element) => Kind::Array(Box::new(kind(&element, record.text(11)?)?)),
        None => kind(&record.some_text(8)?, record.text(9)?)?,
    };
    Ok(Column {
        name: record.some_text(1)?,
        kind,
        sql_type: record.some_text(2)?,
        base_type: record.some_text(12)?,
        nullable: !record.some_bool(3)?,
        has_default: record.some_bool(4)? || generated != Generated::No,
        generated,
        sequence,
    })
}

fn kind(base: &str, labels: Option<String>) -> Result<Kind, Fault> {
    Ok(match base {
        "bool" => Kind::Bool,
        "int2" => Kind::Int(16),
        "int4" => Kind::Int(32),
        "int8" => Kind::Int(64),
        "numeric" => Kind::Numeric,
        "float4" => Kind::Float(32),
        "float8" => Kind::Float(64),
        "text" | "varchar" | "bpchar" | "name" => Kind::Text,
        "uuid" => Kind::Uuid,
        "timestamptz" => Kind::Timestamptz,
        "timestamp" => Kind::Timestamp,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "interval" => Kind::Interval,
        "bytea" => Kind::Bytes,
        "json" => Kind::Json(false),
        "jsonb" => Kind::Json(true),
        "enum" => Kind::Enum(parsed(&labels.unwrap_or_else(|| "[]".to_owned()))?),
        _ => Kind::Other,
    })
}

type Indexes = (Vec<usize>, Vec<Vec<usize>>);

/// The primary key, and the columns of other unique indexes; partial ones too, as they can refuse a row.
async fn indexes(tx: &mut Tx, oid: i64, numbers: &[i64]) -> Result<Indexes, Fault> {
    let records = tx
        .fetch(
            "SELECT i.indisprimary, (SELECT json_agg(u.number ORDER BY u.position)::text \
             FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u(number, position) \
             WHERE u.position <= i.indnkeyatts) \
             FROM pg_index i WHERE i.indrelid = $1::int8::oid AND i.indisunique ORDER BY i.indexrelid",
            vec![Arg::from(oid)],
        )
        .await?;
    let (mut key, mut unique) = (Vec::new(), Vec::new());
    for record in &records {
        let columns = positions(&record.some_text(1)?, numbers)?;
        if record.some_bool(0)? {
            key = columns;
        } else if !columns.is_empty() {
            unique.push(columns);
        }
    }
    Ok((key, unique))
}

/// Key columns whose equal values need not be the same value. A B-tree's operator class says so itself: it has no
/// support function `equalimage`, or its collation is not deterministic
/// (<https://www.postgresql.org/docs/current/btree.html>). Numbers are brought to one spelling (`key_expr`).
const AMBIGUOUS: &str = "\
SELECT json_agg(k.number)::text FROM pg_index i \
CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) AS k(number, class, collated) \
JOIN pg_opclass o ON o.oid = k.class \
WHERE i.indrelid = $1::int8::oid AND i.indisprimary AND ( \
 EXISTS (SELECT FROM pg_collation c WHERE c.oid = k.collated AND NOT c.collisdeterministic) \
 OR o.opcintype <> ALL (ARRAY['numeric', 'float4', 'float8']::regtype[]) \
 AND NOT EXISTS (SELECT FROM pg_amproc p WHERE p.amprocfamily = o.opcfamily AND p.amprocnum = 4 \
  AND p.amproclefttype = o.opcintype AND p.amprocrighttype = o.opcintype))";

/// The first column of the key by whose spelling rows cannot be told apart; one that is computed is none either, as
/// nobody can be sent it.
async fn ambiguous(
    tx: &mut Tx,
    oid: i64,
    numbers: &[i64],
    key: &[usize],
    columns: &[Column],
) -> Result<Option<usize>, Fault> {
    let records = tx.fetch(AMBIGUOUS, vec![Arg::from(oid)]).await?;
    let told = records.first().map_or(Ok(None), |record| record.text(0))?;
    let told = positions(told.as_deref().unwrap_or("[]"), numbers)?;
    let is_ambiguous = |index: &usize| {
        let column = &columns[*index];
        told.contains(index)
            // Trailing blanks do not count, and without a length nothing makes them alike.
            || column.base_type == "bpchar"
            || column.kind == Kind::Interval
            || column.generated == Generated::Expression
    };
    Ok(key.iter().copied().find(is_ambiguous))
}

async fn references(
    tx: &mut Tx,
    oid: i64,
    numbers: &[i64],
    relations: &[Relation],
) -> Result<Vec<Reference>, Fault> {
    let records = tx
        .fetch(
            "SELECT k.confrelid::int8, c.relname::text, to_json(k.conkey)::text, \
             (SELECT json_agg(a.attname ORDER BY u.position)::text \
              FROM unnest(k.confkey) WITH ORDINALITY AS u(number, position) \
              JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number), \
             k.confdeltype::text, k.confupdtype::text, \
             coalesce(to_jsonb(k) ->> 'confdelsetcols', to_json(k.conkey)::text) \
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid \
             WHERE k.conrelid = $1::int8::oid AND k.contype = 'f' \
             AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid) \
             ORDER BY k.conname",
            vec![Arg::from(oid)],
        )
        .await?;
    let mut references = Vec::with_capacity(records.len());
    for record in &records {
        let target = record.some_int(0)?;
        let configured = relations.iter().find(|relation| relation.oid == target);
        references.push(Reference {
            columns: positions(&record.some_text(2)?, numbers)?,
            table: match configured {
                Some(relation) => relation.contract_name.clone(),
                None => record.some_text(1)?,
            },
            target: parsed(&record.some_text(3)?)?,
            on_delete: on_change(&record.some_text(4)?),
            on_update: on_change(&record.some_text(5)?),
            // A list of columns to set came with PostgreSQL 15; without one, it is all of them.
            clears: positions(&record.some_text(6)?, numbers)?,
        });
    }
    Ok(references)
}

fn on_change(action: &str) -> OnChange {
    match action {
        "c" => OnChange::Cascade,
        "n" => OnChange::SetNull,
        "d" => OnChange::SetDefault,
        _ => OnChange::Refuse,
    }
}

/// Positions of catalog numbers; an expression (number 0) has none.
fn positions(json: &str, numbers: &[i64]) -> Result<Vec<usize>, Fault> {
    let wanted: Vec<i64> = parsed(json)?;
    Ok(wanted
        .iter()
        .filter_map(|wanted| numbers.iter().position(|number| number == wanted))
        .collect())
}

fn parsed<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Fault> {
    serde_json::from_str(json).map_err(|error| Fault::Unexpected(format!("catalog: {error}")))
}
