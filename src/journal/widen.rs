//! Taking more rows into an intent under which nothing was sent yet: what hangs on the rows that it removes.
//!
//! The intent is stamped anew with each step (P1): it proves that it is still its owner's (P2), and the request
//! that is sent at last carries the last stamp. A process that dies in between leaves an intent like any other;
//! storage was not asked, says so, and nothing happened.

use super::Intent;
use super::bonds::{Ahead, Named, holding};
use super::claim::{micros, now};
use super::gate::gate;
use super::intent::{durable, insert, to_intent};
use super::operation::foretell;
use crate::sql::{Db, Fault};

/// What became of widening an intent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Widened {
    /// It holds all its keys, and a request under it must not commit after this (unix microseconds).
    Until(i64),
    /// Others hold some of them; it holds what it held.
    Behind(Ahead),
    /// It is not its owner's any more.
    NotOurs,
}

/// Opens the keys of `intent` from the `held`-th on, all or none, and moves the deadline of all. With `answer`,
/// the operation is answered so if it is found out later that it took effect.
///
/// # Errors
/// See [`Fault`]. Must not be cancelled half-way.
pub async fn widen(
    db: &Db,
    intent: &Intent,
    held: usize,
    answer: Option<&str>,
) -> Result<Widened, Fault> {
    let (held, more): (&[Named], &[Named]) = intent.keys.split_at(held);
    let mut tx = db.begin().await?;
    durable(&mut tx).await?;
    if !more.is_empty() {
        intent.bonds.stripes(more).lock(&mut tx).await?;
    }
    gate(&mut tx, intent.epoch).await?;
    let deadline_us = now(&mut tx).await? + micros(intent.lease);
    let stamp = "UPDATE cutover.journal SET deadline_us = $4";
    if !to_intent(&mut tx, intent.token, held, stamp, &[deadline_us.into()]).await? {
        return Ok(Widened::NotOurs);
    }
    if !more.is_empty() {
        match holding(&mut tx, intent.token, more).await? {
            Ahead::Nobody => {}
            ahead @ (Ahead::Passing | Ahead::Elder) => return Ok(Widened::Behind(ahead)),
        }
    }
    insert(&mut tx, intent, more, deadline_us).await?;
    if let Some(answer) = answer {
        foretell(&mut tx, intent.op_id, answer).await?;
    }
    tx.commit().await?;
    Ok(Widened::Until(deadline_us))
}
