//! Verifies as jobs of one replica: asked for by an operator, or begun by itself every `[verify] interval`.
//!
//! The second kind is anti-entropy: it finds what no read happens to touch. It reads all rows of both sides, so
//! only one replica in the fleet does it at a time (`crate::verify`'s turn), it makes way for an operator's, and
//! it never repairs: what it confirms is a divergence like any other, for the guard and for people. While the
//! secondary is known to lack writes there is nothing to find out. Who walks shows beside the turn how far it is,
//! so every replica can tell.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::job::Job;
use super::{JobError, JobKind, Jobs};
use crate::control::Phase;
use crate::sql::Fault;
use crate::stage::Backend;
use crate::verify::{self, Renewed, Told, VerifyOptions};
use crate::walk::WalkError;

/// Who is said to have asked for a verify that began by itself.
const BY_ITSELF: &str = "cutover";
/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After one that began by itself, however it ended, none begins sooner than this.
const REST: Duration = Duration::from_secs(60);
/// Rows a verify holds in memory at a time.
pub(super) const PAGE: u64 = 500;

/// The latest verify of each kind.
#[derive(Debug, Default)]
pub(super) struct Verifies {
    asked_for: Option<Job>,
    by_itself: Option<Job>,
}

impl Jobs {
    /// Starts a verify. One that began by itself makes way, on whichever replica.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn start_verify(self: &Arc<Self>, options: VerifyOptions) -> Result<Uuid, JobError> {
        let snapshot = self.parts.control.snapshot();
        if snapshot.stage.owes().is_none() {
            return Err(WalkError::Stage(snapshot.stage).into());
        }
        self.tables(&options.tables)?;
        let job = self.new_verify(&options);
        let id = job.id;
        let over = self.verifies().over();
        match verify::take(self.parts.legacy.db(), id, over, &job.view()).await {
            Ok(true) => {}
            Ok(false) => return Err(self.under_way().await?),
            Err(fault) => tracing::warn!(%fault, "others may verify beside this verify"),
        }
        let mut verifies = self.verifies();
        // Looked at under the lock: either `drain` sees the job, or the job sees `drain`. What is refused here leaves
        // a turn behind whose lease runs out.
        if self.tasks.is_closed() {
            return Err(JobError::ShuttingDown);
        }
        verifies.put(job.clone())?;
        drop(verifies);
        let jobs = Arc::clone(self);
        self.tasks
            .spawn(async move { jobs.verify(job, options, false).await });
        Ok(id)
    }

    fn new_verify(&self, options: &VerifyOptions) -> Job {
        let replica = &self.parts.control.options().replica_id;
        Job::new(JobKind::Verify, &options.actor, &options.reason, replica)
    }

    /// Why a verify that somebody asks for does not get the turn.
    async fn under_way(&self) -> Result<JobError, Fault> {
        if let Some(refusal) = self.verifies().refusal() {
            return Ok(refusal);
        }
        let told = verify::told(self.parts.legacy.db()).await?;
        let part = |name: &str| {
            let part = told.as_ref().and_then(|told| told.job[name].as_str());
            part.unwrap_or("unknown").to_owned()
        };
        let (replica, id) = (part("replica"), part("id"));
        Ok(JobError::Elsewhere { replica, id })
    }

    /// The latest verify, of whichever replica: one that is under way before others.
    pub(super) async fn latest_verify(&self) -> Result<Option<Value>, Fault> {
        let elsewhere = self.verify_elsewhere().await;
        let own = self.verifies().latest().map(Job::view);
        let all = elsewhere.as_ref().ok().cloned().flatten();
        // Ids begin with their time.
        let rank = |job: &Value| (job["state"] == "running", job["id"].to_string());
        match all.into_iter().chain(own).max_by_key(rank) {
            Some(latest) => Ok(Some(latest)),
            None => elsewhere,
        }
    }

    /// The last verify that had the turn, if it is another replica's. One whose lease ran out most likely died with
    /// its replica.
    pub(super) async fn verify_elsewhere(&self) -> Result<Option<Value>, Fault> {
        let told = verify::told(self.parts.legacy.db()).await?;
        let is_own = |told: &Told| {
            let id = told.job["id"].as_str().and_then(|id| id.parse().ok());
            id.is_none_or(|id| self.verifies().find(id).is_some())
        };
        Ok(told.filter(|told| !is_own(told)).map(|mut told| {
            if told.job["state"] == "running" && !told.has_turn {
                told.job["state"] = json!("failed");
                told.job["error"] = json!("its replica is gone, or does not reach legacy");
                told.job["rows_per_second"] = Value::Null;
                told.job["eta_seconds"] = Value::Null;
            }
            told.job
        }))
    }

    /// Verifies whenever that is due and nobody else does, until `drain`.
    pub async fn keep_verifying(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            if let Some(interval) = self.settings.load().verify.interval
                && let Some(secondary) = self.to_verify()
                && let Err(fault) = self.verify_if_due(secondary, interval).await
            {
                tracing::warn!(%fault, "could not look whether a verify is due");
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// The side that could be verified now without anybody asking for it.
    fn to_verify(&self) -> Option<Backend> {
        let control = &self.parts.control;
        let snapshot = control.snapshot();
        let away = [Backend::Legacy, Backend::Storage]
            .into_iter()
            .any(|backend| control.under_maintenance(backend));
        let at_rest = snapshot.phase == Phase::Steady && !snapshot.pinned && !away;
        let secondary = snapshot.stage.owes().filter(|_| at_rest)?;
        (!snapshot.is_stale(secondary)).then_some(secondary)
    }

    async fn verify_if_due(
        self: &Arc<Self>,
        secondary: Backend,
        interval: Duration,
    ) -> Result<(), Fault> {
        let options = VerifyOptions {
            tables: Vec::new(),
            repair: false,
            page: PAGE,
            actor: BY_ITSELF.to_owned(),
            reason: "verify.interval".to_owned(),
        };
        let job = self.new_verify(&options);
        let (db, shown) = (self.parts.legacy.db(), job.view());
        if self.verifies().is_under_way()
            || !verify::claim(db, job.id, &shown, secondary, interval).await?
        {
            return Ok(());
        }
        if !self.verifies().put_by_itself(job.clone()) {
            return verify::let_go(db, job.id, &Value::Null, Duration::ZERO).await;
        }
        let jobs = Arc::clone(self);
        let work = self
            .tasks
            .spawn(async move { jobs.verify(job, options, true).await });
        if work.await.is_err() {
            tracing::error!("a verify died");
        }
        Ok(())
    }

    /// Verifies, and keeps the turn meanwhile. Who lost the turn ends, unless a person waits for it.
    async fn verify(&self, job: Job, options: VerifyOptions, by_itself: bool) {
        let rate = || self.settings.load().verify.rate;
        let asked = json!({ "tables": options.tables, "repair": options.repair });
        let cancel = job.cancel.clone();
        let work = verify::run(&self.parts, options, &rate, &job.progress, cancel);
        let work = job.run(asked, &self.parts, Box::pin(work));
        let lost = async {
            self.keep_turn(&job).await;
            if by_itself {
                job.cancel.cancel();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = work => {}
            () = lost => {}
        }
        let rest = if by_itself { REST } else { Duration::ZERO };
        if let Err(fault) = verify::let_go(self.parts.legacy.db(), job.id, &job.view(), rest).await
        {
            tracing::warn!(%fault, "the turn to verify was not given back; its lease will run out");
        }
    }

    /// Renews the turn, tells how far the job is, and hears whether it is to end; returns when the turn is somebody
    /// else's.
    async fn keep_turn(&self, job: &Job) {
        loop {
            sleep(verify::LEASE / 10).await;
            match verify::renew(self.parts.legacy.db(), job.id, &job.view()).await {
                Ok(Renewed::Kept) => {}
                Ok(Renewed::Cancelled) => job.cancel.cancel(),
                Ok(Renewed::Lost) => return,
                // Reading on with a lease that ran out is harmless.
                Err(fault) => tracing::warn!(%fault, "the turn to verify was not renewed"),
            }
        }
    }

    pub(super) fn verifies(&self) -> MutexGuard<'_, Verifies> {
        self.verifies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verifies {
    pub(super) fn find(&self, id: Uuid) -> Option<Job> {
        self.all().find(|job| job.id == id).cloned()
    }

    /// The one under way, else the one that began last.
    pub(super) fn latest(&self) -> Option<&Job> {
        self.all().max_by_key(|job| (job.is_under_way(), job.id))
    }

    pub(super) fn cancel(&self) {
        self.all().for_each(|job| job.cancel.cancel());
    }

    /// The last one that was asked for, if it is over.
    fn over(&self) -> Option<Uuid> {
        let last = self.asked_for.as_ref();
        last.filter(|job| !job.is_under_way()).map(|job| job.id)
    }

    fn is_under_way(&self) -> bool {
        self.all().any(Job::is_under_way)
    }

    /// Why another one that is asked for has to wait, if it has to.
    fn refusal(&self) -> Option<JobError> {
        let held = self.asked_for.as_ref().filter(|job| job.is_under_way())?;
        let (kind, id) = (JobKind::Verify, held.id);
        Some(JobError::UnderWay { kind, id })
    }

    /// Takes the place of the last one that was asked for, unless that is under way.
    fn put(&mut self, job: Job) -> Result<(), JobError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        if let Some(job) = &self.by_itself {
            job.cancel.cancel();
        }
        self.asked_for = Some(job);
        Ok(())
    }

    /// `false`: there is one under way by now.
    fn put_by_itself(&mut self, job: Job) -> bool {
        let free = !self.is_under_way();
        if free {
            self.by_itself = Some(job);
        }
        free
    }

    fn all(&self) -> impl Iterator<Item = &Job> {
        self.asked_for.iter().chain(&self.by_itself)
    }
}
