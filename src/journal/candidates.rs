//! Where a claim begins to look.

use super::claim::micros;
use super::{ClaimOptions, Parked};
use crate::contract::Key;
use crate::sql::{Arg, Db, Fault};

/// Entries among which a claim looks first: more than workers have under way, unless they are very many.
const OLDEST: usize = 2_000;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// What nothing but its turn holds up.
    Unparked,
    /// What a constraint parked: of that, where it is given, what had rested long enough by then.
    Parked {
        /// Unix microseconds.
        rested_us: Option<i64>,
    },
}

/// Keys whose first open entry could be paid now. A hint only: the claim checks again under the lock.
///
/// Looked for among the oldest entries first, which are enough while much is owed: what there is to choose from
/// must not make each claim slower. All are looked through when there is nothing to pay among these.
pub(super) async fn candidates(
    db: &Db,
    options: &ClaimOptions,
    which: Which,
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
    which: Which,
    entries: &str,
) -> Result<Vec<(String, Key)>, Fault> {
    let (parked, rested_us) = which.condition();
    let sql = format!(
        "SELECT j.tbl, j.key FROM {entries} AS j \
         WHERE j.direction = $1 AND j.kind = 'copy' AND {parked} \
         AND j.generation = (SELECT generation FROM cutover.state) \
         AND j.not_before_us <= cutover.now_us() AND j.not_before_us <= $4 \
         AND (j.token IS NULL OR j.deadline_us + $2 < cutover.now_us()) \
         AND NOT EXISTS (SELECT 1 FROM cutover.journal o \
             WHERE o.tbl = j.tbl AND o.key = j.key AND o.seq < j.seq AND o.generation = j.generation \
             LIMIT 1 OFFSET 0) ORDER BY j.seq LIMIT $3"
    );
    let args = vec![
        options.direction.as_str().into(),
        micros(options.clock_skew_max).into(),
        Arg::Int(i64::try_from(options.batch_max).ok()),
        rested_us.into(),
    ];
    let rows = db.control(&sql, args).await?;
    rows.iter()
        .map(|row| Ok((row.some_text(0)?, Key(row.some_text(1)?))))
        .collect()
}

impl Which {
    /// The condition on an entry `j`, and until when it must have rested at the latest.
    fn condition(self) -> (String, i64) {
        match self {
            Self::Unparked => ("j.parked IS NULL".to_owned(), i64::MAX),
            Self::Parked { rested_us } => (
                format!("j.parked = '{}'", Parked::Constraint.as_str()),
                rested_us.unwrap_or(i64::MAX),
            ),
        }
    }
}
