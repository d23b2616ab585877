//! Where a claim begins to look.

use super::ClaimOptions;
use super::claim::micros;
use crate::contract::Key;
use crate::sql::{Arg, Db, Fault};

/// Entries among which a claim looks first: more than workers have under way, unless they are very many.
const OLDEST: usize = 2_000;

/// Keys whose first open entry could be paid now. A hint only: the claim checks again under the lock.
///
/// Looked for among the oldest entries first, which are enough while much is owed: what there is to choose from
/// must not make each claim slower. All are looked through when there is nothing to pay among these.
pub(super) async fn candidates(
    db: &Db,
    options: &ClaimOptions,
    which: &str,
) -> Result<Vec<(String, Key)>, Fault> {
    let oldest = format!("(SELECT * FROM cutover.journal ORDER BY seq LIMIT {OLDEST})");
    let found = candidates_of(db, options, which, &oldest).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    candidates_of(db, options, which, "cutover.journal").await
}

async fn candidates_of(
    db: &Db,
    options: &ClaimOptions,
    which: &str,
    entries: &str,
) -> Result<Vec<(String, Key)>, Fault> {
    let sql = format!(
        "SELECT j.tbl, j.key FROM {entries} AS j \
         WHERE j.direction = $1 AND j.kind = 'copy' AND {which} \
         AND j.generation = (SELECT generation FROM cutover.state) \
         AND j.not_before_us <= cutover.now_us() \
         AND (j.token IS NULL OR j.deadline_us + $2 < cutover.now_us()) \
         AND NOT EXISTS (SELECT 1 FROM cutover.journal o \
             WHERE o.tbl = j.tbl AND o.key = j.key AND o.seq < j.seq AND o.generation = j.generation \
             LIMIT 1 OFFSET 0) ORDER BY j.seq LIMIT $3"
    );
    let args = vec![
        options.direction.as_str().into(),
        micros(options.clock_skew_max).into(),
        Arg::Int(i64::try_from(options.batch_max).ok()),
    ];
    let rows = db.control(&sql, args).await?;
    rows.iter()
        .map(|row| Ok((row.some_text(0)?, Key(row.some_text(1)?))))
        .collect()
}
