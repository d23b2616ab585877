//! One send of one query, and the time until which it may count.
//!
//! The deadline is absolute and comes from whoever stamped it (rule P1): the same instant ends the wait here,
//! the message's life in a queue, and the service's right to commit.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::contract::{AttemptId, Epoch, Key, Query};

/// An instant: Unix time in milliseconds, as it goes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnixMs(pub i64);

/// One send.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// What to do.
    pub query: Query,
    /// Names this send; fresh for every one.
    pub attempt: AttemptId,
    /// When it is over: for the caller here, and for the service at its commit.
    pub deadline: UnixMs,
    /// The epoch it was decided under.
    pub epoch: Epoch,
    /// The W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// Fence tokens by key; sent only to a service that fences.
    pub fences: Vec<(Key, i64)>,
}

impl UnixMs {
    /// This instant, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(crate::clock::unix_ms())
    }

    /// `wait` from now.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        Self(Self::now().0.saturating_add(ms))
    }

    /// How long until then; zero when it is over.
    #[must_use]
    pub fn remaining(self) -> Duration {
        let ms = self.0.saturating_sub(Self::now().0);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

impl Call {
    /// A call without trace or fences, as a fresh attempt.
    #[must_use]
    pub fn new(query: Query, deadline: UnixMs, epoch: Epoch) -> Self {
        Self {
            query,
            attempt: AttemptId::fresh(),
            deadline,
            epoch,
            traceparent: None,
            fences: Vec::new(),
        }
    }

    /// The fences as the text of a JSON object, if there are any; ASCII, so that any header can hold it.
    pub(super) fn fences_text(&self) -> Option<String> {
        if self.fences.is_empty() {
            return None;
        }
        let fences = self.fences.iter();
        let fences: Map<_, _> = fences
            .map(|(key, token)| (key.0.clone(), Value::from(*token)))
            .collect();
        Some(ascii(&Value::Object(fences).to_string()))
    }
}

/// JSON text with everything beyond ASCII escaped. Such characters occur in JSON only inside strings.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            if write!(text, "\\u{unit:04x}").is_err() {
                // A String always takes text.
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Select;

    #[test]
    fn fences_are_ascii_and_read_back_as_the_same_keys() {
        let mut call = Call::new(Query::Select(Select::default()), UnixMs(0), Epoch(1));
        assert_eq!(call.fences_text(), None);
        let key = Key(r#"["Zoë 🦀"]"#.to_owned());
        call.fences = vec![(key.clone(), 7)];
        let text = call.fences_text().unwrap();
        assert!(text.is_ascii());
        let back: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(back[&key.0], Value::from(7));
    }

    #[test]
    fn what_is_over_has_no_time_left() {
        assert_eq!(UnixMs(1).remaining(), Duration::ZERO);
        assert!(UnixMs::after(Duration::from_secs(5)).remaining() > Duration::from_secs(4));
    }
}
