//! Where the open entries begin, as far as this process has seen.
//!
//! While somebody holds a transaction open for long (a row lock, a report, a dump), PostgreSQL keeps every entry that
//! was settled meanwhile, and whoever reads the journal from its start steps over all of them: the longer it lasts,
//! the dearer each claim, until payments fall behind. So a look begins a little below the first entry that the
//! last one met.
//!
//! It is a hint. An entry gets its number before it is committed, so one may turn up below the mark; some looks begin at
//! the start, and find it: the first under each epoch, because a drain waits for what they would miss, and then
//! as often as their cost allows.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::contract::Epoch;
use crate::sql::{Fault, Tx};

/// How far below the first open entry a look begins: writers that commit at the same time do so in any order.
const MARGIN: i64 = 1_000;
/// How long after a look from the start the next is due,
const WHOLE_EVERY: Duration = Duration::from_secs(1);
/// and how many times as long as it took, at least.
const WHOLE_SHARE: u32 = 20;

/// The mark that the looks of one process share.
#[derive(Debug, Default)]
pub struct LowWater(Mutex<Mark>);

#[derive(Debug, Default)]
struct Mark {
    seq: i64,
    /// The epoch under which the last look from the start began, and when the next is due.
    whole: Option<(Epoch, Instant)>,
}

/// A look that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// The first entry it may skip nothing from.
    pub(super) from: i64,
    began_at: Instant,
}

impl LowWater {
    /// Begins a look; `epoch` is the latest that is known.
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

    /// Ends a look that met `first` as its first open entry, if it met any.
    pub(super) fn end(&self, look: Look, first: Option<i64>, now: Instant) {
        let mut mark = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = first {
            mark.seq = look.from.max(first.saturating_sub(MARGIN));
        }
        if look.from == 0
            && let Some((_, due)) = &mut mark.whole
        {
            let cost = now.saturating_duration_since(look.began_at);
            *due = (*due).max(now + cost * WHOLE_SHARE);
        }
    }

    /// The first open entry of any kind. Ends a look of its own.
    pub(super) async fn first_open(&self, tx: &mut Tx, epoch: Epoch) -> Result<Option<i64>, Fault> {
        let look = self.begin(epoch, Instant::now());
        let rows = tx
            .control(
                "SELECT min(seq) FROM cutover.journal WHERE seq >= $1",
                vec![look.from.into()],
            )
            .await?;
        let first = rows.first().map_or(Ok(None), |row| row.int(0))?;
        self.end(look, first, Instant::now());
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_millis(10);

    #[test]
    fn looks_begin_a_little_below_the_first_open_entry() {
        let (mark, now) = (LowWater::default(), Instant::now());
        let whole = mark.begin(Epoch(3), now);
        assert_eq!(whole.from, 0);
        mark.end(whole, Some(50_000), now);
        let look = mark.begin(Epoch(3), now + LATER);
        assert_eq!(look.from, 50_000 - MARGIN);
        mark.end(look, Some(49_500), now + LATER);
        assert_eq!(mark.begin(Epoch(3), now + LATER).from, 50_000 - MARGIN);
        mark.end(look, None, now + LATER);
        assert_eq!(mark.begin(Epoch(3), now + LATER).from, 50_000 - MARGIN);
    }

    #[test]
    fn the_first_look_under_an_epoch_begins_at_the_start() {
        let (mark, now) = (LowWater::default(), Instant::now());
        mark.end(mark.begin(Epoch(3), now), Some(50_000), now);
        assert_eq!(mark.begin(Epoch(4), now).from, 0);
        assert!(mark.begin(Epoch(4), now).from > 0);
    }

    #[test]
    fn dear_looks_from_the_start_are_rarer() {
        let (mark, now) = (LowWater::default(), Instant::now());
        let dear = Duration::from_millis(200);
        mark.end(mark.begin(Epoch(3), now), Some(50_000), now + dear);
        assert!(mark.begin(Epoch(3), now + WHOLE_EVERY).from > 0);
        let due = now + dear + dear * WHOLE_SHARE;
        assert_eq!(mark.begin(Epoch(3), due).from, 0);
    }

    #[test]
    fn an_entry_that_turned_up_below_the_mark_lowers_it() {
        let (mark, now) = (LowWater::default(), Instant::now());
        mark.end(mark.begin(Epoch(3), now), Some(50_000), now);
        let whole = mark.begin(Epoch(3), now + WHOLE_EVERY);
        mark.end(whole, Some(7_000), now + WHOLE_EVERY);
        let look = mark.begin(Epoch(3), now + WHOLE_EVERY);
        assert_eq!(look.from, 7_000 - MARGIN);
    }
}
