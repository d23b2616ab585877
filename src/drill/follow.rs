//! Taking part: each replica turns the open drill into faults of its own and tells what it saw.
//!
//! Nothing waits for this loop. A replica that does not hear of a drill has no faults; one that cannot reach
//! the database any more ends them with their time or their epoch, whichever comes first.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Drills;
use super::provoke::provoke;
use super::record::{self, At, Committed, Drill, Moment, Outcome};
use crate::clock::{boottime, micros};
use crate::contract::Epoch;
use crate::repository::Parts;
use crate::sql::Fault;
use crate::stage::Stage;
use crate::storage::Rehearsing;

/// How often a replica in `live` looks for a drill: one row by its key.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// And while one is being brought to its end, so that the moments are told apart.
const SETTLE_EVERY: Duration = Duration::from_millis(50);
/// How long a caller is waited for after the rollback.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// The drill that this replica takes part in.
#[derive(Debug)]
struct Part {
    drill: i64,
    epoch: Epoch,
    /// When it began here, by the boot clock, and a moment before that by the database's.
    began_at: Duration,
    began_us: i64,
    /// The faults; none when the settings allow none here.
    rehearsing: Option<Arc<Rehearsing>>,
    told: HashSet<Moment>,
}

/// What to do about a drill, by where this replica stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It is over, or of an epoch that this replica does not know yet.
    Rest,
    /// Let things go wrong.
    Provoke,
    /// Nobody brought the authority back in time.
    GiveUp,
    /// The epoch is another: see what became of the authority.
    Settle,
}

impl Drills {
    /// Takes part in every drill until `shutdown`. One task per replica.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let control = &self.parts.control;
        let mut news = control.watch();
        let mut part = None;
        // An epoch that has not been looked at may end a drill, or what it left.
        let mut looked_at = None;
        while !shutdown.is_cancelled() {
            let now = control.snapshot();
            let moved = looked_at != Some(now.epoch);
            if moved || now.stage == Stage::Live || self.is_under_way() {
                match self.round(&mut part).await {
                    Ok(()) => looked_at = Some(now.epoch),
                    Err(fault) => tracing::debug!(%fault, "drills cannot be looked for now"),
                }
            }
            let pause = match &part {
                Some(Part { epoch, .. }) if *epoch < control.snapshot().epoch => SETTLE_EVERY,
                Some(_) | None => LOOK_EVERY,
            };
            let news = async {
                if news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = news => {}
                () = sleep(pause) => {}
            }
        }
        self.parts.storage.rehearse(None);
    }

    async fn round(&self, part: &mut Option<Part>) -> Result<(), Fault> {
        let Parts {
            control, storage, ..
        } = &self.parts;
        let db = control.db();
        let drill = record::latest(db).await?;
        self.notice(drill.as_ref()).await?;
        let Some(drill) = drill.filter(|drill| drill.ended.is_none()) else {
            storage.rehearse(None);
            *part = None;
            return Ok(());
        };
        match step(&drill, control.snapshot().epoch) {
            Step::Rest => Ok(()),
            Step::Provoke => {
                if part.as_ref().is_none_or(|part| part.drill != drill.id) {
                    *part = Some(self.take_part(&drill));
                }
                self.tell_what_was_seen(part).await
            }
            Step::GiveUp => {
                storage.rehearse(None);
                self.tell_what_was_seen(part).await?;
                record::end(db, drill.id, Outcome::TimeUp).await
            }
            Step::Settle => {
                storage.rehearse(None);
                self.tell_what_was_seen(part).await?;
                self.settle(&drill, part).await
            }
        }
    }

    /// Begins the faults here.
    fn take_part(&self, drill: &Drill) -> Part {
        let Parts {
            storage, observer, ..
        } = &self.parts;
        let settings = observer.guard().settings();
        let provoked = provoke(drill.trigger, &settings, storage.rpc_deadline());
        let now = boottime();
        let rehearsing = provoked.map(|what| {
            let left = drill.left();
            Arc::new(Rehearsing::new(drill.id, what, drill.epoch, now, left))
        });
        storage.rehearse(rehearsing.clone());
        tracing::warn!(drill = drill.id, trigger = %drill.trigger, actor = drill.actor,
            reason = drill.reason, what = ?provoked, "a drill begins: what follows is provoked");
        Part {
            drill: drill.id,
            epoch: drill.epoch,
            began_at: now,
            began_us: drill.now_us,
            rehearsing,
            told: HashSet::new(),
        }
    }

    /// Writes down what happened here since the last round.
    async fn tell_what_was_seen(&self, part: &mut Option<Part>) -> Result<(), Fault> {
        let Some(part) = part else { return Ok(()) };
        if let Some(rehearsing) = part.rehearsing.clone() {
            let began = Some(rehearsing.began_at());
            self.tell(part, Moment::Fault, began).await?;
            let bad = rehearsing.first_bad_at();
            self.tell(part, Moment::BadSample, bad).await?;
        }
        let decided = self.parts.observer.guard().last_decided();
        let decided = decided.filter(|(epoch, _)| *epoch == part.epoch);
        self.tell(part, Moment::Decision, decided.map(|(_, at)| at))
            .await
    }

    async fn tell(
        &self,
        part: &mut Part,
        moment: Moment,
        at: Option<Duration>,
    ) -> Result<(), Fault> {
        let Some(at) = at.filter(|_| !part.told.contains(&moment)) else {
            return Ok(());
        };
        let control = &self.parts.control;
        let replica = &control.options().replica_id;
        let at = part.by_the_database(moment, at);
        record::mark(control.db(), part.drill, moment, replica, at).await?;
        part.told.insert(moment);
        Ok(())
    }

    /// The epoch is another: the authority is back at legacy, or somebody did something else.
    async fn settle(&self, drill: &Drill, part: &mut Option<Part>) -> Result<(), Fault> {
        let db = self.parts.control.db();
        let Some(committed) = record::committed(db, drill.epoch).await? else {
            return record::end(db, drill.id, Outcome::Moved).await;
        };
        if let Some(part) = part {
            self.tell_what_followed(part, &committed).await?;
        }
        let marks = record::marks(db, drill.id).await?;
        let all = [Moment::Replicas, Moment::Answer]
            .iter()
            .all(|moment| marks.iter().any(|(one, _)| one == moment));
        let waited_us = drill.now_us - committed.at_us;
        if all || waited_us > micros(SETTLE_MAX) {
            record::end(db, drill.id, Outcome::RolledBack).await?;
        }
        Ok(())
    }

    async fn tell_what_followed(
        &self,
        part: &mut Part,
        committed: &Committed,
    ) -> Result<(), Fault> {
        let Parts {
            control, observer, ..
        } = &self.parts;
        if !part.told.contains(&Moment::Replicas) {
            let replicas = control.replicas().await?;
            let behind = replicas
                .iter()
                .any(|one| one.leased && one.epoch < committed.epoch);
            if !behind {
                self.tell(part, Moment::Replicas, Some(boottime())).await?;
            }
        }
        let answered = observer.first_answer_of_legacy();
        let answered = answered.filter(|(epoch, _)| *epoch >= committed.epoch);
        self.tell(part, Moment::Answer, answered.map(|(_, at)| at))
            .await
    }
}

impl Part {
    /// The two clocks meet in statements, which take their time; it is set off so that it never turns the order
    /// of the story round. What comes before the transition is dated from one reading, a little early, and what
    /// comes after it from its own statement, a little late.
    fn by_the_database(&self, moment: Moment, at: Duration) -> At {
        match moment.is_before_commit() {
            true => At::Us(self.began_us + micros(at) - micros(self.began_at)),
            false => At::Ago(boottime().saturating_sub(at)),
        }
    }
}

fn step(drill: &Drill, epoch: Epoch) -> Step {
    match epoch.cmp(&drill.epoch) {
        std::cmp::Ordering::Less => Step::Rest,
        std::cmp::Ordering::Equal if drill.left().is_zero() => Step::GiveUp,
        std::cmp::Ordering::Equal => Step::Provoke,
        std::cmp::Ordering::Greater => Step::Settle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Trigger;

    #[test]
    fn a_drill_provokes_only_under_its_epoch_and_in_its_time() {
        let drill = |now_us| Drill {
            id: 1,
            trigger: Trigger::Unavailable,
            epoch: Epoch(7),
            actor: String::new(),
            reason: String::new(),
            started_us: 0,
            until_us: 100,
            ended: None,
            now_us,
        };
        assert_eq!(step(&drill(99), Epoch(6)), Step::Rest);
        assert_eq!(step(&drill(99), Epoch(7)), Step::Provoke);
        assert_eq!(step(&drill(100), Epoch(7)), Step::GiveUp);
        assert_eq!(step(&drill(99), Epoch(8)), Step::Settle);
        assert_eq!(step(&drill(100), Epoch(8)), Step::Settle);
    }
}
