//! The log: text on a terminal, JSON otherwise, its level changeable while the proxy runs.
//!
//! The subscriber is installed once per process, by `init`; a reload goes through the `LogControl` it returns.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use serde::{Deserialize, Serialize};

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

/// Why the log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a filter.
    #[error("log.level {0:?} is not a filter such as \"info\" or \"info,cutover::applier=debug\"")]
    Level(String),
    /// This process has a log already, or no longer has one.
    #[error("the log cannot be installed: {0}")]
    Installed(String),
}

/// Installs the log, on standard error. The variable `RUST_LOG`, when it is set, wins over `log.level` until the
/// first reload.
///
/// # Errors
/// See [`LogError`].
pub fn init(level: &str, format: LogFormat) -> Result<LogControl, LogError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(variable) if !variable.is_empty() => parse(&variable)?,
        _ => parse(level)?,
    };
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        lines.with_ansi(colours).boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| LogError::Installed(error.to_string()))?;
    Ok(LogControl(handle))
}

impl LogControl {
    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// See [`LogError`]; the old filter stays.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = parse(level)?;
        self.0
            .reload(filter)
            .map_err(|error| LogError::Installed(error.to_string()))
    }
}

/// lapin logs returned messages with their bodies there, and a body holds rows.
const NEVER_LOGGED: &str = "lapin::returned_messages=off";
/// What it says else, of every channel that ends, also one that we end: `hub` tells of the broker what matters.
const LOGGED_WHEN_ASKED: &str = "lapin=off";

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    let not_a_filter = || LogError::Level(level.to_owned());
    let mut filter = EnvFilter::try_new(level).map_err(|_| not_a_filter())?;
    let asked = level.contains("lapin");
    let unless_asked = (!asked).then_some(LOGGED_WHEN_ASKED);
    for quiet in unless_asked.into_iter().chain([NEVER_LOGGED]) {
        filter = filter.add_directive(quiet.parse().map_err(|_| not_a_filter())?);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_filter() {
        assert!(parse("info,cutover::applier=debug").is_ok());
        assert!(matches!(parse("cutover=loud"), Err(LogError::Level(_))));
    }

    #[test]
    fn what_lapin_says_is_logged_when_it_is_asked_for() {
        let quiet = parse("info").unwrap().to_string();
        assert!(quiet.contains(LOGGED_WHEN_ASKED), "{quiet}");
        let asked = parse("info,lapin=debug").unwrap().to_string();
        assert!(!asked.contains(LOGGED_WHEN_ASKED), "{asked}");
    }

    #[test]
    fn bodies_of_messages_are_never_logged() {
        for level in ["trace", "lapin=trace", "lapin::returned_messages=warn"] {
            let filter = parse(level).unwrap().to_string();
            assert!(filter.contains(NEVER_LOGGED), "{filter}");
        }
    }
}
