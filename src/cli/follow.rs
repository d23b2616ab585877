//! Following a job of the proxy to its end: a progress line on a terminal; Ctrl-C pauses or cancels the job.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{AdminClient, ClientError, Failure};

/// How often the job is looked at.
const POLL: Duration = Duration::from_millis(300);

/// What Ctrl-C does to the job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interrupted {
    /// The same command goes on where it was.
    Pauses,
    /// It is lost.
    Cancels,
}

/// Starts a job by `path`, or joins the one that is under way, and follows it; the job as it ended.
pub(super) async fn follow(
    client: &AdminClient,
    path: &str,
    body: &Value,
    interrupted: Interrupted,
) -> Result<Value, Failure> {
    let started = client.post(path, body).await?;
    let id = started.get("id").and_then(Value::as_str).ok_or_else(|| {
        ClientError::Unreachable("the proxy started a job without naming it".to_owned())
    })?;
    let job_path = format!("/admin/jobs/{id}");
    let mut bar = Bar::new();
    let mut asked = false;
    loop {
        let job = client.get(&job_path).await?;
        if job.get("state").and_then(Value::as_str) != Some("running") {
            bar.clear();
            return ended(job);
        }
        bar.show(&job);
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            // The first asks the job to end and waits for that; the second does not wait.
            pressed = tokio::signal::ctrl_c() => {
                bar.clear();
                if pressed.is_err() || asked {
                    return Err(still_ending(id));
                }
                asked = true;
                match interrupted {
                    Interrupted::Pauses => client.post(&job_path, &json!({ "action": "pause" })).await?,
                    Interrupted::Cancels => client.delete(&job_path).await?,
                };
            }
        }
    }
}

/// The job, unless it failed or was cancelled.
fn ended(job: Value) -> Result<Value, Failure> {
    let text = |name: &str| job.get(name).and_then(Value::as_str);
    let message = match text("state") {
        Some("done") => return Ok(job),
        Some("cancelled") => "cancelled".to_owned(),
        Some("paused") => "paused; the same command goes on where it was".to_owned(),
        _ => text("error").unwrap_or("the job failed").to_owned(),
    };
    Err(Failure::Refused {
        message,
        hint: Some("what was done until then stays; starting again is safe".to_owned()),
    })
}

fn still_ending(id: &str) -> Failure {
    Failure::Refused {
        message: format!("interrupted; job {id} may still be ending"),
        hint: None,
    }
}

/// One line on standard error that is written over and over; nothing where that is no terminal.
pub(super) struct Bar {
    begun: Instant,
    shown: bool,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            shown: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, job: &Value) {
        self.write(&line(job, self.begun.elapsed()));
    }

    pub(super) fn clear(&mut self) {
        self.write("");
    }

    pub(super) fn write(&mut self, text: &str) {
        // A terminal that went away ends the drawing, not the job.
        self.shown = self.shown && write!(io::stderr(), "\r\u{1b}[K{text}").is_ok();
    }
}

/// `ads 1200 of 5000 rows, 24 %, 300 rows/s, ETA 13s`.
fn line(job: &Value, elapsed: Duration) -> String {
    let tables = job.get("progress").and_then(Value::as_array);
    let tables = tables.map_or(&[][..], Vec::as_slice);
    let number = |table: &Value, name: &str| table.get(name).and_then(Value::as_u64);
    let rows: u64 = tables.iter().filter_map(|one| number(one, "rows")).sum();
    let running = tables
        .iter()
        .find(|one| one.get("state").and_then(Value::as_str) == Some("running"));
    let name = running.map_or_else(
        || "…".to_owned(),
        |one| super::print::shown(one.get("table")),
    );
    let rate = rows as f64 / elapsed.as_secs_f64().max(0.001);
    let total = running.and_then(|one| Some((number(one, "rows")?, number(one, "total")?)));
    match total {
        Some((done, total)) if total > 0 && done <= total => {
            let percent = done * 100 / total;
            let left = ((total - done) as f64 / rate.max(0.001)).round();
            format!("{name} {done} of {total} rows, {percent} %, {rate:.0} rows/s, ETA {left:.0}s")
        }
        _ => format!("{name} {rows} rows in all, {rate:.0} rows/s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_line_tells_rows_rate_and_what_is_left_of_the_table_under_way() {
        let job = json!({"progress": [
            {"table": "campaigns", "state": "done", "rows": 800, "total": 800},
            {"table": "ads", "state": "running", "rows": 1200, "total": 5000},
        ]});
        assert_eq!(
            line(&job, Duration::from_secs(10)),
            "ads 1200 of 5000 rows, 24 %, 200 rows/s, ETA 19s"
        );
        let unknown =
            json!({"progress": [{"table": "ads", "state": "running", "rows": 5, "total": null}]});
        assert_eq!(
            line(&unknown, Duration::from_secs(1)),
            "ads 5 rows in all, 5 rows/s"
        );
        assert_eq!(
            line(&json!({}), Duration::ZERO),
            "… 0 rows in all, 0 rows/s"
        );
    }
}
