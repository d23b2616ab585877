//! One change, one short transaction under the gate.
//!
//! The gate's lock is asked for with a short timeout and pauses in between: a waiting exclusive lock makes
//! every new writer wait behind it, so a transition must never queue for long. Each time that was not enough the
//! next is longer, up to a bound: on a machine with too much to do short transactions take long as well, and
//! among many there is always one that has just begun. Whoever bypasses the proxy in a long transaction holds
//! the gate too; then the change gives up, says who it is, and nothing has happened.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::clock::micros;
use crate::contract::Epoch;
use crate::evidence;
use crate::journal::{self, FLOOR};
use crate::sql::{Db, Dialect, Fault, Tx};

use super::audit::{self, TransitionRecord};
use super::change::{Ask, Change, Facts};
use super::control::Inner;
use super::ddl::GATE_LOCK;
use super::error::TransitionError;
use super::flagfile::FlagDigest;
use super::holder;
use super::options::ControlOptions;
use super::plan::Refused;
use super::replica::{self, DEAD_AFTER};
use super::state::{self, Phase, State};
use crate::stage::{Backend, Stage};

/// How long the first attempt queues for the gate, and the longest: no longer than a lease.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
const LOCK_TIMEOUT_MAX: Duration = Duration::from_millis(800);
/// How long writers are let through between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Where transitions are announced (PostgreSQL `NOTIFY`).
pub(super) const CHANNEL: &str = "cutover";
/// Owed entries are counted no further: only none at all means anything to a transition.
const OWED_COUNT_MAX: i64 = 10_000;

/// A change that was committed.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Changed {
    pub(super) from: Stage,
    pub(super) after: State,
    /// How long writers were held up: by the gate, and by whoever waited for it to be shut.
    pub(super) pause: Duration,
}

/// One attempt at a change, with a name that the audit keeps.
struct Attempt<'a> {
    ask: &'a Ask,
    flag: Option<&'a FlagDigest>,
    options: &'a ControlOptions,
    request_id: String,
}

/// Makes the change, or leaves everything as it was. Must run in a task that nobody cancels.
pub(super) async fn make(
    inner: &Inner,
    ask: &Ask,
    flag: Option<&FlagDigest>,
    give_up_at: Instant,
) -> Result<Changed, TransitionError> {
    let made = attempts(inner, ask, flag, give_up_at).await;
    inner.gate_held_by.store(Arc::default());
    made
}

async fn attempts(
    inner: &Inner,
    ask: &Ask,
    flag: Option<&FlagDigest>,
    give_up_at: Instant,
) -> Result<Changed, TransitionError> {
    let attempt = Attempt {
        ask,
        flag,
        options: &inner.options,
        request_id: Uuid::new_v4().to_string(),
    };
    let began_at = Instant::now();
    let (mut in_doubt, mut paused) = (false, Duration::ZERO);
    let mut patience = LOCK_TIMEOUT;
    loop {
        let fault = match attempt.run(&inner.db, in_doubt, patience).await {
            Ok(mut changed) => {
                changed.pause += paused;
                return Ok(changed);
            }
            Err(TransitionError::Fault(
                fault @ (Fault::Unavailable(_) | Fault::TimedOut | Fault::InDoubt(_)),
            )) => fault,
            Err(error) => return Err(error),
        };
        in_doubt |= matches!(fault, Fault::InDoubt(_));
        let held = matches!(&fault, Fault::Unavailable(why) if is_lock_timeout(why));
        if held {
            paused += patience;
            patience = (patience * 2).min(LOCK_TIMEOUT_MAX);
            if let Ok(holders) = holder::holders(&inner.db, LOCK_TIMEOUT).await {
                inner.gate_held_by.store(Arc::new(holders));
            }
        }
        if Instant::now() + PAUSE >= give_up_at {
            return Err(match fault {
                _ if in_doubt => {
                    Fault::InDoubt("the answer to the commit was lost".to_owned()).into()
                }
                _ if held => TransitionError::GateHeld {
                    after: began_at.elapsed(),
                    by: inner.gate_held_by.load().to_vec(),
                },
                fault => fault.into(),
            });
        }
        sleep(PAUSE).await;
    }
}

/// What would happen, without any effect.
pub(super) async fn rehearse(
    db: &Db,
    ask: &Ask,
    options: &ControlOptions,
) -> Result<(State, Change), TransitionError> {
    let mut tx = db.begin().await?;
    let current = State::read(&mut tx)
        .await?
        .ok_or_else(state::not_installed)?;
    let facts = facts(&mut tx, &current, ask).await?;
    let change = ask.decide(&current, &facts, options)?;
    tx.commit().await?;
    Ok((current, change))
}

impl Attempt<'_> {
    async fn run(
        &self,
        db: &Db,
        in_doubt: bool,
        patience: Duration,
    ) -> Result<Changed, TransitionError> {
        let mut tx = db.begin().await?;
        be_brief(&mut tx, patience).await?;
        let shut_at = Instant::now();
        tx.lock(GATE_LOCK).await?;
        let current = State::lock(&mut tx).await?;
        if in_doubt && let Some((epoch, from)) = self.made(&mut tx).await? {
            // The commit whose answer was lost took effect.
            return Ok(Changed {
                from,
                after: State { epoch, ..current },
                pause: shut_at.elapsed(),
            });
        }
        self.begin_anew_after_loss(&mut tx).await?;
        let facts = facts(&mut tx, &current, self.ask).await?;
        let mut change = self.ask.decide(&current, &facts, self.options)?;
        self.consume_flag(&mut tx, &change, &facts).await?;
        let skew_us = micros(self.options.clock_skew_max);
        let deadline_us = change
            .conversion
            .run(&mut tx, current.generation, skew_us)
            .await?;
        if deadline_us > 0 {
            let quiet_us = deadline_us.saturating_add(skew_us);
            change.after.deadline_last_us = change.after.deadline_last_us.max(quiet_us);
        }
        change.after.replace(&mut tx, current.epoch).await?;
        let record = TransitionRecord::of(&current, &change, facts.now_us, &self.request_id);
        audit::record_transition(&mut tx, &record).await?;
        self.record_action(&mut tx, &current, &change).await?;
        self.account_for_the_dead(&mut tx).await?;
        if let Ask::Recover { .. } = self.ask {
            // They are of rows that may be gone.
            evidence::forget_verified(&mut tx).await?;
        }
        commit_and_tell(tx, change.after.epoch).await?;
        Ok(Changed {
            from: current.stage,
            after: change.after,
            pause: shut_at.elapsed(),
        })
    }

    /// Where history was lost, nothing is known of the journal's numbers.
    async fn begin_anew_after_loss(&self, tx: &mut Tx) -> Result<(), Fault> {
        match self.ask {
            Ask::Lost { .. } | Ask::Recover { .. } => journal::forget_floor(tx).await,
            Ask::Move(_)
            | Ask::FinishDrain { .. }
            | Ask::GiveUpDrain { .. }
            | Ask::Freeze(_)
            | Ask::Rearm(_)
            | Ask::Judge { .. }
            | Ask::Bypass(_) => Ok(()),
        }
    }

    /// The epoch this attempt has made already, and the stage before.
    async fn made(&self, tx: &mut Tx) -> Result<Option<(Epoch, Stage)>, Fault> {
        let rows = tx
            .control(
                "SELECT epoch, from_stage FROM cutover.transitions WHERE request_id = $1",
                vec![self.request_id.clone().into()],
            )
            .await?;
        rows.first()
            .map(|row| Ok((Epoch(row.some_int(0)?), state::stage(&row.some_text(1)?)?)))
            .transpose()
    }

    /// A content of the flag file counts once, in the transaction of the move it asked for.
    async fn consume_flag(
        &self,
        tx: &mut Tx,
        change: &Change,
        facts: &Facts,
    ) -> Result<(), TransitionError> {
        let Some(flag) = self.flag else { return Ok(()) };
        let first = flag
            .consume(tx, facts.now_us, change.after.epoch, change.entry.step)
            .await?;
        if first {
            Ok(())
        } else {
            Err(Refused::AppliedBefore.into())
        }
    }

    /// Once legacy is known to be stale, the replicas that died with debts to it have told all they could.
    async fn account_for_the_dead(&self, tx: &mut Tx) -> Result<(), Fault> {
        match self.ask {
            Ask::Judge { verdict, .. } if verdict.stale && verdict.backend == Backend::Legacy => {
                replica::bury(tx).await
            }
            _ => Ok(()),
        }
    }

    /// Acts that weaken a guard are listed apart, too.
    async fn record_action(
        &self,
        tx: &mut Tx,
        before: &State,
        change: &Change,
    ) -> Result<(), Fault> {
        let kind = match self.ask {
            Ask::Move(request) if request.force => "force",
            Ask::Rearm(_) => "rearm",
            Ask::Recover { .. } => "recover",
            Ask::Move(_)
            | Ask::FinishDrain { .. }
            | Ask::GiveUpDrain { .. }
            | Ask::Judge { .. }
            | Ask::Bypass(_)
            | Ask::Freeze(_)
            | Ask::Lost { .. } => return Ok(()),
        };
        let (after, cause) = (&change.after, &change.entry.cause);
        let mut details = serde_json::json!({
            "epoch": after.epoch.0,
            "from": before.stage.as_str(),
            "to": after.drain_to.unwrap_or(after.stage).as_str(),
            "overridden": change.entry.overridden,
        });
        if let Ask::Recover { .. } = self.ask {
            details["evidence"] = change.entry.evidence.clone();
        }
        audit::record_action(tx, &cause.actor, kind, &cause.reason, &details)
            .await
            .map(drop)
    }
}

/// How long to queue for the gate; and statements are planned for the journal as it is: it grows faster than plans that
/// are kept are made anew.
async fn be_brief(tx: &mut Tx, patience: Duration) -> Result<(), Fault> {
    match tx.dialect() {
        Dialect::Postgres => tx
            .fetch(
                "SELECT set_config('lock_timeout', $1, true), set_config('plan_cache_mode', 'force_custom_plan', true)",
                vec![patience.as_millis().to_string().into()],
            )
            .await
            .map(drop),
        Dialect::Sqlite => Ok(()),
    }
}

async fn facts(tx: &mut Tx, current: &State, ask: &Ask) -> Result<Facts, Fault> {
    let lineage = state::lineage_sql(tx.dialect());
    let sql = format!(
        "SELECT cutover.now_us(),
            CASE WHEN $5 THEN (SELECT count(*) FROM
                (SELECT 1 FROM cutover.journal WHERE seq >= {FLOOR} AND generation = $1 LIMIT $2) AS entries)
            ELSE 0 END,
            (SELECT count(*) FROM cutover.replicas
                WHERE (dirty OR epoch < $3) AND lease_until_us + $4 > cutover.now_us()),
            (SELECT count(*) FROM cutover.replicas
                WHERE dirty AND lease_until_us + $4 <= cutover.now_us()),
            (SELECT coalesce(max(epoch), 0) FROM cutover.replicas),
            (SELECT count(*) FROM cutover.tables WHERE pending),
            {lineage}"
    );
    let args = vec![
        current.generation.into(),
        OWED_COUNT_MAX.into(),
        current.epoch.into(),
        micros(DEAD_AFTER).into(),
        ask.counts_owed().into(),
    ];
    let rows = tx.control(&sql, args).await?;
    let row = rows.first().ok_or_else(state::not_installed)?;
    let lost = match current.phase {
        Phase::Recovering => audit::seen_before_loss(tx).await?,
        Phase::Steady | Phase::Draining => None,
    };
    Ok(Facts {
        now_us: row.some_int(0)?,
        owed: row.some_int(1)?,
        unconfirmed: row.some_int(2)?,
        lost_debts: row.some_int(3)?,
        acknowledged_max: Epoch(row.some_int(4)?),
        pending_tables: row.some_int(5)?,
        lineage: row.some_text(6)?,
        lost,
    })
}

/// Commits, and tells the replicas then. Only an accelerator: they poll as well, and trust neither.
async fn commit_and_tell(tx: Tx, epoch: Epoch) -> Result<(), Fault> {
    match tx.dialect() {
        // In one message: writers wait for it.
        Dialect::Postgres => {
            let tell = format!("SELECT pg_notify('{CHANNEL}', '{epoch}')");
            tx.commit_after(&tell).await
        }
        Dialect::Sqlite => tx.commit().await,
    }
}

/// `lock_not_available`, or SQLite's busy database.
fn is_lock_timeout(why: &str) -> bool {
    why.contains("55P03") || why.contains("locked")
}
