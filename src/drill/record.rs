//! The drill as it is written down: one row, and the moments that replicas saw. All times are the database's.

use std::time::Duration;

use serde_json::json;

use crate::clock::micros;
use crate::contract::Epoch;
use crate::control::record_action;
use crate::sql::{Db, Fault, Record, Tx};
use crate::stage::Stage;
use crate::storage::REHEARSED_FIELD;
use crate::telemetry::{DivergenceKind, Trigger};

/// Drills that are kept; the oldest go first.
const KEPT_MAX: i64 = 100;

/// A wish for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrillWish {
    /// What to provoke.
    pub trigger: Trigger,
    /// The epoch under which it was judged; void when that has passed.
    pub epoch: Epoch,
    /// For how long at most.
    pub lasting: Duration,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// One that was begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Drill {
    pub(super) id: i64,
    pub(super) trigger: Trigger,
    pub(super) epoch: Epoch,
    pub(super) actor: String,
    pub(super) reason: String,
    pub(super) started_us: i64,
    pub(super) until_us: i64,
    pub(super) ended: Option<Outcome>,
    pub(super) now_us: i64,
}

/// How one ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The authority is back at legacy.
    RolledBack,
    /// Its time was up.
    TimeUp,
    /// Somebody ended it.
    Cancelled,
    /// The state changed, and not to legacy.
    Moved,
}

/// A moment that a replica saw.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Moment {
    /// The faults began.
    Fault,
    /// A call came to harm.
    BadSample,
    /// The guard decided.
    Decision,
    /// No replica serves under the epoch before any more.
    Replicas,
    /// Legacy answered a caller under the new epoch.
    Answer,
}

/// When a moment was, by the database's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// Then.
    Us(i64),
    /// So long before the database hears of it.
    Ago(Duration),
}

/// The transition that took the authority from storage, as the audit has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Committed {
    pub(super) epoch: Epoch,
    pub(super) at_us: i64,
    pub(super) to: String,
    pub(super) actor: String,
    pub(super) reason: String,
}

/// The earliest sight of each moment.
pub(super) type Marks = Vec<(Moment, i64)>;

impl Outcome {
    const ALL: [Self; 4] = [Self::RolledBack, Self::TimeUp, Self::Cancelled, Self::Moved];

    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled_back",
            Self::TimeUp => "time_up",
            Self::Cancelled => "cancelled",
            Self::Moved => "moved",
        }
    }
}

impl Moment {
    /// Whether it comes before the transition.
    pub(super) fn is_before_commit(self) -> bool {
        match self {
            Self::Fault | Self::BadSample | Self::Decision => true,
            Self::Replicas | Self::Answer => false,
        }
    }

    pub(super) const ALL: [Self; 5] = [
        Self::Fault,
        Self::BadSample,
        Self::Decision,
        Self::Replicas,
        Self::Answer,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::BadSample => "first_bad_sample",
            Self::Decision => "decision",
            Self::Replicas => "replicas_on_new_epoch",
            Self::Answer => "answered_by_legacy",
        }
    }
}

impl Drill {
    /// How long it goes on.
    pub(super) fn left(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.until_us - self.now_us).unwrap_or(0))
    }

    fn read(row: &Record) -> Result<Self, Fault> {
        let provokes = row.some_text(1)?;
        let known = Trigger::ALL.iter().find(|one| one.as_str() == provokes);
        let outcome = row.text(7)?;
        Ok(Self {
            id: row.some_int(0)?,
            trigger: *known.ok_or_else(|| unknown(&provokes))?,
            epoch: Epoch(row.some_int(2)?),
            actor: row.some_text(3)?,
            reason: row.some_text(4)?,
            started_us: row.some_int(5)?,
            until_us: row.some_int(6)?,
            ended: outcome
                .map(|text| {
                    let known = Outcome::ALL.into_iter().find(|one| one.as_str() == text);
                    known.ok_or_else(|| unknown(&text))
                })
                .transpose()?,
            now_us: row.some_int(8)?,
        })
    }
}

/// Begins one, together with its record among the actions. `false`: another is under way, or the epoch moved.
pub(super) async fn begin(db: &Db, wish: &DrillWish) -> Result<bool, Fault> {
    let mut tx = db.begin().await?;
    let details = json!({
        "trigger": wish.trigger.as_str(),
        "epoch": wish.epoch,
        "for_seconds": wish.lasting.as_secs(),
    });
    // First, because it takes a lock: of two that begin at once the second sees the first.
    record_action(&mut tx, &wish.actor, "drill", &wish.reason, &details).await?;
    let begun = tx
        .control(
            "INSERT INTO cutover.drills (id, provokes, epoch, actor, reason, started_us, until_us)
             SELECT (SELECT coalesce(max(id), 0) + 1 FROM cutover.drills), $1, $2, $3, $4,
                cutover.now_us(), cutover.now_us() + $5
             FROM cutover.state WHERE epoch = $2
                AND NOT EXISTS (SELECT 1 FROM cutover.drills WHERE outcome IS NULL)
             RETURNING id",
            vec![
                wish.trigger.as_str().into(),
                wish.epoch.into(),
                wish.actor.clone().into(),
                wish.reason.clone().into(),
                micros(wish.lasting).into(),
            ],
        )
        .await?;
    let Some(row) = begun.first() else {
        return Ok(false);
    };
    let gone = row.some_int(0)? - KEPT_MAX;
    for sql in [
        "DELETE FROM cutover.drills WHERE id <= $1",
        "DELETE FROM cutover.drill_marks WHERE drill <= $1",
    ] {
        tx.control(sql, vec![gone.into()]).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Ends the one under way before its time, on record. `false`: there is none.
pub(super) async fn cancel(db: &Db, actor: &str) -> Result<bool, Fault> {
    let mut tx = db.begin().await?;
    let rows = tx
        .control(
            "SELECT id FROM cutover.drills WHERE outcome IS NULL ORDER BY id DESC LIMIT 1",
            vec![],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let id = row.some_int(0)?;
    if !end_in(&mut tx, id, Outcome::Cancelled).await? {
        return Ok(false);
    }
    let details = json!({ "drill": id });
    record_action(&mut tx, actor, "drill_cancel", "cancelled", &details).await?;
    tx.commit().await?;
    Ok(true)
}

/// Ends one, whichever replica is first to say so.
pub(super) async fn end(db: &Db, id: i64, outcome: Outcome) -> Result<(), Fault> {
    let mut tx = db.begin().await?;
    end_in(&mut tx, id, outcome).await?;
    tx.commit().await
}

/// What a drill planted among the divergences goes with it, unless the line tells of another sight of its row
/// as well.
async fn end_in(tx: &mut Tx, id: i64, outcome: Outcome) -> Result<bool, Fault> {
    let ended = tx
        .control(
            "UPDATE cutover.drills SET outcome = $2, ended_us = cutover.now_us()
             WHERE id = $1 AND outcome IS NULL RETURNING id",
            vec![id.into(), outcome.as_str().into()],
        )
        .await?;
    tx.control(
        "DELETE FROM cutover.divergences WHERE kind = $1 AND fields = $2 AND seen = 1",
        vec![
            DivergenceKind::EchoMismatch.as_str().into(),
            REHEARSED_FIELD.into(),
        ],
    )
    .await?;
    Ok(!ended.is_empty())
}

/// The latest, ended or not.
pub(super) async fn latest(db: &Db) -> Result<Option<Drill>, Fault> {
    let rows = db
        .control(
            "SELECT id, provokes, epoch, actor, reason, started_us, until_us, outcome, cutover.now_us()
             FROM cutover.drills ORDER BY id DESC LIMIT 1",
            vec![],
        )
        .await?;
    rows.first().map(Drill::read).transpose()
}

/// Writes down that this replica saw a moment. Only its first sight counts.
pub(super) async fn mark(
    db: &Db,
    drill: i64,
    moment: Moment,
    replica: &str,
    at: At,
) -> Result<(), Fault> {
    let (at_us, ago_us) = match at {
        At::Us(us) => (Some(us), 0),
        At::Ago(ago) => (None, micros(ago)),
    };
    db.control(
        "INSERT INTO cutover.drill_marks (drill, moment, replica, at_us)
         VALUES ($1, $2, $3, coalesce($4::bigint, cutover.now_us() - $5)) ON CONFLICT (drill, moment, replica) DO NOTHING",
        vec![
            drill.into(),
            moment.as_str().into(),
            replica.into(),
            at_us.into(),
            ago_us.into(),
        ],
    )
    .await
    .map(drop)
}

/// The earliest sight of each moment of a drill.
pub(super) async fn marks(db: &Db, drill: i64) -> Result<Marks, Fault> {
    let rows = db
        .control(
            "SELECT moment, min(at_us) FROM cutover.drill_marks WHERE drill = $1 GROUP BY moment",
            vec![drill.into()],
        )
        .await?;
    let mut marks = Marks::new();
    for row in &rows {
        let name = row.some_text(0)?;
        // A later version may know more of them.
        if let Some(moment) = Moment::ALL.into_iter().find(|one| one.as_str() == name) {
            marks.push((moment, row.some_int(1)?));
        }
    }
    Ok(marks)
}

/// The first transition after an epoch of `live` that gave the authority to legacy, if `live` was left by it.
pub(super) async fn committed(db: &Db, after: Epoch) -> Result<Option<Committed>, Fault> {
    let rows = db
        .control(
            "SELECT epoch, at_us, to_stage, actor, reason FROM cutover.transitions
             WHERE epoch > $1 AND from_stage = $2 AND to_stage <> $2 ORDER BY epoch LIMIT 1",
            vec![after.into(), Stage::Live.as_str().into()],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let to = row.some_text(2)?;
    let back = Stage::ALL
        .into_iter()
        .any(|stage| stage < Stage::Live && stage.as_str() == to);
    Ok(back.then_some(Committed {
        epoch: Epoch(row.some_int(0)?),
        at_us: row.some_int(1)?,
        to,
        actor: row.some_text(3)?,
        reason: row.some_text(4)?,
    }))
}

fn unknown(text: &str) -> Fault {
    Fault::Unexpected(format!("a drill of a later version: {text}"))
}
