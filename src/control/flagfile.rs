//! The flag file: a request that is consumed once.
//!
//! A file on disk is not the state. A restart, a late ConfigMap or a re-sync brings old content back, so each
//! content is applied once ever, by its digest, whichever replica sees it first; after that it can only disagree.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::contract::Epoch;
use crate::sql::{Db, Fault, Tx};

use super::chain::hex;
use super::control::Control;
use super::error::TransitionError;
use super::plan::{Refused, TransitionKind, TransitionRequest};
use super::safety::Blocker;
use super::task;
use crate::stage::Stage;

/// How often the file is read.
const POLL: Duration = Duration::from_millis(500);
/// How long a content is tried before "not ready" is its answer: a replica that has just started has not met
/// storage and its peers yet.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// No flag file is longer, in bytes.
const LENGTH_MAX: u64 = 64 * 1024;

/// What the file asks for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagRequest {
    /// Where to.
    #[serde(deserialize_with = "stage_by_name")]
    pub stage: Stage,
    /// Why.
    pub reason: String,
}

/// SHA-256 of a content, in hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FlagDigest(String);

/// What became of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum FlagFile {
    /// There is no file, or it was not read yet.
    #[default]
    Absent,
    /// It cannot be read or understood; nothing was done.
    Bad(String),
    /// Its content has had its one chance.
    Consumed {
        /// The stage it asked for.
        asked: Stage,
        /// What came of it: `move`, `drain`, or why it was refused.
        result: String,
    },
    /// It asks for this stage, and the database could not be asked yet; it will be tried again.
    Waiting(Stage),
}

/// What was found out about an advance before it is made.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// The epoch it was judged under.
    pub epoch: Epoch,
    /// What stands in the way of the next stage; nothing when it is ready.
    pub blockers: Vec<Blocker>,
    /// What the verdict rests on, for the audit. Holds no row values.
    pub evidence: serde_json::Value,
}

/// Judges whether the next stage is ready; none while that cannot be known. The control does not know what
/// an advance depends on, so whoever does is given to it.
pub type Judge = Arc<dyn Fn() -> BoxFuture<'static, Option<Judged>> + Send + Sync>;

impl FlagRequest {
    /// Reads `stage = "…"` and `reason = "…"`.
    ///
    /// # Errors
    /// What is wrong, with the line, for people.
    pub fn parse(content: &str) -> Result<Self, String> {
        let request: Self = toml::from_str(content).map_err(|error| error.to_string())?;
        if request.reason.trim().is_empty() {
            return Err("`reason` is empty".to_owned());
        }
        Ok(request)
    }
}

fn stage_by_name<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Stage, D::Error> {
    String::deserialize(from)?
        .parse()
        .map_err(serde::de::Error::custom)
}

impl FlagFile {
    /// Whether the file asks for another stage than the one the replica is in.
    #[must_use]
    pub fn disagrees(&self, stage: Stage) -> bool {
        match self {
            Self::Absent | Self::Bad(_) => false,
            Self::Consumed { asked, .. } | Self::Waiting(asked) => *asked != stage,
        }
    }
}

impl FlagDigest {
    /// The digest of a content.
    #[must_use]
    pub fn of(content: &str) -> Self {
        Self(hex(&Sha256::digest(content.as_bytes())))
    }

    /// Consumes the content; `false` when it was consumed before.
    pub(super) async fn consume(
        &self,
        tx: &mut Tx,
        now_us: i64,
        epoch: Epoch,
        result: &str,
    ) -> Result<bool, Fault> {
        let rows = tx
            .control(
                "INSERT INTO cutover.flag_requests (digest, at_us, epoch, result) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (digest) DO NOTHING RETURNING digest",
                vec![
                    self.0.clone().into(),
                    now_us.into(),
                    epoch.into(),
                    result.into(),
                ],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    /// What came of the content when it was consumed.
    async fn consumed(&self, db: &Db) -> Result<Option<String>, Fault> {
        let rows = db
            .control(
                "SELECT result FROM cutover.flag_requests WHERE digest = $1",
                vec![self.0.clone().into()],
            )
            .await?;
        rows.first().map(|row| row.some_text(0)).transpose()
    }

    /// Consumes the content without a move: it asked for nothing new, or for what may not be.
    async fn spend(self, db: &Db, epoch: Epoch, result: String) -> Result<(), Fault> {
        let db = db.clone();
        task::run_to_end(async move {
            let mut tx = db.begin().await?;
            let now_us = super::state::now_us(&mut tx).await?;
            // Spent by another replica meanwhile is spent all the same.
            let _first: bool = self.consume(&mut tx, now_us, epoch, &result).await?;
            tx.commit().await
        })
        .await
    }
}

impl Control {
    /// Gives a content of the flag file its one chance; an advance only where `judge` finds the stage ready.
    /// What it asked for, if it was refused, is in the log of flag requests and in what this returns; it is
    /// never tried again. Unless `last_call`, a stage that is not ready yet is no refusal.
    pub async fn apply_flag_file(&self, content: &str, judge: &Judge, last_call: bool) -> FlagFile {
        let request = match FlagRequest::parse(content) {
            Ok(request) => request,
            Err(why) => return FlagFile::Bad(why),
        };
        let asked = request.stage;
        let digest = FlagDigest::of(content);
        let consumed = self.consume_flag(&digest, request, judge, last_call);
        match consumed.await {
            Ok(result) => FlagFile::Consumed { asked, result },
            Err(fault) => {
                tracing::warn!(%fault, stage = %asked, "the flag file could not be applied yet");
                FlagFile::Waiting(asked)
            }
        }
    }

    async fn consume_flag(
        &self,
        digest: &FlagDigest,
        request: FlagRequest,
        judge: &Judge,
        last_call: bool,
    ) -> Result<String, Fault> {
        let db = self.db();
        if let Some(result) = digest.consumed(db).await? {
            return Ok(result);
        }
        let refused = match self.try_flag(digest, request, judge, last_call).await? {
            None => None,
            Some(why) => {
                tracing::warn!(%why, "the flag file asked for what may not be");
                let epoch = self.snapshot().epoch;
                digest.clone().spend(db, epoch, why.clone()).await?;
                Some(why)
            }
        };
        // Another replica may have been first: then its word counts.
        let result = digest.consumed(db).await?;
        Ok(result.or(refused).unwrap_or_default())
    }

    /// Asks for the move. Why it may not be, if it may not; a fault when it is to be asked again.
    async fn try_flag(
        &self,
        digest: &FlagDigest,
        request: FlagRequest,
        judge: &Judge,
        last_call: bool,
    ) -> Result<Option<String>, Fault> {
        let mut wish = TransitionRequest {
            to: request.stage,
            kind: TransitionKind::File,
            actor: "flag file".to_owned(),
            reason: request.reason,
            ticket: None,
            expected_epoch: None,
            force: false,
            dry_run: true,
            evidence: serde_json::json!({"digest": digest.0}),
        };
        // The control's own objections are plainer than a list of blockers.
        if let Err(error) = self.transition(wish.clone()).await {
            return spent(error);
        }
        if wish.to > self.snapshot().stage {
            let unknown = || Fault::Unavailable("readiness cannot be judged".to_owned());
            let judged = judge().await.ok_or_else(unknown)?;
            if !judged.blockers.is_empty() {
                let codes: Vec<&str> = judged.blockers.iter().map(|one| one.code).collect();
                let why = format!("not ready: {}", codes.join(", "));
                return match last_call {
                    true => Ok(Some(format!("refused: {why}"))),
                    false => Err(Fault::Unavailable(why)),
                };
            }
            wish.expected_epoch = Some(judged.epoch);
            wish.evidence = judged.evidence;
            wish.evidence["digest"] = digest.0.clone().into();
        }
        wish.dry_run = false;
        match self.transition_by_flag(wish, digest.clone()).await {
            Ok(_) => Ok(None),
            Err(error) => spent(error),
        }
    }

    /// Reads the file over and over until `shutdown`, by content, so that an atomic rename and a swapped symlink
    /// count as changes and a touched file does not. What became of it is sent to `report`.
    pub async fn watch_flag_file(
        &self,
        path: PathBuf,
        judge: Judge,
        report: watch::Sender<FlagFile>,
        shutdown: CancellationToken,
    ) {
        let mut last = None;
        let mut since = (None, Instant::now());
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = poll.tick() => {}
            }
            let content = read(&path).await;
            if last.as_ref() == Some(&content) {
                continue;
            }
            if since.0.as_ref() != Some(&content) {
                since = (Some(content.clone()), Instant::now());
            }
            let last_call = since.1.elapsed() >= READY_WITHIN;
            let outcome = match &content {
                Ok(Some(text)) => self.apply_flag_file(text, &judge, last_call).await,
                Ok(None) => FlagFile::Absent,
                Err(why) => FlagFile::Bad(why.clone()),
            };
            if let FlagFile::Bad(why) = &outcome {
                tracing::error!(%why, "the flag file is bad and was not applied");
            }
            last = match outcome {
                FlagFile::Waiting(_) => None,
                FlagFile::Absent | FlagFile::Bad(_) | FlagFile::Consumed { .. } => Some(content),
            };
            report.send_replace(outcome);
        }
    }
}

/// What an error means for the content's one chance: a refusal has used it up; a fault has not.
fn spent(error: TransitionError) -> Result<Option<String>, Fault> {
    match error {
        // Consumed together with the drain that came to nothing, or by another replica.
        TransitionError::NotDrained(_) | TransitionError::Refused(Refused::AppliedBefore) => {
            Ok(None)
        }
        // What was judged is not what is there any more; the next reading judges anew.
        TransitionError::Refused(Refused::EpochMoved { .. }) => {
            Err(Fault::Unavailable("the epoch moved meanwhile".to_owned()))
        }
        TransitionError::Refused(refused) => Ok(Some(format!("refused: {refused}"))),
        TransitionError::GateHeld { .. } => Err(Fault::Unavailable("the gate is held".to_owned())),
        TransitionError::Fault(fault) => Err(fault),
    }
}

/// The content, or nothing when there is no file.
async fn read(path: &std::path::Path) -> Result<Option<String>, String> {
    let length = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if length > LENGTH_MAX {
        return Err(format!("longer than {LENGTH_MAX} bytes"));
    }
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(Some(text)),
        // Renamed away between the two looks.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_and_a_reason_are_read_and_nothing_else() {
        let request = FlagRequest::parse("stage = \"shadow\"\nreason = \"go\"\n").unwrap();
        assert_eq!(request.stage, Stage::Shadow);
        for bad in [
            "stage = \"shadow\"",
            "stage = \"shadow\"\nreason = \" \"",
            "stage = \"sideways\"\nreason = \"go\"",
            "stage = \"shadow\"\nreason = \"go\"\nforce = true",
        ] {
            assert!(FlagRequest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_consumed_file_can_only_disagree() {
        let file = FlagFile::Consumed {
            asked: Stage::Live,
            result: "move".to_owned(),
        };
        assert!(file.disagrees(Stage::DualWrite));
        assert!(!file.disagrees(Stage::Live));
        assert!(!FlagFile::Bad(String::new()).disagrees(Stage::Live));
    }
}
