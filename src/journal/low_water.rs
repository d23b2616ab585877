//! Where the open entries begin, as far as this process has seen: a hint, which can be higher than the floor.
//!
//! The floor must be right, and somebody who wrote past the proxy in a transaction that stays open (a batch, a person)
//! keeps it down. Whoever looks for entries to pay may miss one for a while, and so begins a little below the first
//! entry that the last look from the floor met. Otherwise each claim would be dearer the longer that transaction
//! lasts, until payments fall behind.
//!
//! An entry gets its number before it is committed, so one may turn up below the mark; some looks begin at the floor,
//! and find it: the first under each epoch, because a drain waits for what they would miss, and then as often as
//! their cost allows.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::floor::FLOOR;
use crate::contract::Epoch;
use crate::sql::{Fault, Tx};

/// How far below the first open entry a look begins: writers that commit at the same time do so in any order.
const MARGIN: i64 = 1_000;
/// How long after a look from the floor the next is due,
const WHOLE_EVERY: Duration = Duration::from_secs(1);
/// and how many times as long as it took, at least.
const WHOLE_SHARE: u32 = 20;

/// The mark that the looks of one process share.
#[derive(Debug, Default)]
pub struct LowWater(Mutex<Mark>);

#[derive(Debug, Default)]
struct Mark {
    seq: i64,
    /// The epoch under which the last look from the floor began, and when the next is due.
    whole: Option<(Epoch, Instant)>,
}

/// A look that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// The first entry that it must not skip.
    pub(super) from: i64,
    began_at: Instant,
}

impl Look {
    /// Whether it begins at the floor.
    pub(super) fn is_whole(self) -> bool {
        self.from == 0
    }
}

impl LowWater {
    /// Begins a look; `epoch` is the latest that is known. One from the floor must be ended.
    pub(super) fn begin(&self, epoch: Epoch, now: Instant) -> Look {
        let mut mark = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = match mark.whole {
            Some((last, due)) if last >= epoch && now < due => mark.seq,
            Some(_) | None => {
                // Nobody else begins one meanwhile.
                mark.whole = Some((epoch, now + WHOLE_EVERY));
                0
            }
        };
        Look {
            from,
            began_at: now,
        }
    }

    /// Ends a look from the floor: what it met first, if anything.
    pub(super) fn end(&self, look: Look, first: Option<i64>, now: Instant) {
        let mut mark = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = first {
            mark.seq = first.saturating_sub(MARGIN).max(1);
        }
        if let Some((_, due)) = &mut mark.whole {
            let cost = now.saturating_duration_since(look.began_at);
            *due = (*due).max(now + cost * WHOLE_SHARE);
        }
    }

    /// The first open entry of any kind that a look of its own meets.
    pub(super) async fn first_open(&self, tx: &mut Tx, epoch: Epoch) -> Result<Option<i64>, Fault> {
        let look = self.begin(epoch, Instant::now());
        let sql =
            format!("SELECT min(seq) FROM cutover.journal WHERE seq >= {FLOOR} AND seq >= $1");
        let rows = tx.control(&sql, vec![look.from.into()]).await?;
        let first = rows.first().map_or(Ok(None), |row| row.int(0))?;
        if look.is_whole() {
            self.end(look, first, Instant::now());
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_millis(10);

    fn look_from_start(mark: &LowWater, first: Option<i64>, began_at: Instant, took: Duration) {
        let look = mark.begin(Epoch(3), began_at);
        assert!(look.is_whole());
        mark.end(look, first, began_at + took);
    }

    #[test]
    fn looks_begin_a_little_below_what_the_last_one_from_the_start_met() {
        let (mark, now) = (LowWater::default(), Instant::now());
        look_from_start(&mark, Some(50_000), now, Duration::ZERO);
        assert_eq!(mark.begin(Epoch(3), now + LATER).from, 50_000 - MARGIN);
        let next = now + WHOLE_EVERY;
        look_from_start(&mark, Some(7_000), next, Duration::ZERO);
        assert_eq!(mark.begin(Epoch(3), next + LATER).from, 7_000 - MARGIN);
        let last = next + WHOLE_EVERY;
        look_from_start(&mark, None, last, Duration::ZERO);
        assert_eq!(mark.begin(Epoch(3), last + LATER).from, 7_000 - MARGIN);
    }

    #[test]
    fn the_first_look_under_an_epoch_begins_at_the_start() {
        let (mark, now) = (LowWater::default(), Instant::now());
        look_from_start(&mark, Some(50_000), now, Duration::ZERO);
        assert!(mark.begin(Epoch(4), now).is_whole());
        assert!(!mark.begin(Epoch(4), now).is_whole());
    }

    #[test]
    fn dear_looks_from_the_start_are_rarer() {
        let (mark, now) = (LowWater::default(), Instant::now());
        let dear = Duration::from_millis(200);
        look_from_start(&mark, Some(50_000), now, dear);
        assert!(!mark.begin(Epoch(3), now + WHOLE_EVERY).is_whole());
        let due = now + dear + dear * WHOLE_SHARE;
        assert!(mark.begin(Epoch(3), due).is_whole());
    }
}
