//! The types that columns are made of: schemas, extensions, enums, domains, composites and ranges.

use std::collections::BTreeSet;

use crate::schema::Schema;
use crate::sql::{Arg, Fault, Tx};

/// Every type that the tables' columns rest on, found by walking down: the base of a domain, the element of
/// an array, the fields of a composite, the subtype of a range, the range of a multirange (PostgreSQL 13 has none). A
/// type is younger than those it is made of.
const USED: &str = "\
WITH RECURSIVE used AS ( \
 SELECT a.atttypid AS oid FROM pg_attribute a \
  WHERE a.attrelid IN (SELECT n::regclass FROM unnest($1::text::text[]) AS n) \
  AND a.attnum > 0 AND NOT a.attisdropped \
 UNION SELECT below.oid FROM used JOIN pg_type t ON t.oid = used.oid CROSS JOIN LATERAL ( \
  SELECT t.typbasetype AS oid WHERE t.typtype = 'd' \
  UNION ALL SELECT t.typelem WHERE t.typelem <> 0 \
  UNION ALL SELECT a.atttypid FROM pg_attribute a \
   WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
  UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid \
  UNION ALL SELECT r.rngtypid FROM pg_range r WHERE to_jsonb(r) ->> 'rngmultitypid' = t.oid::text) AS below) \
SELECT n.nspname::text, \
 (SELECT e.extname::text FROM pg_depend p JOIN pg_extension e ON e.oid = p.refobjid \
  WHERE p.classid = 'pg_type'::regclass AND p.objid = t.oid AND p.deptype = 'e'), \
 CASE t.typtype \
 WHEN 'e' THEN (SELECT format('CREATE TYPE %s AS ENUM (%s)', format_type(t.oid, NULL), \
   string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)) FROM pg_enum WHERE enumtypid = t.oid) \
 WHEN 'd' THEN format('CREATE DOMAIN %s AS %s%s%s', format_type(t.oid, NULL), \
   format_type(t.typbasetype, t.typtypmod), \
   coalesce(' DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END, \
   coalesce((SELECT string_agg(format(' CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), '' ORDER BY conname) \
    FROM pg_constraint WHERE contypid = t.oid AND contype = 'c'), '')) \
 WHEN 'c' THEN (SELECT format('CREATE TYPE %s AS (%s)', format_type(t.oid, NULL), \
   string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)) \
   FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) \
 WHEN 'r' THEN (SELECT format('CREATE TYPE %s AS RANGE (SUBTYPE = %s)', format_type(t.oid, NULL), \
   format_type(rngsubtype, NULL)) FROM pg_range WHERE rngtypid = t.oid) END \
FROM used JOIN pg_type t ON t.oid = used.oid JOIN pg_namespace n ON n.oid = t.typnamespace \
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY t.oid";

/// The statements that make them. The transaction's search path must be empty but for `pg_catalog`.
pub(super) async fn statements(tx: &mut Tx, schema: &Schema) -> Result<Vec<String>, Fault> {
    let names: Vec<&str> = schema
        .tables
        .values()
        .map(|table| table.sql_name.as_str())
        .collect();
    let records = tx.fetch(USED, vec![Arg::from(array(&names))]).await?;
    let (mut schemas, mut extensions) = (BTreeSet::new(), BTreeSet::new());
    let mut types = Vec::new();
    for record in &records {
        let namespace = record.some_text(0)?;
        match (record.text(1)?, record.text(2)?) {
            (Some(extension), _) => drop(extensions.insert(extension)),
            (None, Some(statement)) => {
                if namespace != "public" {
                    schemas.insert(namespace);
                }
                types.push(statement);
            }
            // An array is made with its element.
            (None, None) => {}
        }
    }
    let quote = crate::sql::render::quote;
    let schemas = schemas
        .iter()
        .map(|name| format!("CREATE SCHEMA IF NOT EXISTS {}", quote(name)));
    let extensions = extensions
        .iter()
        .map(|name| format!("CREATE EXTENSION IF NOT EXISTS {}", quote(name)));
    Ok(schemas.chain(extensions).chain(types).collect())
}

/// The text of a PostgreSQL array.
fn array(items: &[&str]) -> String {
    let quoted: Vec<String> = items
        .iter()
        .map(|item| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_an_array_keep_their_quotes() {
        assert_eq!(
            array(&["public.a", r#"public."o""d d""#]),
            r#"{"public.a","public.\"o\"\"d d\""}"#
        );
    }
}
