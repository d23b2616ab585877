//! Executes queries: each write in one transaction that also holds its attempt, its fences and its deadline.
//!
//! The order within that transaction is what the promises rest on: the attempt's place first, the fences,
//! the rows, the recorded answer, and last the deadline by the database's clock, right before the commit.
//! A refusal is recorded in a transaction of its own after the write's rollback; whoever takes the attempt's
//! place in between decides, and the refusal then answers what that one recorded.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::catalog::{Catalog, may_be_stale};
use super::deadline::{is_past, late};
use super::ledger::{self, Taken};
use super::members::Members;
use super::refusal::{self, Failure};
use super::sequences::Given;
use super::service::writes;
use super::{events, lesser, page};
use crate::contract::{
    AttemptId, BatchItem, Code, Describe, Error, Query, Range, Reply, Request, Resolve,
};
use crate::schema::{BindLimits, Bound, Schema, Step, Write, bind};
use crate::sql::{Db, Fault, Tx, describe, reply_of};
use crate::storage::Capabilities;

/// One database and what the service may do with it.
#[derive(Debug)]
pub(super) struct Engine {
    db: Db,
    name: String,
    capabilities: Capabilities,
    catalog: Catalog,
    /// Bodies of events, for whoever publishes them.
    events: Option<mpsc::Sender<String>>,
}

impl Engine {
    /// An engine over tables that were read already.
    pub(super) fn new(
        db: Db,
        name: String,
        capabilities: Capabilities,
        catalog: Catalog,
        events: Option<mpsc::Sender<String>>,
    ) -> Self {
        Self {
            db,
            name,
            capabilities,
            catalog,
            events,
        }
    }

    /// Notices tables and columns that come and go, until `shutdown`.
    pub(super) async fn follow_catalog(&self, shutdown: CancellationToken) {
        self.catalog.follow(&self.db, shutdown).await;
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// `backend_unavailable`.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        match self.db.fetch("SELECT 1", Vec::new()).await {
            Ok(_) => Ok(()),
            Err(fault) => Err(Error::new(Code::BackendUnavailable, fault.to_string())),
        }
    }

    /// Executes one request. Must run in a task that nobody cancels.
    pub(super) async fn execute(&self, request: Request, members: Members) -> Answer {
        if request.db != self.name {
            let message = format!("this service serves `{}`", self.name);
            return Error::new(Code::UnknownDb, message).into();
        }
        if let Err(error) = lesser::check(&request.query, &self.capabilities) {
            return error.into();
        }
        let members = members.limited_to(&self.capabilities);
        let mut given = Given::default();
        let answer = match request.query {
            Query::Batch(items) => self.batch(items, &members, &mut given).await,
            Query::Resolve(resolve) => self.resolve(&resolve, &members).await.into(),
            Query::Range(range) => self.range(&range).await.into(),
            Query::Describe(describe) => self.describe(&describe).await.into(),
            query => self.one(&query, &members, &mut given).await,
        };
        given.pass(&self.db).await;
        answer
    }

    /// Each item in a transaction of its own, in the order given, whatever became of those before it.
    async fn batch(&self, items: Vec<BatchItem>, members: &Members, given: &mut Given) -> Answer {
        let mut replies = Vec::with_capacity(items.len());
        for item in items {
            let members = members.of_item(&item).limited_to(&self.capabilities);
            let answer = self.one(&item.query, &members, given).await;
            replies.push(answer.into_item());
        }
        Reply::from_json(format!("[{}]", replies.join(","))).into()
    }

    /// A query of the contract, with its refusal recorded.
    async fn one(&self, query: &Query, members: &Members, given: &mut Given) -> Answer {
        if let (true, true, Some(attempt)) =
            (members.redelivered, writes(query), members.attempt_id)
        {
            let error = Error::new(
                Code::BackendUnavailable,
                "delivered again, and not executed before; nothing was done, send it anew",
            );
            return self.refuse(attempt, members, error).await;
        }
        let mut schema = self.catalog.schema();
        let mut failure = match self.attempt(query, &schema, members, given).await {
            Ok(answer) => return answer,
            Err(failure) => failure,
        };
        if may_be_stale(&failure)
            && let Some(fresh) = self.catalog.reread(&self.db, &schema, &failure).await
        {
            schema = fresh;
            failure = match self.attempt(query, &schema, members, given).await {
                Ok(answer) => return answer,
                Err(failure) => failure,
            };
        }
        match (failure, members.attempt_id) {
            (Failure::Refused(error), Some(attempt)) => self.refuse(attempt, members, error).await,
            (failure, _) => refusal::to_answer(failure).into(),
        }
    }

    async fn attempt(
        &self,
        query: &Query,
        schema: &Schema,
        members: &Members,
        given: &mut Given,
    ) -> Result<Answer, Failure> {
        match bind(query, schema, &BindLimits::default()).map_err(Failure::Refused)? {
            Bound::Read(read) => {
                if members.deadline_ms.is_some_and(is_past) {
                    return Err(Failure::Passing(late()));
                }
                let reply = page::whole(&self.db, read).await?;
                Ok(reply.into())
            }
            Bound::Write(write) => self.write(&write, members, given).await,
        }
    }

    async fn write(
        &self,
        write: &Write,
        members: &Members,
        given: &mut Given,
    ) -> Result<Answer, Failure> {
        let mut tx = self.db.begin().await.map_err(refusal::of_write)?;
        if let Some(attempt) = members.attempt_id {
            let taken = ledger::take(&mut tx, attempt, members.deadline_ms, None).await;
            match taken.map_err(refusal::of_taking)? {
                Taken::New => {}
                Taken::Seen(answer) => return Ok(answer),
            }
        }
        if !members.fences.is_empty() {
            let tables: BTreeSet<_> = write.changes().map(|c| c.table().name.as_str()).collect();
            for table in tables {
                ledger::raise(&mut tx, table, &members.fences)
                    .await
                    .map_err(refusal::of_write)?
                    .map_err(Failure::Refused)?;
            }
        }
        let (answer, events) = steps(&mut tx, write).await.map_err(refusal::of_write)?;
        let now_us = ledger::finish(&mut tx, members.attempt_id, &answer)
            .await
            .map_err(refusal::of_write)?;
        if members
            .deadline_ms
            .is_some_and(|ms| ms.saturating_mul(1_000) < now_us)
        {
            return Err(Failure::Refused(late()));
        }
        tx.commit().await.map_err(refusal::of_write)?;
        given.note(write);
        self.announce(events);
        Ok(answer)
    }

    /// Records a refusal, unless another send of the attempt was quicker: then that one's answer stands.
    async fn refuse(&self, attempt: AttemptId, members: &Members, error: Error) -> Answer {
        let answer = Answer::from(error);
        match self.close(attempt, members, &answer, None).await {
            Ok(Taken::New) => answer,
            Ok(Taken::Seen(recorded)) => recorded,
            Err(fault) => refusal::unknown(&fault.to_string()).into(),
        }
    }

    /// Takes the attempt's place for a refusal, in a transaction of its own.
    async fn close(
        &self,
        attempt: AttemptId,
        members: &Members,
        answer: &Answer,
        fenced_table: Option<&str>,
    ) -> Result<Taken, Fault> {
        let mut tx = self.db.begin().await?;
        let taken = ledger::take(&mut tx, attempt, members.deadline_ms, Some(answer)).await?;
        if let Some(table) = fenced_table
            && ledger::raise(&mut tx, table, &members.fences)
                .await?
                .is_err()
        {
            // A newer token guards the key already, which is all that raising is for.
            tracing::debug!(table, "the key is fenced by a newer token");
        }
        tx.commit().await?;
        Ok(taken)
    }

    /// What became of an attempt, and the rows of its keys as they are now. A write of it in flight is
    /// waited for; one that comes later is refused.
    async fn resolve(&self, resolve: &Resolve, members: &Members) -> Result<Reply, Error> {
        let refused = Error::new(Code::Conflict, "this attempt was resolved before it came")
            .with_details(serde_json::json!({ "reason": "resolved" }))
            .into();
        let schema = self.catalog.schema();
        let rows = page::rows_by_key(&schema, &resolve.table, &resolve.keys)?;
        let taken = self
            .close(resolve.attempt_id, members, &refused, Some(&resolve.table))
            .await
            .map_err(|fault| refusal::to_answer(refusal::of_read(fault)))?;
        let applied = match taken {
            Taken::New => false,
            Taken::Seen(answer) => answer.is_done(),
        };
        let rows = self
            .db
            .read(&rows)
            .await
            .map_err(|fault| refusal::to_answer(refusal::of_read(fault)))?;
        let json = format!("{{\"applied\":{applied},\"rows\":{}}}", rows.as_json());
        Ok(Reply::from_json(json))
    }

    async fn range(&self, range: &Range) -> Result<Reply, Error> {
        let schema = self.catalog.schema();
        let mut page = self.page(&schema, range).await;
        if let Err(failure) = &page
            && may_be_stale(failure)
            && let Some(fresh) = self.catalog.reread(&self.db, &schema, failure).await
        {
            page = self.page(&fresh, range).await;
        }
        page.map_err(refusal::to_answer)
    }

    async fn page(&self, schema: &Schema, range: &Range) -> Result<Reply, Failure> {
        let read = page::after_key(schema, range).map_err(Failure::Refused)?;
        let rows = self.db.read(&read).await.map_err(refusal::of_read)?;
        page::framed(&read.table, range.limit, &rows).map_err(Failure::Refused)
    }

    /// The table as it was last read, which is anew for one that is not known.
    async fn describe(&self, asked: &Describe) -> Result<Reply, Error> {
        let mut schema = self.catalog.schema();
        let unknown = || {
            let message = format!("there is no table {:?}", asked.table);
            Failure::Refused(Error::new(Code::UnknownTable, message))
        };
        if schema.table(&asked.table).is_none()
            && let Some(fresh) = self.catalog.reread(&self.db, &schema, &unknown()).await
        {
            schema = fresh;
        }
        let table = schema.table(&asked.table).ok_or_else(unknown);
        let table = table.map_err(refusal::to_answer)?;
        let described = serde_json::to_string(&describe(self.db.dialect(), table));
        let described = described.map_err(|error| {
            refusal::internal(&Fault::Unexpected(format!("a description: {error}")))
        })?;
        Ok(Reply::from_json(described))
    }

    /// Hands the write's events on; they are news, not a promise, so a full queue loses them, and says so.
    fn announce(&self, events: Vec<String>) {
        let Some(queue) = &self.events else { return };
        for body in events {
            if queue.try_send(body).is_err() {
                tracing::warn!("an event was dropped: the hub does not keep up");
            }
        }
    }
}

/// Runs the steps in order; the answer and the events of what changed.
async fn steps(tx: &mut Tx, write: &Write) -> Result<(Answer, Vec<String>), Fault> {
    let mut replies = Vec::with_capacity(write.steps.len());
    let mut events = Vec::new();
    for step in &write.steps {
        replies.push(match step {
            Step::Read(read) => tx.read(read).await?.into_json(),
            Step::Change(change) => {
                let applied = tx.apply(change).await?;
                events.extend(
                    applied
                        .iter()
                        .filter_map(|row| events::of(change, &row.key)),
                );
                reply_of(change, applied).into_json()
            }
        });
    }
    let json = match replies.pop() {
        Some(only) if !write.transaction => only,
        last => {
            replies.extend(last);
            format!("[{}]", replies.join(","))
        }
    };
    Ok((Reply::from_json(json).into(), events))
}
