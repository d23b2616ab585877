//! `status`: where the migration stands.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::follow::pace;
use super::print::{Mood, blockers, items, paint, plain, say, say_json, shown};
use super::{AdminArgs, AdminClient, Failure};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Look again every second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// For scripts; with --watch, one object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let client = AdminClient::new(&args.admin)?;
    loop {
        let status = client.get("/admin/status").await;
        match (status, args.json, args.watch) {
            // Who watches a rollout wants to see the proxy come back.
            (Err(error), _, true) => say(&format!("{CLEAR}{error}"))?,
            (Err(error), _, false) => return Err(error.into()),
            (Ok(status), true, true) => say(&status.to_string())?,
            (Ok(status), true, false) => say_json(&status)?,
            (Ok(status), false, true) => say(&format!("{CLEAR}{}", page(&status)))?,
            (Ok(status), false, false) => say(&page(&status))?,
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// One screen.
fn page(status: &Value) -> String {
    let at = |pointer: &str| shown(status.pointer(pointer));
    let is = |pointer: &str| status.pointer(pointer).and_then(Value::as_bool) == Some(true);
    let mut page = Page::default();
    page.line("stage", &paint(&at("/stage"), Mood::Strong));
    page.line(
        "authority",
        &format!(
            "{} (epoch {}, since {})",
            at("/authority"),
            at("/epoch"),
            at("/since")
        ),
    );
    page.line("by", &format!("{}: {}", at("/actor"), at("/reason")));
    if is("/latched") {
        page.line(
            "latched",
            &paint("yes: nothing advances until `cutover rearm`", Mood::Bad),
        );
    }
    on_purpose(&mut page, status);
    let safe = if is("/rollback/safe") {
        let to = at("/rollback/to");
        let said = if to == "-" {
            "nothing to roll back".to_owned()
        } else {
            format!("safe, to {to}")
        };
        paint(&said, Mood::Good)
    } else {
        paint("not safe", Mood::Bad)
    };
    page.line("rollback", &safe);
    page.list(status.pointer("/rollback/blockers"));
    let ready = if is("/readiness/ready") {
        paint("ready", Mood::Good)
    } else {
        "not ready".to_owned()
    };
    page.line(
        "next stage",
        &format!("{} ({ready})", at("/readiness/next")),
    );
    page.list(status.pointer("/readiness/blockers"));
    page.line(
        "owed",
        &format!(
            "{} (oldest {} s, in doubt {}, quarantined {})",
            at("/journal/owed"),
            at("/journal/oldest_seconds"),
            at("/journal/in_doubt"),
            at("/journal/quarantined")
        ),
    );
    backends(&mut page, status);
    page.line(
        "compared",
        &format!(
            "{} match, {} transient, {} confirmed",
            at("/comparisons/match"),
            at("/comparisons/transient"),
            at("/comparisons/confirmed")
        ),
    );
    on_record(&mut page, status);
    triggers(&mut page, status);
    weakened(&mut page, status);
    page.text
}

/// A line per job that is under way, on whatever replica, or that did not come to its end.
fn jobs(page: &mut Page, status: &Value) {
    for kind in ["backfill", "verify"] {
        let job = &status[kind];
        let part = |name: &str| shown(job.get(name));
        let far = pace(job).join(", ");
        let stands = match job["state"].as_str() {
            Some("running") => format!(
                "under way on {} since {}: {far}; job {}, asked for by {}{}",
                part("replica"),
                part("started_at"),
                part("id"),
                part("actor"),
                why(job),
            ),
            Some("paused") => format!(
                "paused at {far}: the same command goes on with it; job {}",
                part("id")
            ),
            Some("failed") => paint(&format!("failed at {far}: {}", part("error")), Mood::Bad),
            _ => continue,
        };
        page.line(kind, &stands);
    }
}

/// The reason of a job, where one was given.
fn why(job: &Value) -> String {
    match job["reason"].as_str().unwrap_or_default() {
        "" => String::new(),
        reason => format!(" ({})", plain(reason)),
    }
}

/// What readiness rests on: jobs that are under way, the last full verify, callers' latency against `off`, writes past the proxy.
fn on_record(page: &mut Page, status: &Value) {
    let at = |pointer: &str| shown(status.pointer(pointer));
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_f64);
    jobs(page, status);
    if let Some(clean) = status.pointer("/verified/clean").and_then(Value::as_bool) {
        let found = if clean { "clean" } else { "not clean" };
        let when = at("/verified/at");
        page.line("verified", &format!("{found}, {when}"));
    }
    let latency = |kind: &str| {
        let then = number(&format!("/baseline/{kind}/p95_ms"))?;
        let now = number(&format!("/baseline/{kind}/now_p95_ms"));
        let now = now.map_or_else(|| "-".to_owned(), |now| format!("{now:.1}"));
        Some(format!("{kind}s {now} ms, {then:.1} ms in off"))
    };
    let known: Vec<String> = ["read", "write"].into_iter().filter_map(latency).collect();
    if !known.is_empty() {
        page.line("callers p95", &known.join("; "));
    }
    if number("/bypass_writes").is_some_and(|rows| rows > 0.0) {
        let rows = at("/bypass_writes");
        page.line(
            "bypassed",
            &format!("{rows} rows were written past the proxy"),
        );
    }
    if status
        .pointer("/flag_file/disagrees")
        .and_then(Value::as_bool)
        == Some(true)
    {
        let (asks, result) = (at("/flag_file/asks"), at("/flag_file/result"));
        page.line("flag file", &format!("asks for {asks} ({result})"));
    }
    schemas(page, status);
}

/// Tables that joined and are not filled, and where the sides' schemas differ.
fn schemas(page: &mut Page, status: &Value) {
    let pending = status
        .get("pending_tables")
        .map_or(&[][..], |list| items(list, "pending_tables"));
    for table in pending {
        let what = "storage is to be filled with it: `cutover backfill`, then `cutover verify`";
        page.line("pending", &format!("{}: {what}", shown(Some(table))));
    }
    let schema = status.get("schema").unwrap_or(&Value::Null);
    for one in items(schema, "drift") {
        let line = format!("{}: {}", shown(one.get("table")), shown(one.get("message")));
        let mood = match one["blocks"] == true {
            true => Mood::Bad,
            false => Mood::Strong,
        };
        page.line("drift", &paint(&line, mood));
    }
    for one in items(schema, "unknown") {
        page.line("drift", &format!("{}: not known", shown(one.get("table"))));
    }
}

/// What is not as usual because somebody means it so.
fn on_purpose(page: &mut Page, status: &Value) {
    drill(page, status);
    expected_outages(page, status);
}

/// Whoever was paged by a drill should see at once that it is one.
fn drill(page: &mut Page, status: &Value) {
    let Some(drill) = status.get("drill").filter(|drill| drill.is_object()) else {
        return;
    };
    let part = |name: &str| shown(drill.get(name));
    let stands = match drill["outcome"].is_null() {
        true => format!("under way, until {} at most", part("until")),
        false => format!("over ({}); its latch holds", part("outcome")),
    };
    let told = format!(
        "{} provoked by {}: {}; {stands}",
        part("trigger"),
        part("actor"),
        part("reason")
    );
    page.line("drill", &paint(&told, Mood::Bad));
}

/// A line per outage that is expected.
fn expected_outages(page: &mut Page, status: &Value) {
    let list = status
        .get("maintenance")
        .map_or(&[][..], |list| items(list, "maintenance"));
    for outage in list {
        let part = |name: &str| shown(outage.get(name));
        let (of, until, why) = (part("backend"), part("until"), part("reason"));
        page.line("maintenance", &format!("{of} until {until}: {why}"));
    }
}

/// A line per trigger that is watched in this stage.
fn triggers(page: &mut Page, status: &Value) {
    let all = status
        .get("guard")
        .map_or(&[][..], |list| items(list, "guard"));
    for trigger in all {
        let state = shown(trigger.get("state"));
        let mood = match state.as_str() {
            "off" => continue,
            "fired" => Mood::Bad,
            "ok" => Mood::Good,
            _ => Mood::Strong,
        };
        let number = |name: &str| trigger.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let line = format!(
            "{} {}: {:.4} of {:.4} from {} samples, then {}",
            shown(trigger.get("trigger")),
            paint(&state, mood),
            number("value"),
            number("threshold"),
            shown(trigger.get("samples")),
            shown(trigger.get("action")),
        );
        page.line("guard", &line);
    }
}

/// A line per promise that is weaker for want of a capability.
fn weakened(page: &mut Page, status: &Value) {
    let list = status
        .get("weakened")
        .map_or(&[][..], |list| items(list, "weakened"));
    for promise in list {
        page.line("weakened", &shown(Some(promise)));
    }
}

/// A line per backend.
fn backends(page: &mut Page, status: &Value) {
    let member = |backend: &str, name: &str| status.pointer(&format!("/backends/{backend}/{name}"));
    let ms = |value: Option<&Value>| {
        value
            .and_then(Value::as_f64)
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
    };
    for backend in ["legacy", "storage"] {
        let up = if member(backend, "up").and_then(Value::as_bool) == Some(true) {
            paint("up", Mood::Good)
        } else {
            paint("down", Mood::Bad)
        };
        let errors = member(backend, "error_rate").and_then(Value::as_f64);
        page.line(
            backend,
            &format!(
                "{up}, p50 {} ms, p95 {} ms, p99 {} ms, errors {}",
                ms(member(backend, "p50_ms")),
                ms(member(backend, "p95_ms")),
                ms(member(backend, "p99_ms")),
                errors.map_or_else(|| "-".to_owned(), |rate| format!("{:.2} %", rate * 100.0)),
            ),
        );
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        // Writing to a string cannot fail.
        write!(self.text, "{name:<11} {value}").unwrap_or_default();
    }

    fn list(&mut self, list: Option<&Value>) {
        for blocker in blockers(list) {
            self.line("", &format!("- {blocker}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_says_what_blocks_the_next_stage() {
        let page = page(&json!({
            "stage": "shadow", "authority": "legacy", "epoch": 4, "latched": true,
            "rollback": {"safe": true, "to": "dual_write"},
            "readiness": {"next": "live", "ready": false, "blockers": [{"code": "owed", "message": "3 entries are owed"}]},
            "journal": {"owed": 3},
            "backends": {"legacy": {"up": true}, "storage": {"up": false}},
            "guard": [
                {"trigger": "unavailable", "state": "fired", "value": 7, "threshold": 5, "samples": 9, "action": "rollback"},
                {"trigger": "inconsistency", "state": "off"},
            ],
        }));
        assert!(
            page.contains("unavailable fired: 7.0000 of 5.0000"),
            "{page}"
        );
        assert!(!page.contains("inconsistency"), "{page}");
        assert!(page.contains("owed: 3 entries are owed"), "{page}");
        assert!(page.contains("live (not ready)"), "{page}");
        assert!(page.contains("rearm"), "{page}");
        assert!(!page.contains("drill"), "{page}");
    }

    #[test]
    fn a_page_says_which_jobs_are_under_way_and_where() {
        let page = page(&json!({
            "backfill": {"state": "done", "replica": "one"},
            "verify": {"id": "J", "state": "running", "replica": "two", "started_at": "noon", "rows": 7, "total": 10,
                "rows_per_second": 3.0, "eta_seconds": 1.0, "actor": "ann", "reason": "a look"},
        }));
        let told = "under way on two since noon: 7 of 10 rows, 3 rows/s, ETA 1s; job J, asked for by ann (a look)";
        assert!(page.contains(told), "{page}");
        assert!(!page.contains("backfill"), "{page}");
    }

    #[test]
    fn a_page_says_what_rests_and_what_failed() {
        let page = page(&json!({
            "backfill": {"id": "J", "state": "paused", "rows": 7, "total": 10},
            "verify": {"state": "failed", "rows": 3, "error": "storage: no answer"},
        }));
        let rests = "paused at 7 of 10 rows: the same command goes on with it; job J";
        assert!(page.contains(rests), "{page}");
        assert!(
            page.contains("failed at 3 rows: storage: no answer"),
            "{page}"
        );
    }

    #[test]
    fn a_page_says_that_it_is_a_drill() {
        let mut status = json!({"drill": {
            "trigger": "unavailable", "actor": "ada", "reason": "before the weekend",
            "until": "noon", "outcome": null,
        }});
        let under_way = page(&status);
        let told = "unavailable provoked by ada: before the weekend; under way, until noon at most";
        assert!(under_way.contains(told), "{under_way}");
        status["drill"]["outcome"] = json!("rolled_back");
        let over = page(&status);
        assert!(
            over.contains("over (rolled_back); its latch holds"),
            "{over}"
        );
    }
}
