//! The flag file: a request that is consumed once.
//!
//! A file on disk is not the state. A restart, a late ConfigMap or a re-sync brings old content back, so each
//! content is applied once ever, by its digest, whichever replica sees it first; after that it can only disagree.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::contract::Epoch;
use crate::sql::{Db, Fault, Tx};

use super::chain::hex;
use super::control::Control;
use super::error::TransitionError;
use super::plan::{Refused, TransitionKind, TransitionRequest};
use super::task;
use crate::stage::Stage;

/// How often the file is read.
const POLL: Duration = Duration::from_millis(500);
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
    /// It asks for this stage, and its content has had its one chance.
    Consumed(Stage),
    /// It asks for this stage, and the database could not be asked yet; it will be tried again.
    Waiting(Stage),
}

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
            Self::Consumed(asked) | Self::Waiting(asked) => *asked != stage,
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

    async fn consumed(&self, db: &Db) -> Result<bool, Fault> {
        let rows = db
            .control(
                "SELECT digest FROM cutover.flag_requests WHERE digest = $1",
                vec![self.0.clone().into()],
            )
            .await?;
        Ok(!rows.is_empty())
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
    /// Gives a content of the flag file its one chance. What it asked for, if it was refused, is in the log of
    /// flag requests and in what this returns; it is never tried again.
    pub async fn apply_flag_file(&self, content: &str) -> FlagFile {
        let request = match FlagRequest::parse(content) {
            Ok(request) => request,
            Err(why) => return FlagFile::Bad(why),
        };
        let stage = request.stage;
        match self.consume_flag(&FlagDigest::of(content), request).await {
            Ok(()) => FlagFile::Consumed(stage),
            Err(fault) => {
                tracing::warn!(%fault, %stage, "the flag file could not be applied yet");
                FlagFile::Waiting(stage)
            }
        }
    }

    async fn consume_flag(&self, digest: &FlagDigest, request: FlagRequest) -> Result<(), Fault> {
        if digest.consumed(self.db()).await? {
            return Ok(());
        }
        let request = TransitionRequest {
            to: request.stage,
            kind: TransitionKind::File,
            actor: "flag file".to_owned(),
            reason: request.reason,
            ticket: None,
            expected_epoch: None,
            force: false,
            dry_run: false,
            evidence: serde_json::json!({"digest": digest.0}),
        };
        let result = match self.transition_by_flag(request, digest.clone()).await {
            // Consumed together with the move, or with the drain that came to nothing.
            Ok(_) | Err(TransitionError::NotDrained(_)) => return Ok(()),
            Err(TransitionError::Refused(Refused::AppliedBefore)) => return Ok(()),
            Err(TransitionError::Refused(refused)) => format!("refused: {refused}"),
            // The gate was held: nothing happened, the next reading tries again.
            Err(TransitionError::GateHeld(_)) => {
                return Err(Fault::Unavailable("the gate is held".to_owned()));
            }
            Err(TransitionError::Fault(fault)) => return Err(fault),
        };
        tracing::warn!(%result, "the flag file asked for what may not be");
        let epoch = self.snapshot().epoch;
        digest.clone().spend(self.db(), epoch, result).await
    }

    /// Reads the file over and over until `shutdown`, by content, so that an atomic rename and a swapped symlink
    /// count as changes and a touched file does not. What became of it is sent to `report`.
    pub async fn watch_flag_file(
        &self,
        path: PathBuf,
        report: watch::Sender<FlagFile>,
        shutdown: CancellationToken,
    ) {
        let mut last = None;
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
            let outcome = match &content {
                Ok(Some(text)) => self.apply_flag_file(text).await,
                Ok(None) => FlagFile::Absent,
                Err(why) => FlagFile::Bad(why.clone()),
            };
            if let FlagFile::Bad(why) = &outcome {
                tracing::error!(%why, "the flag file is bad and was not applied");
            }
            last = match outcome {
                FlagFile::Waiting(_) => None,
                FlagFile::Absent | FlagFile::Bad(_) | FlagFile::Consumed(_) => Some(content),
            };
            report.send_replace(outcome);
        }
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
        let file = FlagFile::Consumed(Stage::Live);
        assert!(file.disagrees(Stage::DualWrite));
        assert!(!file.disagrees(Stage::Live));
        assert!(!FlagFile::Bad(String::new()).disagrees(Stage::Live));
    }
}
