//! What waits for the broker or for an answer: a bounded table, each entry resolved exactly once.
//!
//! Open or closed, sent or not, waiting or given up: all of it changes under one lock, so that "certainly
//! not sent" is never said of a message that then goes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::message::Message;

/// What became of a message.
#[derive(Debug)]
pub(super) enum Fate {
    /// The broker has it.
    Confirmed,
    /// The broker could not route it, and sent it back.
    Returned(String),
    /// It never left.
    NotSent(String),
    /// It left, and then the channel or the broker failed.
    Lost(String),
    /// It was answered.
    Reply(Message),
}

/// What a message waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// The broker's confirm.
    Confirm,
    /// An answer with the message's correlation id.
    Reply,
}

/// Everything that waits on one channel.
#[derive(Debug)]
pub(super) struct Table {
    inner: Mutex<Inner>,
    waiting_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    open: bool,
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    until: Until,
    sent: bool,
    resolve: oneshot::Sender<Fate>,
}

/// A place in the table. Whoever waits for a reply and gives up leaves it by dropping this.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) fate: oneshot::Receiver<Fate>,
    until: Until,
    table: Arc<Table>,
}

impl Table {
    /// An empty, closed table for at most `waiting_max` entries.
    pub(super) fn new(waiting_max: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            waiting_max,
        })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// Why not; nothing will be sent.
    pub(super) fn enter(self: &Arc<Self>, until: Until) -> Result<Ticket, &'static str> {
        let mut inner = self.lock();
        if !inner.open {
            return Err("no connection to the broker");
        }
        if inner.waiting.len() >= self.waiting_max {
            return Err("overloaded: too many messages under way");
        }
        inner.last_id += 1;
        let id = inner.last_id;
        let (resolve, fate) = oneshot::channel();
        let waiting = Waiting {
            until,
            sent: false,
            resolve,
        };
        inner.waiting.insert(id, waiting);
        Ok(Ticket {
            id,
            fate,
            until,
            table: Arc::clone(self),
        })
    }

    /// Marks an entry as sent; `false` when nobody waits any more, and then it must not be sent.
    pub(super) fn mark_sent(&self, id: u64) -> bool {
        match self.lock().waiting.get_mut(&id) {
            Some(waiting) => {
                waiting.sent = true;
                true
            }
            None => false,
        }
    }

    /// Whether an entry was sent; an entry that is gone was.
    fn was_sent(&self, id: u64) -> bool {
        self.lock()
            .waiting
            .get(&id)
            .is_none_or(|waiting| waiting.sent)
    }

    /// Resolves an entry; `false` when there is none.
    pub(super) fn resolve(&self, id: u64, fate: Fate) -> bool {
        let waiting = self.lock().waiting.remove(&id);
        waiting.is_some_and(|waiting| waiting.resolve.send(fate).is_ok())
    }

    /// The broker has the message: the end of the wait for those who wait for that only.
    pub(super) fn confirm(&self, id: u64) {
        let mut inner = self.lock();
        if inner
            .waiting
            .get(&id)
            .is_some_and(|waiting| waiting.until == Until::Confirm)
            && let Some(waiting) = inner.waiting.remove(&id)
            && waiting.resolve.send(Fate::Confirmed).is_err()
        {
            // Nobody asked.
        }
    }

    /// An answer came; `false` when nobody waits for an answer of that number.
    pub(super) fn answer(&self, id: u64, reply: Message) -> bool {
        let mut inner = self.lock();
        match inner.waiting.remove(&id) {
            Some(waiting) if waiting.until == Until::Reply => {
                waiting.resolve.send(Fate::Reply(reply)).is_ok()
            }
            Some(waiting) => {
                inner.waiting.insert(id, waiting);
                false
            }
            None => false,
        }
    }

    /// The channel is ready.
    pub(super) fn open(&self) {
        self.lock().open = true;
    }

    /// The channel is gone, and with it everything that was under way.
    pub(super) fn close(&self, why: &str) {
        let mut inner = self.lock();
        inner.open = false;
        for (_, waiting) in inner.waiting.drain() {
            let fate = if waiting.sent {
                Fate::Lost(why.to_owned())
            } else {
                Fate::NotSent(why.to_owned())
            };
            if waiting.resolve.send(fate).is_err() {
                // Nobody asked.
            }
        }
    }

    /// Whether messages are taken.
    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is a single step: a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Leaves the table; whether the message was, or may have been, sent.
    pub(super) fn give_up(self) -> bool {
        self.table.was_sent(self.id)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A published message goes out even if nobody waits for its confirm.
        if self.until == Until::Reply {
            self.table.lock().waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_table(waiting_max: usize) -> Arc<Table> {
        let table = Table::new(waiting_max);
        table.open();
        table
    }

    #[test]
    fn a_caller_that_gives_up_leaves_nothing_behind_and_nothing_is_sent_for_it() {
        let table = open_table(10);
        let ticket = table.enter(Until::Reply).unwrap();
        let id = ticket.id;
        assert!(!ticket.give_up());
        assert_eq!(table.len(), 0);
        assert!(!table.mark_sent(id));
    }

    #[test]
    fn the_table_is_bounded() {
        let table = open_table(1);
        let ticket = table.enter(Until::Reply).unwrap();
        assert!(
            table
                .enter(Until::Reply)
                .unwrap_err()
                .contains("overloaded")
        );
        drop(ticket);
        assert!(table.enter(Until::Reply).is_ok());
    }

    #[test]
    fn closing_tells_sent_from_unsent() {
        let table = open_table(10);
        let mut sent = table.enter(Until::Reply).unwrap();
        let mut unsent = table.enter(Until::Confirm).unwrap();
        assert!(table.mark_sent(sent.id));
        table.close("gone");
        assert!(matches!(sent.fate.try_recv(), Ok(Fate::Lost(_))));
        assert!(matches!(unsent.fate.try_recv(), Ok(Fate::NotSent(_))));
        assert!(table.enter(Until::Reply).is_err());
    }

    #[test]
    fn a_confirm_is_no_answer_and_an_answer_is_matched_to_its_own_call_only() {
        let table = open_table(10);
        let mut call = table.enter(Until::Reply).unwrap();
        table.confirm(call.id);
        assert!(call.fate.try_recv().is_err());
        assert!(!table.answer(call.id + 1, Message::default()));
        assert!(table.answer(call.id, Message::default()));
        assert!(matches!(call.fate.try_recv(), Ok(Fate::Reply(_))));
        assert!(!table.answer(call.id, Message::default()));
    }
}
