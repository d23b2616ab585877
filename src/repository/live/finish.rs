//! Step 5: what storage took comes to legacy, or is given back.
//!
//! Until its deadline the caller's own task tries: the reply is known and believed, so nobody can finish the
//! write sooner. What is left then is the resolver's, in the applier.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::super::errors;
use super::super::write::{Order, Turn};
use super::Repository;
use crate::contract::{Epoch, Reply};
use crate::journal::{self, Beside, GiveBack, Intent, OperationState};
use crate::legacy::{Applied, Finish, Image};
use crate::stage::{Backend, Stage};

/// How long to wait before legacy is tried again, doubling from the first to the last.
pub(super) const RETRY: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(160);
/// How often legacy is tried again when only writes are left that it refuses too: one of them may be about
/// to get through, and let go of what this one needs.
const LAST_TRIES: u32 = 5;

/// A write that storage took and that is believed.
pub(super) struct StepFive<'a> {
    pub(super) order: &'a Order,
    pub(super) intent: &'a Intent,
    /// The rows that legacy must get.
    pub(super) images: Vec<Image>,
    pub(super) reply: Reply,
    /// How long storage took.
    pub(super) time: Duration,
}

/// How often legacy has refused, and since when.
#[derive(Default)]
struct Refusals {
    /// The database's clock at the first.
    since_us: Option<i64>,
    /// Those with no other write left that may let go.
    alone: u32,
}

impl Refusals {
    /// Whether another try can end otherwise.
    fn may_pass(&mut self, beside: Beside) -> bool {
        if beside.under_way > 0 {
            return true;
        }
        self.alone += 1;
        beside.refused > 0 && self.alone <= LAST_TRIES
    }
}

impl Repository {
    /// Commits to legacy, under the new epoch if the epoch moved and the stage is still `live`.
    pub(super) async fn finish(&self, admitted: Epoch, step: StepFive<'_>) -> Turn {
        let mut epoch = admitted;
        let mut refusals = Refusals::default();
        let mut pause = RETRY;
        loop {
            let finish = Finish {
                token: step.intent.token,
                keys: &step.intent.keys,
                op_id: step.order.op_id,
                state: OperationState::Done,
                reply: Some(step.reply.as_json()),
                epoch,
            };
            let started = Instant::now();
            match self.legacy.finish(&finish, &step.images).await {
                Ok(Applied::Done) => {
                    self.observer
                        .paired(step.order.op, started.elapsed(), step.time);
                    return Turn::Done(Ok(step.reply), Backend::Storage, step.time);
                }
                Ok(Applied::NotOurs) => return Turn::InDoubt,
                Err(fault) if fault.is_stale_epoch() => match self.epoch_in_live(epoch).await {
                    Some(now) => epoch = now,
                    None => return Turn::InDoubt,
                },
                Err(fault) => {
                    if pause == RETRY {
                        tracing::warn!(%fault, op_id = %step.order.op_id, "a live write could not be applied to legacy yet");
                    }
                    if let Some(rule) = fault.rule()
                        && self.is_final(step.intent, &mut refusals).await
                    {
                        return self.give_back(step.order, step.intent, rule, epoch).await;
                    }
                    if Instant::now() + pause >= step.order.deadline {
                        return Turn::InDoubt;
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// The epoch that has come after this one, if the stage is `live` under it.
    async fn epoch_in_live(&self, before: Epoch) -> Option<Epoch> {
        self.control.refresh().await.ok()?;
        let now = self.control.snapshot();
        (now.stage == Stage::Live && now.epoch != before).then_some(now.epoch)
    }

    /// Whether legacy's refusal stands: no other write is left that could let go of what this one needs.
    async fn is_final(&self, intent: &Intent, refusals: &mut Refusals) -> bool {
        let db = self.legacy.db();
        if refusals.since_us.is_none() {
            refusals.since_us = db.now_us().await.ok();
        }
        let Some(since_us) = refusals.since_us else {
            return false;
        };
        match journal::open_beside(db, intent.token, since_us).await {
            Ok(beside) => !refusals.may_pass(beside),
            Err(_) => false,
        }
    }

    /// Legacy is right. The caller hears of it when storage has legacy's row again: until then a read
    /// could still see what was refused.
    async fn give_back(&self, order: &Order, intent: &Intent, rule: &str, epoch: Epoch) -> Turn {
        let refused = GiveBack {
            token: intent.token,
            keys: &intent.keys,
            op_id: order.op_id,
            rule,
            epoch,
        };
        if let Ok(true) = journal::give_back(self.legacy.db(), &refused).await {
            self.owed.notify_one();
            self.comparer.refused(&intent.keys, rule).await;
        }
        // Otherwise somebody else has it, or will: the record tells.
        Turn::InDoubt
    }

    /// The answer of a write that was refused by legacy.
    pub(super) async fn given_back(&self, order: &Order, rule: Option<String>) -> Turn {
        match journal::is_given_back(self.legacy.db(), order.op_id).await {
            Ok(true) => Turn::Done(
                Err(errors::refused_by_legacy(rule.as_deref())),
                Backend::Legacy,
                Duration::ZERO,
            ),
            Ok(false) => Turn::InDoubt,
            Err(fault) => self.blocked(fault, order),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(under_way: i64, refused: i64) -> Beside {
        Beside { under_way, refused }
    }

    #[test]
    fn a_refusal_is_final_at_once_when_nobody_else_is_under_way() {
        assert!(!Refusals::default().may_pass(beside(0, 0)));
    }

    #[test]
    fn a_write_under_way_may_let_go_however_long_it_takes() {
        let mut refusals = Refusals::default();
        assert!((0..1000).all(|_| refusals.may_pass(beside(1, 3))));
    }

    #[test]
    fn two_refused_writes_do_not_wait_for_each_other_for_ever() {
        let mut refusals = Refusals::default();
        let tries = (0..1000).filter(|_| refusals.may_pass(beside(0, 1)));
        assert_eq!(tries.count(), LAST_TRIES as usize);
    }
}
