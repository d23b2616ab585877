//! Appending `copy` entries: what is owed beside what the capture triggers append.

use super::stripes::json_list;
use super::{Departure, Direction, Left};
use crate::contract::{Key, OpId};
use crate::sql::{Arg, Fault, Tx};

/// Keys of one table that a side is owed.
#[derive(Clone, Copy, Debug)]
pub struct Copies<'a> {
    /// Whom they are owed to.
    pub direction: Direction,
    /// The table.
    pub table: &'a str,
    /// The keys.
    pub keys: &'a [Key],
    /// The write that is the cause, if one is.
    pub op_id: Option<OpId>,
    /// Whether the rows may have left storage.
    pub left: Left,
    /// The last departure known to be noted before the write began; none where it is not known when it did.
    pub noted: Option<Departure>,
}

impl<'a> Copies<'a> {
    /// Rows that are to be like the authority's, whatever the cause: no write is behind them, and none of them left.
    #[must_use]
    pub fn of_rows(direction: Direction, table: &'a str, keys: &'a [Key]) -> Self {
        Self {
            direction,
            table,
            keys,
            op_id: None,
            left: Left::No,
            noted: None,
        }
    }
}

/// Appends them, under the epoch of `tx`.
///
/// # Errors
/// See [`Fault`].
pub async fn append_copies(tx: &mut Tx, copies: Copies<'_>) -> Result<(), Fault> {
    let texts: Vec<&str> = copies.keys.iter().map(|key| key.0.as_str()).collect();
    let left_by = match copies.left {
        Left::No => Some(0),
        // The next departure to be noted is after this moment.
        Left::ByNow => None,
        Left::Before(departure) => Some(departure.0),
    };
    let noted = copies.noted.unwrap_or(Departure(0));
    tx.control(
        "INSERT INTO cutover.journal (generation, direction, kind, tbl, key, op_id, epoch, created_us, \
         leaves, left_by, noted) \
         SELECT s.generation, $1, 'copy', $2, e.value, $3::uuid, s.epoch, cutover.now_us(), \
         $5, coalesce($6, (SELECT d.number + 1 FROM cutover.departures d WHERE d.name = '')), $7 \
         FROM cutover.state s, cutover.each($4) AS e",
        vec![
            copies.direction.as_str().into(),
            copies.table.into(),
            Arg::Text(copies.op_id.map(|id| id.to_string())),
            json_list(&texts),
            (copies.left != Left::No).into(),
            Arg::Int(left_by),
            noted.0.into(),
        ],
    )
    .await
    .map(drop)
}
