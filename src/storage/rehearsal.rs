//! Faults on purpose: what a drill makes of the calls of this replica, without touching the service.
//!
//! A fault is here, and not in the service, because nothing wrong may ever reach a database because of a
//! drill. A call is withheld before it is sent, or its good reply is handed on late; and the one reply that
//! is altered gets a member that no table has, for the one reader that believes nothing: the echo check of
//! a live write, which refuses it before anything is applied.
//!
//! It works on the calls of one epoch and for a limited time, by the boot clock: whatever becomes of the
//! database that a drill is written in, the drill ends here by itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::Call;
use crate::contract::{Epoch, Query, Reply, Row};

/// The member that an altered row has and no table.
pub const REHEARSED_FIELD: &str = "cutover_drill";

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rehearsal {
    /// No call is sent.
    Unavailable,
    /// One in so many calls is not sent; at least 2, so that calls between them succeed.
    FailureRate {
        /// Of how many calls one is withheld.
        one_in: u64,
    },
    /// Every reply is handed on so much later, within the call's deadline.
    Latency {
        /// How much.
        by: Duration,
    },
    /// Replies to live writes are altered.
    Inconsistency {
        /// How many of them, on this replica.
        replies: u64,
    },
}

/// A rehearsal under way on this replica.
#[derive(Debug)]
pub struct Rehearsing {
    drill: i64,
    what: Rehearsal,
    epoch: Epoch,
    began_at: Duration,
    ends_at: Duration,
    /// Calls that it looked at, or replies that it altered.
    counted: AtomicU64,
    first_bad_at: OnceLock<Duration>,
}

impl Rehearsing {
    /// One that begins `now` and lasts so long, for the calls of one epoch. Times are of the boot clock.
    #[must_use]
    pub fn new(
        drill: i64,
        what: Rehearsal,
        epoch: Epoch,
        now: Duration,
        lasting: Duration,
    ) -> Self {
        Self {
            drill,
            what,
            epoch,
            began_at: now,
            ends_at: now + lasting,
            counted: AtomicU64::new(0),
            first_bad_at: OnceLock::new(),
        }
    }

    /// The drill that it belongs to.
    #[must_use]
    pub fn drill(&self) -> i64 {
        self.drill
    }

    /// When it began here.
    #[must_use]
    pub fn began_at(&self) -> Duration {
        self.began_at
    }

    /// When it first did something to a call.
    #[must_use]
    pub fn first_bad_at(&self) -> Option<Duration> {
        self.first_bad_at.get().copied()
    }

    /// Whether a call is not sent.
    pub(super) fn withholds(&self, epoch: Epoch, now: Duration) -> bool {
        let withheld = self.concerns(epoch, now)
            && match self.what {
                Rehearsal::Unavailable => true,
                Rehearsal::FailureRate { one_in } => self
                    .counted
                    .fetch_add(1, Ordering::Relaxed)
                    .is_multiple_of(one_in.max(2)),
                Rehearsal::Latency { .. } | Rehearsal::Inconsistency { .. } => false,
            };
        if withheld {
            self.first_bad_at.get_or_init(|| now);
        }
        withheld
    }

    /// For how long a reply is held back that has `left` until its call's deadline. It never takes more than
    /// half of that: what follows the reply, a live write's commit, has to be done before the deadline too.
    pub(super) fn delay(&self, epoch: Epoch, left: Duration, now: Duration) -> Option<Duration> {
        let delay = match self.what {
            Rehearsal::Latency { by } if self.concerns(epoch, now) => by.min(left / 2),
            Rehearsal::Latency { .. }
            | Rehearsal::Unavailable
            | Rehearsal::FailureRate { .. }
            | Rehearsal::Inconsistency { .. } => return None,
        };
        self.first_bad_at.get_or_init(|| now);
        Some(delay)
    }

    /// A live write's reply that is not the row that was written; nothing when it stays as it is.
    pub(super) fn altered(&self, call: &Call, reply: &Reply, now: Duration) -> Option<Reply> {
        let replies = match self.what {
            Rehearsal::Inconsistency { replies } if self.concerns(call.epoch, now) => replies,
            Rehearsal::Inconsistency { .. }
            | Rehearsal::Unavailable
            | Rehearsal::FailureRate { .. }
            | Rehearsal::Latency { .. } => return None,
        };
        let altered = believed_row_by_row(&call.query)
            .then(|| alter(reply))
            .flatten()?;
        if self.counted.fetch_add(1, Ordering::Relaxed) >= replies {
            return None;
        }
        self.first_bad_at.get_or_init(|| now);
        Some(altered)
    }

    fn concerns(&self, epoch: Epoch, now: Duration) -> bool {
        epoch == self.epoch && now < self.ends_at
    }
}

/// Whether all that a reply holds is rows that were written: not so a transaction's, whose counts and selected
/// rows nobody holds against anything.
fn believed_row_by_row(query: &Query) -> bool {
    match query {
        Query::Insert(_) | Query::Upsert(_) | Query::Update(_) | Query::Delete(_) => true,
        Query::Select(_)
        | Query::Count(_)
        | Query::Transaction(_)
        | Query::Range(_)
        | Query::Batch(_)
        | Query::Resolve(_)
        | Query::Describe(_) => false,
    }
}

/// The reply with a member that no table has in its first row; nothing when it has no row.
fn alter(reply: &Reply) -> Option<Reply> {
    let mut value = reply.parse().ok()?;
    let row = match &mut value {
        Value::Object(row) => Some(row),
        Value::Array(rows) => rows.first_mut().and_then(Value::as_object_mut),
        _ => None,
    }?;
    mark(row).then(|| Reply::from_value(&value))
}

fn mark(row: &mut Row) -> bool {
    let known = row.contains_key(REHEARSED_FIELD);
    row.insert(REHEARSED_FIELD.to_owned(), Value::Bool(true));
    !known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Insert, Select};
    use crate::storage::UnixMs;

    const NOW: Duration = Duration::from_secs(1000);
    const LASTING: Duration = Duration::from_secs(30);
    const EPOCH: Epoch = Epoch(7);

    fn rehearsing(what: Rehearsal) -> Rehearsing {
        Rehearsing::new(1, what, EPOCH, NOW, LASTING)
    }

    fn write(query: Query) -> Call {
        Call::new(query, UnixMs(0), EPOCH)
    }

    fn insert() -> Call {
        write(Query::Insert(Insert::default()))
    }

    fn reply(json: &str) -> Reply {
        Reply::from_json(json.to_owned())
    }

    #[test]
    fn it_touches_only_calls_of_its_epoch_and_only_in_its_time() {
        let gone = rehearsing(Rehearsal::Unavailable);
        assert!(!gone.withholds(Epoch(8), NOW));
        assert!(!gone.withholds(Epoch(6), NOW));
        assert!(!gone.withholds(EPOCH, NOW + LASTING));
        assert_eq!(gone.first_bad_at(), None);
        assert!(gone.withholds(EPOCH, NOW));
        assert!(gone.withholds(EPOCH, NOW + LASTING / 2));
        assert_eq!(gone.first_bad_at(), Some(NOW));
        assert_eq!(gone.delay(EPOCH, LASTING, NOW), None);
        assert_eq!(gone.altered(&insert(), &reply("{}"), NOW), None);
    }

    #[test]
    fn a_share_of_the_calls_fails_and_the_others_do_not() {
        let withheld = |one_in, calls| {
            let some = rehearsing(Rehearsal::FailureRate { one_in });
            (0..calls).filter(|_| some.withholds(EPOCH, NOW)).count()
        };
        assert_eq!(withheld(10, 100), 10);
        assert_eq!(withheld(0, 100), 50, "never all of them");
    }

    #[test]
    fn a_late_reply_leaves_half_of_the_time_that_was_left() {
        let late = rehearsing(Rehearsal::Latency {
            by: Duration::from_millis(200),
        });
        let delay = |left_ms| late.delay(EPOCH, Duration::from_millis(left_ms), NOW);
        assert_eq!(delay(1500), Some(Duration::from_millis(200)));
        assert_eq!(delay(100), Some(Duration::from_millis(50)));
        assert!(!late.withholds(EPOCH, NOW));
    }

    #[test]
    fn so_many_replies_are_altered_by_a_member_that_no_table_has() {
        let odd = rehearsing(Rehearsal::Inconsistency { replies: 2 });
        let written = reply(r#"{"id":1,"n":1.10}"#);
        let altered = odd.altered(&insert(), &written, NOW).unwrap();
        assert_eq!(
            altered.as_json(),
            r#"{"id":1,"n":1.10,"cutover_drill":true}"#
        );
        let rows = odd.altered(&insert(), &reply(r#"[{"id":1},{"id":2}]"#), NOW);
        assert_eq!(
            rows.unwrap().as_json(),
            r#"[{"id":1,"cutover_drill":true},{"id":2}]"#
        );
        assert_eq!(odd.altered(&insert(), &written, NOW), None, "enough");
    }

    #[test]
    fn a_reply_without_a_row_that_was_written_is_left_alone_and_does_not_count() {
        let odd = rehearsing(Rehearsal::Inconsistency { replies: 1 });
        let known = r#"{"cutover_drill":1}"#;
        for none in ["null", "[]", r#"[[{"id":2}]]"#, "{", known] {
            assert_eq!(odd.altered(&insert(), &reply(none), NOW), None, "{none}");
        }
        let row = reply(r#"{"id":1}"#);
        for unheld in [Query::Transaction(vec![]), Query::Select(Select::default())] {
            assert_eq!(odd.altered(&write(unheld), &row, NOW), None);
        }
        assert!(odd.altered(&insert(), &row, NOW).is_some());
    }
}
