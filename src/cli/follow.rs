//! Following a job of the proxy to its end: a progress line on a terminal; Ctrl-C pauses or cancels the job.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::print::{items, shown};
use super::{AdminClient, ClientError, Failure};

/// How often the job is looked at.
const POLL: Duration = Duration::from_millis(300);

/// The code of a proxy that cannot ask legacy how far a job is.
const UNAVAILABLE: &str = "backend_unavailable";

/// Cells of the bar.
const BAR_CELLS: usize = 20;

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
    // Listened for from here on: pressed while the proxy is asked for something, it is not lost.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| Failure::Refused {
        message: format!("Ctrl-C cannot be listened for: {error}"),
        hint: None,
    })?;
    let started = client.post(path, body).await?;
    let id = started.get("id").and_then(Value::as_str).ok_or_else(|| {
        ClientError::Unreachable("the proxy started a job without naming it".to_owned())
    })?;
    let job_path = format!("/admin/jobs/{id}");
    let mut looks = interval(POLL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bar = Bar::new();
    let mut asked = false;
    loop {
        let look = async {
            looks.tick().await;
            client.get(&job_path).await
        };
        let found = tokio::select! {
            job = look => job,
            // The first asks the job to end and waits for that; the second does not wait.
            _ = interrupts.recv() => {
                bar.clear();
                if asked {
                    return Err(still_ending(id));
                }
                asked = true;
                tokio::select! {
                    ends = interrupted.end(client, &job_path) => match ends {
                        // It has just ended by itself.
                        Err(ClientError::Refused { .. }) => continue,
                        ends => ends,
                    },
                    _ = interrupts.recv() => return Err(still_ending(id)),
                }
            }
        };
        let job = match found {
            Ok(job) => job,
            // A job outlasts that, and so does whoever follows it.
            Err(ClientError::Refused { code, message, .. }) if code == UNAVAILABLE => {
                bar.write(&message);
                continue;
            }
            Err(error) => {
                bar.clear();
                return Err(interrupted.lost(id, error));
            }
        };
        if job.get("state").and_then(Value::as_str) != Some("running") {
            bar.clear();
            return ended(job);
        }
        bar.show(&job);
    }
}

impl Interrupted {
    /// Asks the job to end; the job as it then is.
    async fn end(self, client: &AdminClient, job_path: &str) -> Result<Value, ClientError> {
        match self {
            Self::Pauses => client.post(job_path, &json!({ "action": "pause" })).await,
            Self::Cancels => client.delete(job_path).await,
        }
    }

    /// The job cannot be followed any more: what becomes of it.
    fn lost(self, id: &str, error: ClientError) -> Failure {
        let ClientError::Unreachable(message) = error else {
            return error.into();
        };
        let hint = match self {
            Self::Pauses => format!(
                "job {id} is on record and goes on with the next replica that is up; the same command follows it"
            ),
            Self::Cancels => format!(
                "if that replica is gone, so is job {id}: `cutover status` tells; start again then"
            ),
        };
        Failure::Lost { message, hint }
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
    shown: bool,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, job: &Value) {
        self.write(&line(job));
    }

    pub(super) fn clear(&mut self) {
        self.write("");
    }

    pub(super) fn write(&mut self, text: &str) {
        // Wrapping is off meanwhile: a line that is too long for the terminal would not be written over.
        let drawing = format!("\r\u{1b}[K\u{1b}[?7l{text}\u{1b}[?7h");
        // A terminal that went away ends the drawing, not the job.
        self.shown = self.shown && io::stderr().write_all(drawing.as_bytes()).is_ok();
    }
}

/// `[=====>              ] 24 %  ads  1200 of 5000 rows  200 rows/s  ETA 19s`.
fn line(job: &Value) -> String {
    let rows = rows_of(job);
    let tables = items(job, "progress");
    let is = |table: &Value, state: &str| table.get("state").is_some_and(|one| one == state);
    if !tables.is_empty() && tables.iter().all(|table| is(table, "done")) {
        return format!(
            "{} 100 %  {rows} rows  waiting until the last are paid",
            drawn(1.0)
        );
    }
    let running = tables.iter().find(|table| is(table, "running"));
    let at = running.map_or("starting".to_owned(), |table| shown(table.get("table")));
    let share = total_of(job).filter(|total| *total > 0).map(|total| {
        let percent = rows * 100 / total;
        format!("{} {percent} %", drawn(rows as f64 / total as f64))
    });
    let parts: Vec<_> = share.into_iter().chain([at]).chain(pace(job)).collect();
    parts.join("  ")
}

fn rows_of(job: &Value) -> u64 {
    job.get("rows").and_then(Value::as_u64).unwrap_or(0)
}

/// How many rows there are in all; none where nobody knows.
fn total_of(job: &Value) -> Option<u64> {
    let total = job.get("total").and_then(Value::as_u64);
    total.filter(|total| *total >= rows_of(job))
}

/// How far a job is, how fast it goes and how long it takes: of these, what is known.
pub(super) fn pace(job: &Value) -> Vec<String> {
    let rows = rows_of(job);
    let mut parts = vec![match total_of(job).filter(|total| *total > 0) {
        Some(total) => format!("{rows} of {total} rows"),
        None => format!("{rows} rows"),
    }];
    if let Some(rate) = job.get("rows_per_second").and_then(Value::as_f64) {
        parts.push(format!("{rate:.0} rows/s"));
    }
    if let Some(left) = job.get("eta_seconds").and_then(Value::as_f64) {
        parts.push(format!(
            "ETA {}",
            time(Duration::from_secs_f64(left.clamp(0.0, 1e9)))
        ));
    }
    parts
}

/// A bar of which a share is full.
fn drawn(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a few cells"
    )]
    let full = (share.clamp(0.0, 1.0) * BAR_CELLS as f64) as usize;
    let tip = if full < BAR_CELLS { ">" } else { "" };
    let cells = format!("{}{tip}", "=".repeat(full));
    format!("[{cells:BAR_CELLS$}]")
}

/// `19s`, `2m 5s`, `3h 12m`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_line_tells_how_far_all_is_where_it_is_how_fast_and_how_long_it_takes() {
        let job = json!({
            "rows": 2000, "total": 5800, "rows_per_second": 200.0, "eta_seconds": 3725.0,
            "progress": [
                {"table": "campaigns", "state": "done", "rows": 800, "total": 800},
                {"table": "ads", "state": "running", "rows": 1200, "total": 5000},
            ],
        });
        assert_eq!(
            line(&job),
            "[======>             ] 34 %  ads  2000 of 5800 rows  200 rows/s  ETA 1h 2m"
        );
    }

    #[test]
    fn what_nobody_knows_is_left_out() {
        let unknown = json!({"rows": 5, "total": null, "rows_per_second": 5.0,
            "progress": [{"table": "ads", "state": "running"}, {"table": "more", "state": "waiting"}]});
        assert_eq!(line(&unknown), "ads  5 rows  5 rows/s");
        assert_eq!(line(&json!({})), "starting  0 rows");
    }

    #[test]
    fn a_backfill_whose_rows_are_all_owed_waits_until_they_are_paid() {
        let owed =
            json!({"rows": 10, "total": 10, "progress": [{"table": "ads", "state": "done"}]});
        assert_eq!(
            line(&owed),
            "[====================] 100 %  10 rows  waiting until the last are paid"
        );
    }

    #[test]
    fn times_are_short() {
        let shown = |seconds| time(Duration::from_secs(seconds));
        assert_eq!(
            [shown(19), shown(125), shown(11_520)],
            ["19s", "2m 5s", "3h 12m"]
        );
    }
}
