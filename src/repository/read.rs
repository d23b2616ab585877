//! Reads: from the stage's authority, and in `shadow` and `live` again from the other side to compare.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::errors::{self, Effect};
use super::{Answer, Call, Repository};
use crate::contract::{AttemptId, Epoch, Reply};
use crate::control::{LeaseLost, Snapshot};
use crate::schema::{Bound, Read, ReadKind, Schema, read_query};
use crate::shadow::Answered;
use crate::sql::Fault;
use crate::stage::{Backend, Stage};
use crate::storage::{self, Capability, StorageError, UnixMs};
use crate::telemetry::Op;

/// Of a read's time in `live`, in quarters: after the first legacy is asked too, after the third storage
/// has no more.
const WHOLE: u32 = 4;
const HEDGE_SHARE: u32 = 1;
const STORAGE_SHARE: u32 = 3;

/// How long a read waits for a newer shape of the tables before it tries again.
const REREAD_PAUSE: Duration = Duration::from_millis(20);

/// The read was bound to other tables than legacy has.
struct OtherSchema;

/// How storage ended in `live`.
enum FirstLook {
    /// It answered.
    Storage(Reply),
    /// It did not; what legacy said, if it was asked already.
    Failed(Option<Result<Reply, Fault>>),
}

impl Repository {
    /// Answers a read from the authority. In `live`, legacy answers when storage cannot. A read that meets other
    /// tables than it was bound to is bound anew.
    pub(super) async fn read(
        self: &Arc<Self>,
        call: &Call,
        mut known: Arc<Schema>,
        mut read: Read,
    ) -> Answer {
        let over = call.received + self.options.load().read_deadline;
        loop {
            if let Ok(answer) = self.read_once(call, &read).await {
                return answer;
            }
            match self.bind_anew(&known, &call.request).await {
                Ok((newer, Bound::Read(anew))) => (known, read) = (newer, anew),
                Ok((_, Bound::Write(_))) => {
                    let error = errors::internal("a read became a write");
                    return Answer::refused(&self.control.snapshot(), error);
                }
                Err(error) if error.code.retryable() && Instant::now() + REREAD_PAUSE < over => {
                    tokio::time::sleep(REREAD_PAUSE).await;
                }
                Err(error) => return Answer::refused(&self.control.snapshot(), error),
            }
        }
    }

    async fn read_once(self: &Arc<Self>, call: &Call, read: &Read) -> Result<Answer, OtherSchema> {
        let rows_max = self.options.load().limits.select_limit_max;
        let unlimited = is_unlimited(read);
        let (snapshot, lease_expired) = match self.control.snapshot_for_read().await {
            Ok(snapshot) => (snapshot, false),
            Err(LeaseLost(snapshot)) => (snapshot, true),
        };
        if lease_expired && !self.may_read_without_lease(&snapshot) {
            return Ok(Answer::refused(
                &snapshot,
                errors::unavailable("the control state cannot be reached"),
            ));
        }
        let mut answer = match snapshot.stage.authority() {
            Backend::Legacy => self.read_legacy(&snapshot, call, read).await?,
            Backend::Storage if snapshot.stage == Stage::Live => {
                self.read_live(&snapshot, call, read).await?
            }
            Backend::Storage => self.read_storage(&snapshot, call, read).await,
        };
        answer.lease_expired = lease_expired;
        if let (true, Ok(reply)) = (unlimited, &answer.result)
            && has_more_rows_than(reply, rows_max)
        {
            answer.result = Err(errors::too_many_rows_read(rows_max));
        }
        Ok(answer)
    }

    /// Without a lease, legacy stays safe to ask (it answers only while it is there, and then the lease
    /// can be renewed); storage may have lost the authority meanwhile.
    fn may_read_without_lease(&self, snapshot: &Snapshot) -> bool {
        snapshot.stage.authority() == Backend::Storage && !self.options.load().refuse_without_lease
    }

    async fn read_legacy(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        call: &Call,
        read: &Read,
    ) -> Result<Answer, OtherSchema> {
        let started = Instant::now();
        let result = self.timed_legacy_read(read).await;
        let time = started.elapsed();
        let op = Op::of(&call.request.query);
        self.observer.legacy(op, time, result.as_ref().err());
        let result = of_these_tables(result)?;
        if let (Stage::Shadow, Ok(reply)) = (snapshot.stage, &result) {
            self.compare(snapshot, call, read, reply, time);
        }
        Ok(Self::answered(
            snapshot,
            result.map_err(|fault| errors::from_fault(fault, Effect::Read, None)),
            Backend::Legacy,
            time,
        ))
    }

    /// `ramp_down`, `complete`: storage alone.
    async fn read_storage(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        call: &Call,
        read: &Read,
    ) -> Answer {
        let started = Instant::now();
        let result = self
            .storage_read(read, call, snapshot.epoch, self.rpc_deadline())
            .await;
        Self::answered(
            snapshot,
            result.map_err(errors::from_storage_read),
            Backend::Storage,
            started.elapsed(),
        )
    }

    /// `live`: storage, and legacy where storage cannot, within one deadline. Legacy is asked before storage
    /// has failed, because a frozen service fails only when its time is over.
    async fn read_live(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        call: &Call,
        read: &Read,
    ) -> Result<Answer, OtherSchema> {
        let allowed = self.options.load().read_deadline;
        let started = Instant::now();
        let over = call.received + allowed;
        let rpc_over = UnixMs::after(STORAGE_SHARE * allowed / WHOLE).min(self.rpc_deadline());
        let from_legacy = async {
            tokio::time::sleep_until((started + HEDGE_SHARE * allowed / WHOLE).into()).await;
            self.observed_legacy_read(call, read, over).await
        };
        let first = {
            let from_storage = self.storage_read(read, call, snapshot.epoch, rpc_over);
            let (mut from_storage, mut from_legacy) = (pin!(from_storage), pin!(from_legacy));
            let mut spare = None;
            loop {
                tokio::select! {
                    biased;
                    result = &mut from_storage => break match result {
                        Ok(reply) => FirstLook::Storage(reply),
                        Err(_) => FirstLook::Failed(spare),
                    },
                    result = &mut from_legacy, if spare.is_none() => spare = Some(result),
                }
            }
        };
        match first {
            FirstLook::Storage(reply) => {
                let time = started.elapsed();
                self.compare(snapshot, call, read, &reply, time);
                Ok(Self::answered(snapshot, Ok(reply), Backend::Storage, time))
            }
            // Every acknowledged write of `live` is in legacy, so it may answer instead.
            FirstLook::Failed(spare) => {
                let result = match spare {
                    Some(result) => result,
                    None => self.observed_legacy_read(call, read, over).await,
                };
                Ok(Self::answered(
                    snapshot,
                    of_these_tables(result)?
                        .map_err(|fault| errors::from_fault(fault, Effect::Read, None)),
                    Backend::Legacy,
                    started.elapsed(),
                ))
            }
        }
    }

    async fn observed_legacy_read(
        &self,
        call: &Call,
        read: &Read,
        over: Instant,
    ) -> Result<Reply, Fault> {
        let started = Instant::now();
        let left = over.saturating_duration_since(started);
        let result = self.legacy_read_within(read, left).await;
        let op = Op::of(&call.request.query);
        self.observer
            .legacy(op, started.elapsed(), result.as_ref().err());
        result
    }

    async fn timed_legacy_read(&self, read: &Read) -> Result<Reply, Fault> {
        let allowed = self.options.load().read_deadline;
        self.legacy_read_within(read, allowed).await
    }

    async fn legacy_read_within(&self, read: &Read, allowed: Duration) -> Result<Reply, Fault> {
        let capped = capped(read, self.options.load().limits.select_limit_max);
        let read = capped.as_ref().unwrap_or(read);
        tokio::time::timeout(allowed, self.legacy.read(read))
            .await
            .unwrap_or(Err(Fault::TimedOut))
    }

    /// One read of storage.
    async fn storage_read(
        &self,
        read: &Read,
        call: &Call,
        epoch: Epoch,
        deadline: UnixMs,
    ) -> Result<Reply, StorageError> {
        let started = Instant::now();
        let send = storage::Call {
            query: read_query(read, self.storage.capabilities().has(Capability::OrderBy)),
            attempt: AttemptId::fresh(),
            deadline,
            epoch,
            traceparent: call.traceparent.clone(),
            fences: Vec::new(),
        };
        let result = self.storage.call(&send).await;
        let op = Op::of(&call.request.query);
        self.observer
            .storage(op, started.elapsed(), result.as_ref().err());
        result
    }

    /// The deadline of a call to storage that starts now.
    pub(super) fn rpc_deadline(&self) -> UnixMs {
        UnixMs::after(self.options.load().rpc_deadline)
    }

    /// Hands an answer to the comparer.
    fn compare(
        &self,
        snapshot: &Snapshot,
        call: &Call,
        read: &Read,
        reply: &Reply,
        time: Duration,
    ) {
        self.comparer.compare(Answered {
            authority: snapshot.stage.authority(),
            read: read.clone(),
            reply: reply.clone(),
            time,
            epoch: snapshot.epoch,
            traceparent: call.traceparent.clone(),
        });
    }
}

/// What legacy said of a read, unless that is about other tables than it was bound to.
fn of_these_tables(result: Result<Reply, Fault>) -> Result<Result<Reply, Fault>, OtherSchema> {
    match result {
        Err(Fault::OtherSchema(_)) => Err(OtherSchema),
        result => Ok(result),
    }
}

/// Whether a read asks for all rows that match.
fn is_unlimited(read: &Read) -> bool {
    matches!(read.kind, ReadKind::Rows { limit: None, .. })
}

/// An unlimited read of legacy with a limit of one more row than may be answered, so that too many are noticed
/// and not cut off silently. Storage has a limit of its own.
fn capped(read: &Read, rows_max: u64) -> Option<Read> {
    is_unlimited(read).then(|| {
        let mut capped = read.clone();
        if let ReadKind::Rows { limit, .. } = &mut capped.kind {
            *limit = Some(rows_max.saturating_add(1));
        }
        capped
    })
}

/// Counts only replies that are long enough to hold that many rows.
fn has_more_rows_than(reply: &Reply, rows_max: u64) -> bool {
    const ROW_BYTES_MIN: u64 = 3;
    let text = reply.as_json();
    text.len() as u64 > rows_max.saturating_mul(ROW_BYTES_MIN)
        && serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text)
            .is_ok_and(|rows| rows.len() as u64 > rows_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_counted_by_rows() {
        let reply =
            |rows: usize| Reply::from_json(format!("[{}]", vec!["{\"id\":1}"; rows].join(",")));
        assert!(!has_more_rows_than(&reply(10), 10));
        assert!(has_more_rows_than(&reply(11), 10));
    }
}
