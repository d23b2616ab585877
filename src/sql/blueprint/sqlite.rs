//! SQLite keeps the text of every statement that made something.

use super::{Blueprint, closes_a_circle};
use crate::schema::Schema;
use crate::sql::{Arg, Db, Fault};

pub(super) async fn blueprint(db: &Db, schema: &Schema) -> Result<Blueprint, Fault> {
    let mut blueprint = Blueprint::default();
    let mut indexes = Vec::new();
    for table in schema.tables.values() {
        // A table without text of its own has none that could be run; an automatic index has no text.
        let records = db
            .fetch(
                "SELECT type, sql FROM sqlite_schema WHERE tbl_name = $1 AND sql IS NOT NULL \
                 AND type IN ('table', 'index') ORDER BY type DESC, name",
                vec![Arg::from(table.name.as_str())],
            )
            .await?;
        for record in &records {
            let sql = record.some_text(1)?;
            match record.some_text(0)?.as_str() {
                "table" => blueprint.statements.push(sql),
                _ => indexes.push(sql),
            }
        }
        for reference in &table.references {
            let to = &reference.table;
            match schema.table(to) {
                None => blueprint.left_out.push(format!(
                    "{}: points to {to}, which is not configured: make that table too, or take the REFERENCES out",
                    table.name
                )),
                Some(to) if closes_a_circle(schema, table, to) => blueprint.left_out.push(format!(
                    "nothing, but the relation from {} to {} closes a circle: declare it DEFERRABLE \
                     INITIALLY DEFERRED, or leave it out until storage is the authority",
                    table.name, to.name
                )),
                Some(_) => {}
            }
        }
    }
    blueprint.statements.append(&mut indexes);
    Ok(blueprint)
}
