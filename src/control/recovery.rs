//! Lost history (P16): a restore from backup, or a failover to a standby that lagged. How it is put on
//! record, and the way out. Pure.
//!
//! Legacy is older than what callers were told, and only a person knows by how much and whether storage has
//! the rest. So nothing is chosen here: an operator says which side is believed, hears first what that may
//! lose, and the other side is stale until it was filled and verified as a whole. Entries of the journal that
//! came back with the backup are kept as copies towards the side that is not believed: a copy is paid with
//! the row as it is, so paying it again does no harm. Intents are copies then as well: nobody waits for them.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::change::{AuditEntry, Cause, Change, Facts, steady};
use super::convert::Conversion;
use super::moves::refuses_bypass;
use super::options::ControlOptions;
use super::plan::Refused;
use super::state::{Phase, State};
use crate::clock::micros;
use crate::contract::Epoch;
use crate::stage::{Backend, Stage};

/// How history came to be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostBy {
    /// A backup was restored.
    Restore,
    /// A standby that lagged took over.
    Failover,
}

/// An operator's decision about lost history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoverWish {
    /// How it came to be lost.
    pub after: LostBy,
    /// The side that is believed.
    pub authority: Backend,
    /// The highest epoch that anybody remembers, when it is higher than the replicas know.
    pub seen_epoch: Option<Epoch>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// What a decision led to, or would lead to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Recovered {
    /// The epoch afterwards.
    pub epoch: Epoch,
    /// The stage that was found.
    pub from: Stage,
    /// The stage afterwards.
    pub stage: Stage,
    /// The side that must be filled and verified.
    pub stale: Backend,
    /// Which acknowledged writes may be lost, and what to do about it, for people.
    pub may_lose: Vec<String>,
    /// Whether it was only thought through.
    pub dry_run: bool,
}

/// What a replica knew of the state before history was lost; on record with the loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) epoch: Epoch,
    pub(super) stage: Stage,
    pub(super) legacy_stale: bool,
    pub(super) storage_stale: bool,
}

impl LostBy {
    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Failover => "failover",
        }
    }
}

impl std::str::FromStr for LostBy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::Restore, Self::Failover];
        let found = known.into_iter().find(|one| one.as_str() == text);
        found.ok_or("no such cause; causes are restore, failover")
    }
}

impl Seen {
    /// What is worth remembering of a state.
    pub(super) fn of(state: &State) -> Self {
        Self {
            epoch: state.epoch,
            stage: state.stage,
            legacy_stale: state.legacy_stale,
            storage_stale: state.storage_stale,
        }
    }

    fn stale(&self, backend: Backend) -> bool {
        match backend {
            Backend::Legacy => self.legacy_stale,
            Backend::Storage => self.storage_stale,
        }
    }
}

/// The epoch rises past everything this replica has seen, so that whatever was issued before is old.
pub(super) fn lost(
    current: &State,
    seen: Epoch,
    before: Option<Seen>,
    facts: &Facts,
    cause: &Cause,
) -> Result<Change, Refused> {
    if current.phase == Phase::Recovering && current.epoch >= seen {
        return Err(Refused::Recovering);
    }
    let after = State {
        epoch: current.epoch.max(seen).next(),
        phase: Phase::Recovering,
        ..steady(current, facts, cause)
    };
    let evidence = json!({
        "epoch_seen": seen.0,
        "epoch_found": current.epoch.0,
        "lineage_seen": current.lineage,
        "lineage_found": facts.lineage,
        // The first replica to notice may not be the one that knows most.
        "seen": before.or(facts.lost),
    });
    let entry = AuditEntry::of("lost", "control", cause, evidence);
    Ok(Change {
        after,
        conversion: Conversion::Keep,
        entry,
    })
}

/// The way out: one side is believed, the other is stale, and nothing advances until an operator re-arms.
pub(super) fn recover(
    current: &State,
    wish: &RecoverWish,
    seen: Epoch,
    facts: &Facts,
    options: &ControlOptions,
) -> Result<Change, Refused> {
    let cause = Cause::new(&wish.actor, &wish.reason);
    cause.given()?;
    let highest = seen
        .max(facts.acknowledged_max)
        .max(wish.seen_epoch.unwrap_or(seen));
    // What no replica could notice (they were all stopped) an operator says by the epoch that was there.
    if current.phase != Phase::Recovering && highest <= current.epoch {
        return Err(Refused::NotRecovering);
    }
    let believed = wish.authority;
    let known_stale = facts.lost.is_none_or(|seen| seen.stale(believed));
    if current.stale(believed) && known_stale {
        return Err(Refused::Stale(believed));
    }
    if believed == Backend::Storage && facts.pending_tables > 0 {
        return Err(Refused::Pending(facts.pending_tables));
    }
    let stage = destination(current.stage, facts.lost, believed);
    let conversion = match stage {
        Stage::Off | Stage::Complete => Conversion::Void,
        Stage::DualWrite | Stage::Shadow => Conversion::CopyTo(Backend::Storage),
        Stage::Live | Stage::RampDown => Conversion::CopyTo(Backend::Legacy),
    };
    let mut after = State {
        epoch: current.epoch.max(highest).next(),
        stage,
        bypass_refused: refuses_bypass(stage, options),
        latched: true,
        legacy_stale: believed == Backend::Storage,
        storage_stale: believed == Backend::Legacy,
        lineage: facts.lineage.clone(),
        ..steady(current, facts, &cause)
    };
    if conversion == Conversion::Void {
        after.generation += 1;
    }
    // Requests of the history that is gone carry deadlines that nobody has on record any more. None is
    // longer than this (P14), and a backfill waits for it (P11).
    let all_over_us = facts.now_us.saturating_add(micros(options.flip_max_pause));
    after.deadline_last_us = after.deadline_last_us.max(all_over_us);
    let evidence = json!({
        "after": wish.after,
        "authority": believed.as_str(),
        "epoch_seen": highest.0,
        "found": Seen::of(current),
        "seen": facts.lost,
        "may_lose": may_lose(current.stage, facts.lost, wish.after, believed),
    });
    let entry = AuditEntry::of("recover", "operator", &cause, evidence);
    Ok(Change {
        after,
        conversion,
        entry,
    })
}

/// Where the side that is believed is the authority and the other one is being paid.
fn destination(found: Stage, seen: Option<Seen>, believed: Backend) -> Stage {
    let was = seen.map_or(found, |seen| seen.stage);
    match believed {
        Backend::Legacy if found == Stage::Off && was == Stage::Off => Stage::Off,
        Backend::Legacy => Stage::DualWrite,
        Backend::Storage if found == Stage::Complete || was == Stage::Complete => Stage::Complete,
        Backend::Storage => Stage::RampDown,
    }
}

/// Which acknowledged writes the choice may lose, in words. It never says "none": only a person can.
fn may_lose(found: Stage, seen: Option<Seen>, after: LostBy, believed: Backend) -> Vec<String> {
    let was = seen.map_or(found, |seen| seen.stage);
    let missing = match after {
        LostBy::Restore => "written after the backup was taken",
        LostBy::Failover => "that had not reached the standby",
    };
    let mut told = Vec::new();
    let mut tell = |text: String| told.push(text);
    match (believed, was.authority()) {
        (Backend::Legacy, Backend::Storage) => tell(format!(
            "acknowledged writes {missing} are not in legacy. The stage was {was}, so storage has them all: \
             `--authority storage` keeps them, this choice gives them up"
        )),
        (Backend::Legacy, Backend::Legacy) => tell(format!(
            "acknowledged writes {missing} are not in legacy. Storage has those that were paid before: \
             `cutover verify` without --repair lists their keys, before a backfill overwrites them"
        )),
        (Backend::Storage, Backend::Storage) => tell(format!(
            "none that storage answered. Legacy lacks those {missing} until `cutover verify --repair`"
        )),
        (Backend::Storage, Backend::Legacy) => tell(format!(
            "the stage was {was}: acknowledged writes that storage was still owed are not in storage, and are \
             overwritten in legacy by `cutover verify --repair`; `cutover verify` alone lists their keys"
        )),
    }
    if seen.is_none() {
        tell(
            "no replica remembers the state before: the stage and what was stale are those of the history that was found"
                .to_owned(),
        );
    }
    if let Some(seen) = seen.filter(|seen| seen.stale(believed)) {
        tell(format!(
            "before the loss, at epoch {}, {believed} was known to lack acknowledged writes",
            seen.epoch
        ));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(stage: Stage) -> State {
        State {
            epoch: Epoch(4),
            stage,
            phase: Phase::Recovering,
            storage_stale: false,
            ..State::initial(0, "here".to_owned())
        }
    }

    fn seen(stage: Stage) -> Seen {
        Seen {
            epoch: Epoch(9),
            stage,
            legacy_stale: false,
            storage_stale: false,
        }
    }

    fn wish(authority: Backend) -> RecoverWish {
        RecoverWish {
            after: LostBy::Restore,
            authority,
            seen_epoch: None,
            actor: "ada".to_owned(),
            reason: "restored".to_owned(),
            dry_run: false,
        }
    }

    fn decide(current: &State, wish: &RecoverWish, lost: Option<Seen>) -> Result<Change, Refused> {
        let facts = Facts {
            now_us: 50,
            lost,
            acknowledged_max: Epoch(7),
            lineage: "there".to_owned(),
            ..Facts::default()
        };
        recover(current, wish, Epoch(6), &facts, &ControlOptions::default())
    }

    fn told(change: &Change) -> String {
        change.entry.evidence["may_lose"].to_string()
    }

    #[test]
    fn one_side_is_believed_and_the_other_is_stale_whatever_the_stage_was() {
        for stage in Stage::ALL {
            let legacy = decide(&state(stage), &wish(Backend::Legacy), None).unwrap();
            let after = &legacy.after;
            assert_eq!(after.stage.authority(), Backend::Legacy, "{stage}");
            assert!(after.storage_stale && !after.legacy_stale && after.latched);
            let storage = decide(&state(stage), &wish(Backend::Storage), None).unwrap();
            let after = &storage.after;
            assert_eq!(after.stage.authority(), Backend::Storage, "{stage}");
            assert!(after.legacy_stale && !after.storage_stale && after.latched);
            assert!(after.bypass_refused && after.phase == Phase::Steady);
            assert_eq!(after.lineage, "there");
        }
    }

    #[test]
    fn the_epoch_rises_past_all_that_anybody_has_seen() {
        let found = state(Stage::Live);
        let raised = decide(&found, &wish(Backend::Legacy), None).unwrap();
        assert_eq!(raised.after.epoch, Epoch(8), "a replica acknowledged 7");
        let told = RecoverWish {
            seen_epoch: Some(Epoch(20)),
            ..wish(Backend::Legacy)
        };
        assert_eq!(decide(&found, &told, None).unwrap().after.epoch, Epoch(21));
    }

    #[test]
    fn what_came_back_with_the_backup_is_owed_to_the_side_that_is_not_believed() {
        let found = state(Stage::Live);
        let legacy = decide(&found, &wish(Backend::Legacy), None).unwrap();
        assert_eq!(legacy.conversion, Conversion::CopyTo(Backend::Storage));
        assert_eq!(legacy.after.generation, found.generation);
        let storage = decide(&found, &wish(Backend::Storage), None).unwrap();
        assert_eq!(storage.conversion, Conversion::CopyTo(Backend::Legacy));
        // A backfill waits out the requests whose deadlines went with the history.
        assert!(legacy.after.deadline_last_us > 50);
    }

    #[test]
    fn a_side_that_lacked_writes_before_is_not_believed() {
        let never_filled = State {
            storage_stale: true,
            ..state(Stage::DualWrite)
        };
        let storage = wish(Backend::Storage);
        assert_eq!(
            decide(&never_filled, &storage, None),
            Err(Refused::Stale(Backend::Storage))
        );
        // The backup is from before it was filled; a replica remembers that it was.
        let filled = decide(&never_filled, &storage, Some(seen(Stage::Live))).unwrap();
        assert_eq!(filled.after.stage, Stage::RampDown);
    }

    #[test]
    fn giving_up_what_storage_has_is_said_aloud() {
        let backup = state(Stage::DualWrite);
        let lived = Some(seen(Stage::Live));
        let legacy = decide(&backup, &wish(Backend::Legacy), lived).unwrap();
        assert!(told(&legacy).contains("gives them up"), "{}", told(&legacy));
        let storage = decide(&backup, &wish(Backend::Storage), lived).unwrap();
        assert!(told(&storage).contains("verify --repair"));
        let blind = decide(&backup, &wish(Backend::Legacy), None).unwrap();
        assert!(told(&blind).contains("no replica remembers"));
    }

    #[test]
    fn without_a_loss_there_is_nothing_to_recover_from_unless_an_operator_knows_of_one() {
        let steady = State {
            phase: Phase::Steady,
            epoch: Epoch(7),
            ..state(Stage::Shadow)
        };
        let mut wish = wish(Backend::Legacy);
        assert_eq!(decide(&steady, &wish, None), Err(Refused::NotRecovering));
        wish.seen_epoch = Some(Epoch(8));
        assert_eq!(decide(&steady, &wish, None).unwrap().after.epoch, Epoch(9));
    }

    #[test]
    fn a_loss_is_reported_once_and_remembers_what_was_known() {
        let found = State {
            phase: Phase::Steady,
            ..state(Stage::DualWrite)
        };
        let cause = Cause::new("replica", "history was lost");
        let facts = Facts::default();
        let before = Some(seen(Stage::Live));
        let change = lost(&found, Epoch(9), before, &facts, &cause).unwrap();
        assert_eq!(
            (change.after.epoch, change.after.phase),
            (Epoch(10), Phase::Recovering)
        );
        assert_eq!(change.entry.evidence["seen"]["stage"], "live");
        assert_eq!(
            lost(&change.after, Epoch(9), before, &facts, &cause),
            Err(Refused::Recovering)
        );
    }
}
