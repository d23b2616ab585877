//! Where a claim begins to look.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::claim::micros;
use super::floor::FLOOR;
use super::low_water::LowWater;
use super::stats::some_row;
use super::{ClaimOptions, Parked};
use crate::contract::Key;
use crate::sql::{Arg, Db, Fault, Record};

/// Entries among which a claim looks first: more than workers have under way, unless they are very many.
const OLDEST: i64 = 2_000;

/// The condition that an entry (`j`) could be paid now.
const IS_DUE: &str = "j.direction = $1 AND j.kind = 'copy' \
     AND j.generation = (SELECT generation FROM cutover.state) \
     AND j.not_before_us <= cutover.now_us() AND j.not_before_us <= $4 \
     AND (j.token IS NULL OR j.deadline_us + $2 < cutover.now_us())";

/// What the claims of one process remember of the looks before.
#[derive(Debug, Default)]
pub struct Outlook {
    low_water: LowWater,
    /// The last look from the floor did not get to the end.
    is_deep: AtomicBool,
}

/// The entries to look at.
fn open() -> String {
    format!("cutover.journal WHERE seq >= {FLOOR}")
}

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
    outlook: &Outlook,
) -> Result<Vec<(String, Key)>, Fault> {
    let look = outlook.low_water.begin(options.epoch_min, Instant::now());
    let keys = if look.is_whole() {
        let oldest = among_oldest(db, options, which).await?;
        let is_deep = oldest.entries >= OLDEST;
        outlook.is_deep.store(is_deep, Ordering::Relaxed);
        outlook.low_water.end(look, oldest.first, Instant::now());
        oldest.keys
    } else {
        let oldest = format!(
            "(SELECT * FROM {} AND seq >= $5 ORDER BY seq LIMIT {OLDEST})",
            open()
        );
        from_first(db, options, which, &oldest, look.from).await?
    };
    if keys.is_empty() && outlook.is_deep.load(Ordering::Relaxed) {
        let all = format!("(SELECT * FROM {})", open());
        return from_first(db, options, which, &all, 0).await;
    }
    Ok(keys)
}

/// What the oldest open entries are.
struct Oldest {
    /// How many were looked at.
    entries: i64,
    /// The first of them.
    first: Option<i64>,
    /// Keys that could be paid.
    keys: Vec<(String, Key)>,
}

/// Looks from the floor. Each entry is met once, so what is gone and not yet vacuumed is stepped over once, and not
/// for every key.
async fn among_oldest(db: &Db, options: &ClaimOptions, which: Which) -> Result<Oldest, Fault> {
    let (open, parked) = (open(), which.condition());
    let sql = format!(
        "WITH oldest AS (SELECT j.*, row_number() OVER (PARTITION BY generation, tbl, key ORDER BY seq) AS place \
         FROM (SELECT * FROM {open} ORDER BY seq LIMIT {OLDEST}) AS j) \
         SELECT o.entries, o.first, k.tbl, k.key \
         FROM (SELECT count(*) AS entries, min(seq) AS first FROM oldest) AS o \
         LEFT JOIN (SELECT j.seq, j.tbl, j.key FROM oldest AS j \
             WHERE {IS_DUE} AND {parked} AND j.place = 1 ORDER BY j.seq LIMIT $3) AS k ON true \
         ORDER BY k.seq"
    );
    let rows = db.control(&sql, args(options, which)).await?;
    let head = some_row(&rows)?;
    let (entries, first) = (head.some_int(0)?, head.int(1)?);
    let named = rows.iter().filter(|row| !matches!(row.text(2), Ok(None)));
    let keys = named.map(|row| key_at(row, 2)).collect::<Result<_, _>>()?;
    Ok(Oldest {
        entries,
        first,
        keys,
    })
}

/// Looks among these entries until there are enough; none of their keys has an older one at `from` or later.
async fn from_first(
    db: &Db,
    options: &ClaimOptions,
    which: Which,
    entries: &str,
    from: i64,
) -> Result<Vec<(String, Key)>, Fault> {
    let parked = which.condition();
    let sql = format!(
        "SELECT j.tbl, j.key FROM {entries} AS j WHERE {IS_DUE} AND {parked} \
         AND NOT EXISTS (SELECT 1 FROM cutover.journal o \
             WHERE o.tbl = j.tbl AND o.key = j.key AND o.seq + 0 < j.seq AND o.seq + 0 >= {FLOOR} AND o.seq + 0 >= $5 \
             AND o.generation = j.generation LIMIT 1 OFFSET 0) ORDER BY j.seq LIMIT $3"
    );
    let mut args = args(options, which);
    args.push(from.into());
    let rows = db.control(&sql, args).await?;
    rows.iter().map(|row| key_at(row, 0)).collect()
}

impl Which {
    /// The condition on an entry `j`.
    fn condition(self) -> String {
        match self {
            Self::Unparked => "j.parked IS NULL".to_owned(),
            Self::Parked { .. } => format!("j.parked = '{}'", Parked::Constraint.as_str()),
        }
    }

    /// By when it must have rested long enough.
    fn rested_us(self) -> i64 {
        match self {
            Self::Unparked => None,
            Self::Parked { rested_us } => rested_us,
        }
        .unwrap_or(i64::MAX)
    }
}

fn args(options: &ClaimOptions, which: Which) -> Vec<Arg> {
    vec![
        options.direction.as_str().into(),
        micros(options.clock_skew_max).into(),
        Arg::Int(i64::try_from(options.batch_max).ok()),
        which.rested_us().into(),
    ]
}

fn key_at(row: &Record, index: usize) -> Result<(String, Key), Fault> {
    Ok((row.some_text(index)?, Key(row.some_text(index + 1)?)))
}
