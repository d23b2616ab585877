//! Answering nothing.

/// Put into a response's extensions, it makes the server close the connection without answering: how the
/// reference service loses a reply on demand.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("closed without an answer, as asked")]
pub struct Hangup;
