//! W3C trace context, as far as a proxy needs it: read the caller's, pass on a child.
//!
//! <https://www.w3.org/TR/trace-context/>, version 00. Nothing is exported from here: the ids join the log lines
//! of the caller, this proxy and the storage service.

use std::fmt;

use uuid::Uuid;

/// A `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    sampled: bool,
}

impl TraceParent {
    /// Reads the header. One that is not well-formed is as good as none: the specification says to start anew.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id) = (parts.next()?, parts.next()?);
        let (parent_id, flags) = (parts.next()?, parts.next()?);
        // Version 00 ends here; a later one may go on.
        let ends = parts.next().is_none();
        if version == "ff" || (version == "00" && !ends) {
            return None;
        }
        hex(version, 2)?;
        let trace_id = hex(trace_id, 32).filter(|id| *id != 0)?;
        let parent_id = hex(parent_id, 16).filter(|id| *id != 0)?;
        Some(Self {
            trace_id,
            parent_id: u64::try_from(parent_id).ok()?,
            sampled: hex(flags, 2)? & 1 == 1,
        })
    }

    /// A new trace, for a caller that sent none.
    #[must_use]
    pub fn fresh() -> Self {
        Self {
            trace_id: Uuid::new_v4().as_u128(),
            parent_id: span_id(),
            sampled: false,
        }
    }

    /// The same trace with a new span: what goes to the next service.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            parent_id: span_id(),
            ..self
        }
    }

    /// The id that all spans of the trace share, in hexadecimal.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.parent_id
        )
    }
}

/// The last eight bytes of a random UUID, whose variant bits are never all zero.
fn span_id() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

/// Exactly `length` lower-case hexadecimal digits.
fn hex(text: &str, length: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != length || !text.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written() {
        assert_eq!(TraceParent::parse(EXAMPLE).unwrap().to_string(), EXAMPLE);
        let fresh = TraceParent::fresh();
        assert_eq!(TraceParent::parse(&fresh.to_string()), Some(fresh));
    }

    #[test]
    fn a_child_keeps_the_trace_and_changes_the_span() {
        let parent = TraceParent::parse(EXAMPLE).unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(child.to_string(), EXAMPLE);
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(TraceParent::parse(later).is_some());
    }
}
