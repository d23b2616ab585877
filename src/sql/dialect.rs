//! The two dialects, and the portable subset that the control schema is written in.
//!
//! Control statements (journal, state, audit) are written once, in PostgreSQL's spelling. SQLite shares
//! all of it but a handful of spellings, which `Dialect::control` translates: casts (`::uuid`), the
//! schema prefix (`cutover.` becomes `cutover_`), the clock, and row locks (SQLite locks the database).

use std::borrow::Cow;

/// Which database speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// PostgreSQL 13 or newer.
    Postgres,
    /// SQLite 3.42 or newer.
    Sqlite,
}

impl Dialect {
    /// A control statement in this dialect.
    #[must_use]
    pub fn control<'a>(self, sql: &'a str) -> Cow<'a, str> {
        match self {
            Self::Postgres => Cow::Borrowed(sql),
            Self::Sqlite => Cow::Owned(to_sqlite(sql)),
        }
    }
}

fn to_sqlite(sql: &str) -> String {
    let sql = sql
        .replace(
            "cutover.now_us()",
            "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        )
        .replace("cutover.each(", "json_each(")
        .replace("FOR UPDATE SKIP LOCKED", "")
        .replace("FOR UPDATE", "")
        .replace("FOR SHARE", "")
        .replace("cutover.", "cutover_");
    strip_casts(&sql)
}

/// Removes `::type` and `::type[]`.
fn strip_casts(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find("::") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let end = after
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '[' || c == ']'))
            .unwrap_or(after.len());
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_spelling_of_a_control_statement() {
        let sql = "SELECT seq FROM cutover.journal WHERE op_id = $1::uuid AND due < cutover.now_us() FOR UPDATE SKIP LOCKED";
        assert_eq!(
            Dialect::Sqlite.control(sql).trim(),
            "SELECT seq FROM cutover_journal WHERE op_id = $1 AND due < CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
        );
    }
}
