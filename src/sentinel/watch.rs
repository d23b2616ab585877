//! Evaluating, voting and deciding, many times a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Sentinel;
use crate::guard::{Decision, Electorate, Situation, Standing, Trigger, Verdict};
use crate::telemetry::TriggerGauges;

/// How long the database may take over votes: whoever cannot ask it cannot act either.
const VOTES_TIMEOUT: Duration = Duration::from_secs(1);

/// What is remembered from one round to the next.
#[derive(Debug, Default)]
struct Rounds {
    standings: HashMap<Trigger, Standing>,
    /// After a refusal that another round would only meet again.
    rest_until: Option<Instant>,
}

/// What one look came to.
struct Seen {
    situation: Situation,
    verdicts: Arc<Vec<Verdict>>,
    /// The triggers that call for a remedy.
    called_for: Vec<Trigger>,
}

impl Sentinel {
    pub(super) async fn watch(&self, shutdown: &CancellationToken) {
        let mut rounds = Rounds::default();
        while !shutdown.is_cancelled() {
            // A rollback may insist for a while; it runs in a task of its own, and is not waited for then.
            let round = Box::pin(self.round(&mut rounds));
            shutdown.run_until_cancelled(round).await;
            let pause = self.guard().settings().evaluate_every;
            shutdown.run_until_cancelled(sleep(pause)).await;
        }
    }

    async fn round(&self, rounds: &mut Rounds) {
        let Seen {
            situation,
            verdicts,
            called_for,
        } = self.look(rounds).await;
        let resting = rounds
            .rest_until
            .is_some_and(|until| Instant::now() < until);
        let standing = self.guard().decision();
        if resting || standing.is_none() && called_for.is_empty() {
            return;
        }
        let decision = match standing {
            Some(decision) => Some(decision),
            None => self.decide(&verdicts, &situation).await,
        };
        if let Some(decision) = decision {
            let carrying_out = self.carry_out(&decision, &situation);
            let rest = self.looking_on(rounds, carrying_out).await;
            rounds.rest_until = (!rest.is_zero()).then(|| Instant::now() + rest);
        }
    }

    /// Evaluates the triggers, shows them, and casts this replica's votes.
    async fn look(&self, rounds: &mut Rounds) -> Seen {
        let situation = self.situation();
        let verdicts = self.guard().evaluate(&situation);
        self.show(&verdicts, rounds);
        let called_for: Vec<Trigger> = verdicts
            .iter()
            .filter(|verdict| self.guard().called_for(verdict, &situation).is_some())
            .map(|verdict| verdict.trigger)
            .collect();
        self.vote(&called_for).await;
        Seen {
            situation,
            verdicts,
            called_for,
        }
    }

    /// Goes on looking while a transition is tried: it may insist for half a minute, and nobody should be
    /// blind, nor the other replicas without this one's votes, for as long.
    async fn looking_on<T>(&self, rounds: &mut Rounds, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            let pause = self.guard().settings().evaluate_every;
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep(pause) => {}
            }
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = self.look(rounds) => {}
            }
        }
    }

    /// Metrics each time, a line in the log when a trigger's standing changes for better or worse.
    fn show(&self, verdicts: &[Verdict], rounds: &mut Rounds) {
        for verdict in verdicts {
            let Verdict {
                trigger,
                standing,
                value,
                threshold,
                samples,
                ..
            } = verdict;
            // What is not watched raises no alert.
            let watched = *standing != Standing::Off;
            self.parts.observer.metrics().trigger(
                *trigger,
                &TriggerGauges {
                    value: if watched { *value } else { 0.0 },
                    threshold: *threshold,
                    samples: *samples,
                    blind: *standing == Standing::Blind,
                },
            );
            let before = rounds.standings.insert(*trigger, *standing);
            let fired = *standing == Standing::Fired;
            if fired && before != Some(Standing::Fired) {
                tracing::error!(%trigger, value, threshold, samples, window = ?verdict.window,
                    action = verdict.action.as_str(), "a trigger of the guard fires");
            } else if !fired && before == Some(Standing::Fired) {
                tracing::info!(%trigger, value, threshold, samples, standing = standing.as_str(),
                    "a trigger of the guard no longer fires");
            }
        }
    }

    /// Tells the others, when it is news.
    async fn vote(&self, called_for: &[Trigger]) {
        let votes = Electorate::ballot(called_for);
        match timeout(VOTES_TIMEOUT, self.parts.control.vote(votes)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "a vote waits for the next heartbeat"),
            Err(_) => tracing::warn!("a vote was not cast in time"),
        }
    }

    async fn decide(&self, verdicts: &[Verdict], situation: &Situation) -> Option<Decision> {
        let control = &self.parts.control;
        let replicas = match timeout(VOTES_TIMEOUT, control.replicas()).await {
            Ok(Ok(replicas)) => replicas,
            Ok(Err(fault)) => {
                tracing::warn!(%fault, "a trigger fires, and the others' votes cannot be read");
                return None;
            }
            Err(_) => {
                tracing::warn!("a trigger fires, and the others' votes were not read in time");
                return None;
            }
        };
        let own_id = &control.options().replica_id;
        let others = replicas
            .iter()
            .filter(|replica| replica.leased && replica.id != *own_id)
            .map(|replica| replica.votes.as_str());
        let electorate = Electorate::of(others);
        self.guard().decide(verdicts, situation, &electorate)
    }
}
