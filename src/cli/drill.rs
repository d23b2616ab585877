//! `drill`: rehearses a rollback on a running proxy, and tells what happened when.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::follow::Bar;
use super::print::{Mood, items, paint, say, say_json, shown};
use super::{AdminArgs, AdminClient, Failure};
use crate::telemetry::Trigger;

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Arguments of `drill`.
#[derive(Args, Debug)]
pub struct DrillArgs {
    /// What to provoke: failure_rate, inconsistency, latency_delta, unavailable.
    #[arg(value_parser = trigger)]
    trigger: Trigger,
    /// Why; goes into the audit.
    #[arg(long)]
    reason: String,
    /// For how long at most, such as 30s or 2m; as long as the trigger needs without it.
    #[arg(long = "for", value_name = "D")]
    lasting: Option<String>,
    /// Print the whole report as JSON at the end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &DrillArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    let mut body = json!({"trigger": args.trigger.as_str(), "reason": args.reason});
    if let Some(lasting) = &args.lasting {
        body["for"] = json!(lasting);
    }
    let begun = client.post("/admin/drill", &body).await?;
    if !args.json {
        let (id, until) = (shown(begun.get("id")), shown(begun.get("until")));
        let told = format!("drill {id}: {} until {until} at most", args.trigger);
        say(&paint(&told, Mood::Strong))?;
    }
    let report = follow(&client, begun, args.json).await?;
    if args.json {
        say_json(&report)?;
    }
    conclude(&report, args.json)
}

/// Says each event as it comes; the report as it ended.
async fn follow(client: &AdminClient, begun: Value, quiet: bool) -> Result<Value, Failure> {
    let mut bar = Bar::new();
    let mut said = 0;
    let mut cancelled = false;
    let mut report = begun;
    let id = report["id"].clone();
    loop {
        let ended = !report["outcome"].is_null();
        let lines = lines(&report, ended);
        if !quiet && lines.len() > said {
            bar.clear();
            for line in &lines[said..] {
                say(line)?;
            }
            said = lines.len();
        }
        if ended || report["id"] != id {
            bar.clear();
            return Ok(report);
        }
        bar.write(&format!("{} s left", shown(report.get("left_seconds"))));
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            pressed = tokio::signal::ctrl_c() => {
                bar.clear();
                if pressed.is_err() || cancelled {
                    return Err(interrupted());
                }
                cancelled = true;
                // Refused when it has ended meanwhile: then the next look says how.
                client.delete("/admin/drill").await.ok();
            }
        }
        report = client.get("/admin/drill").await?;
    }
}

/// The events that can be told: in their order, so until the first that is missing; all that there are of a
/// drill that has ended.
fn lines(report: &Value, ended: bool) -> Vec<String> {
    let events = report.get("timeline");
    let events = events.map_or(&[][..], |list| items(list, "timeline"));
    let happened = |event: &&Value| event["ms"].is_i64();
    let told: Vec<&Value> = match ended {
        true => events.iter().filter(happened).collect(),
        false => events.iter().take_while(happened).collect(),
    };
    told.into_iter().map(|event| line(event, report)).collect()
}

/// `  +2062 ms  the transition is committed: epoch 9, dual_write, by unavailable`.
fn line(event: &Value, report: &Value) -> String {
    let transition = &report["transition"];
    let told = match event["event"].as_str().unwrap_or_default() {
        "fault" => "the fault begins, in the proxy".to_owned(),
        "first_bad_sample" => "the first call comes to harm".to_owned(),
        "decision" => "the guard decides".to_owned(),
        "transition_committed" => format!(
            "the transition is committed: epoch {}, {}, by {}",
            shown(transition.get("epoch")),
            shown(transition.get("to")),
            shown(transition.get("actor"))
        ),
        "replicas_on_new_epoch" => "all replicas are on the new epoch".to_owned(),
        "answered_by_legacy" => "legacy answers the first caller".to_owned(),
        other => other.to_owned(),
    };
    let ms = event["ms"].as_i64().unwrap_or_default();
    format!("{:>+9} ms  {told}", ms)
}

/// What came of it, and what to do next.
fn conclude(report: &Value, quiet: bool) -> Result<ExitCode, Failure> {
    let notes = report.get("notes");
    let notes = notes.map_or(&[][..], |list| items(list, "notes"));
    let notes: Vec<String> = notes.iter().map(|note| shown(Some(note))).collect();
    if report["outcome"] == "rolled_back" {
        if !quiet {
            for note in notes {
                say(&format!("note: {note}"))?;
            }
            say(&paint("legacy is the authority, and latched", Mood::Good))?;
            say(
                "next: see `cutover status`, then `cutover rearm --reason R`, `cutover verify`, and go forward again",
            )?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = shown(report.get("outcome"));
    Err(Failure::Refused {
        message: format!("the drill ended without a rollback: {outcome}"),
        hint: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}

fn interrupted() -> Failure {
    Failure::Refused {
        message: "interrupted; the drill may still be ending".to_owned(),
        hint: Some("see `cutover status`".to_owned()),
    }
}

fn trigger(text: &str) -> Result<Trigger, &'static str> {
    let known = Trigger::ALL.iter().find(|one| one.as_str() == text);
    known
        .copied()
        .ok_or("triggers are failure_rate, inconsistency, latency_delta, unavailable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        json!({
            "timeline": [
                {"event": "fault", "ms": 0},
                {"event": "first_bad_sample", "ms": 12},
                {"event": "decision", "ms": null},
                {"event": "transition_committed", "ms": 2062},
            ],
            "transition": {"epoch": 9, "to": "dual_write", "actor": "unavailable"},
        })
    }

    #[test]
    fn events_are_told_in_their_order_and_at_the_end_without_those_that_nobody_saw() {
        let under_way = lines(&report(), false);
        assert_eq!(
            under_way,
            [
                "       +0 ms  the fault begins, in the proxy",
                "      +12 ms  the first call comes to harm",
            ]
        );
        let ended = lines(&report(), true);
        assert_eq!(
            ended[2],
            "    +2062 ms  the transition is committed: epoch 9, dual_write, by unavailable"
        );
        assert_eq!(lines(&json!({}), true), [""; 0]);
    }

    #[test]
    fn only_a_rollback_is_a_success() {
        assert!(conclude(&json!({"outcome": "rolled_back", "notes": []}), true).is_ok());
        let ended = json!({"outcome": "time_up", "notes": ["storage was not called"]});
        let Err(Failure::Refused { message, hint }) = conclude(&ended, true) else {
            panic!("no success");
        };
        assert_eq!(message, "the drill ended without a rollback: time_up");
        assert_eq!(hint.as_deref(), Some("storage was not called"));
    }
}
