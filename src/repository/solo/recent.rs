//! What this replica did lately where storage answers alone, so that a repeat gets its first answer.
//!
//! Bounded by number and by the size of the answers, whichever is reached first; the oldest goes. It is
//! memory and no promise: a restart forgets it, and the other replicas do not know it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::contract::{OpId, Reply};

/// Operations that are remembered. Those under way come on top, bounded by what the doors let in.
pub(super) const OPERATIONS_MAX: usize = 10_000;
/// And the bytes of their answers.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// The operations of one replica.
#[derive(Debug, Default)]
pub(in crate::repository) struct Recent {
    table: Mutex<Table>,
}

/// How a write may go on.
#[derive(Debug)]
pub(super) enum Entered {
    /// It is run, and everybody who repeats it meanwhile waits for what the ticket is told.
    Runs(Ticket),
    /// It is being run, or its outcome is not known yet.
    UnderWay,
    /// It was run; this was the answer.
    Done(Reply),
    /// Its id belongs to another write.
    OtherPayload,
}

/// The right, and the duty, to say what became of an operation. Dropped, it may be run again.
#[derive(Debug)]
pub(super) struct Ticket {
    recent: Arc<Recent>,
    op_id: OpId,
    serial: u64,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<OpId, Entry>,
    /// Entries that are not under way, the oldest first. Some are gone or were run again since.
    settled: VecDeque<(OpId, u64)>,
    reply_bytes: usize,
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    /// Of the payload.
    digest: String,
    /// Tells this run of the operation from another.
    serial: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    UnderWay,
    /// Until then a request of it may still take effect.
    InDoubt(Instant),
    Done(Reply),
}

impl Recent {
    /// Enters a write. `id_is_new`: the id was made by a door for a message that is new, so what is remembered
    /// under it is another's.
    pub(super) fn enter(
        self: &Arc<Self>,
        op_id: OpId,
        digest: &str,
        id_is_new: bool,
        now: Instant,
    ) -> Entered {
        let mut table = self.lock();
        if let Some(entry) = table.entries.get(&op_id) {
            match &entry.state {
                State::UnderWay if entry.digest == digest => return Entered::UnderWay,
                State::UnderWay => return Entered::OtherPayload,
                State::InDoubt(_) | State::Done(_) if id_is_new => {}
                State::InDoubt(_) | State::Done(_) if entry.digest != digest => {
                    return Entered::OtherPayload;
                }
                State::InDoubt(until) if now < *until => return Entered::UnderWay,
                State::InDoubt(_) => {}
                State::Done(reply) => return Entered::Done(reply.clone()),
            }
        }
        let serial = table.put(op_id, digest);
        Entered::Runs(Ticket {
            recent: Arc::clone(self),
            op_id,
            serial,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, op_id: OpId, serial: u64, state: State) {
        let mut table = self.lock();
        table.settle(op_id, serial, state);
        while table.settled.len() > OPERATIONS_MAX || table.reply_bytes > REPLY_BYTES_MAX {
            if !table.forget_oldest() {
                break;
            }
        }
    }
}

impl Ticket {
    /// It took effect; every repeat gets this answer.
    pub(super) fn done(self, reply: Reply) {
        self.recent
            .settle(self.op_id, self.serial, State::Done(reply));
    }

    /// It may have taken effect, or may still until then: no repeat is sent beside it.
    pub(super) fn in_doubt(self, until: Instant) {
        let state = State::InDoubt(until);
        self.recent.settle(self.op_id, self.serial, state);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.recent.lock();
        let under_way = table.entries.get(&self.op_id).is_some_and(|entry| {
            entry.serial == self.serial && matches!(entry.state, State::UnderWay)
        });
        if under_way {
            table.entries.remove(&self.op_id);
        }
    }
}

impl Table {
    fn put(&mut self, op_id: OpId, digest: &str) -> u64 {
        self.serial += 1;
        let entry = Entry {
            digest: digest.to_owned(),
            serial: self.serial,
            state: State::UnderWay,
        };
        if let Some(before) = self.entries.insert(op_id, entry) {
            self.reply_bytes -= before.state.reply_bytes();
        }
        self.serial
    }

    fn settle(&mut self, op_id: OpId, serial: u64, state: State) {
        let Some(entry) = self.entries.get_mut(&op_id) else {
            return;
        };
        if entry.serial == serial {
            self.reply_bytes += state.reply_bytes();
            entry.state = state;
            self.settled.push_back((op_id, serial));
        }
    }

    /// `false`: there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some((op_id, serial)) = self.settled.pop_front() else {
            return false;
        };
        let same = self.entries.get(&op_id).map(|entry| entry.serial) == Some(serial);
        if same && let Some(entry) = self.entries.remove(&op_id) {
            self.reply_bytes -= entry.state.reply_bytes();
        }
        true
    }
}

impl State {
    fn reply_bytes(&self) -> usize {
        match self {
            Self::UnderWay | Self::InDoubt(_) => 0,
            Self::Done(reply) => reply.as_json().len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reply() -> Reply {
        Reply::from_json(r#"{"id":1}"#.to_owned())
    }

    fn enter(recent: &Arc<Recent>, op_id: OpId) -> Entered {
        recent.enter(op_id, "digest", false, Instant::now())
    }

    fn run(recent: &Arc<Recent>, op_id: OpId) -> Ticket {
        match enter(recent, op_id) {
            Entered::Runs(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_concurrent_repeats_one_runs_and_later_ones_get_its_answer() {
        let recent = Arc::new(Recent::default());
        let op_id = OpId::fresh();
        let ticket = run(&recent, op_id);
        assert!(matches!(enter(&recent, op_id), Entered::UnderWay));
        let other = recent.enter(op_id, "other", false, Instant::now());
        assert!(matches!(other, Entered::OtherPayload));
        ticket.done(reply());
        assert!(matches!(enter(&recent, op_id), Entered::Done(first) if first == reply()));
        let other = recent.enter(op_id, "other", false, Instant::now());
        assert!(matches!(other, Entered::OtherPayload));
    }

    #[test]
    fn what_certainly_did_not_happen_may_be_run_again() {
        let recent = Arc::new(Recent::default());
        let op_id = OpId::fresh();
        drop(run(&recent, op_id));
        run(&recent, op_id).done(reply());
        assert!(matches!(enter(&recent, op_id), Entered::Done(_)));
    }

    #[test]
    fn nothing_is_sent_beside_a_doubt_until_its_time_is_over() {
        let recent = Arc::new(Recent::default());
        let (op_id, now) = (OpId::fresh(), Instant::now());
        let until = now + Duration::from_secs(2);
        run(&recent, op_id).in_doubt(until);
        let at = |then| recent.enter(op_id, "digest", false, then);
        assert!(matches!(at(now), Entered::UnderWay));
        assert!(matches!(at(until), Entered::Runs(_)));
    }

    #[test]
    fn a_new_message_under_a_derived_id_is_another_write() {
        let recent = Arc::new(Recent::default());
        let op_id = OpId::fresh();
        run(&recent, op_id).done(reply());
        let again = recent.enter(op_id, "digest", true, Instant::now());
        assert!(matches!(again, Entered::Runs(_)));
        drop(again);
        assert_eq!(recent.lock().reply_bytes, 0);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_and_none_that_is_under_way() {
        let recent = Arc::new(Recent::default());
        let (under_way, first) = (OpId::fresh(), OpId::fresh());
        let ticket = run(&recent, under_way);
        run(&recent, first).done(reply());
        for _ in 0..OPERATIONS_MAX {
            run(&recent, OpId::fresh()).done(reply());
        }
        assert!(matches!(enter(&recent, first), Entered::Runs(_)));
        assert!(matches!(enter(&recent, under_way), Entered::UnderWay));
        let table = recent.lock();
        assert_eq!(table.settled.len(), OPERATIONS_MAX);
        let bytes = OPERATIONS_MAX * reply().as_json().len();
        assert_eq!(table.reply_bytes, bytes);
        drop(table);
        drop(ticket);
    }

    #[test]
    fn large_answers_push_out_more() {
        let recent = Arc::new(Recent::default());
        let (first, second) = (OpId::fresh(), OpId::fresh());
        let large = || Reply::from_json("x".repeat(REPLY_BYTES_MAX / 2 + 1));
        run(&recent, first).done(large());
        run(&recent, second).done(large());
        assert!(matches!(enter(&recent, first), Entered::Runs(_)));
        assert!(matches!(enter(&recent, second), Entered::Done(_)));
    }
}
