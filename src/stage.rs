//! The six stages, and which moves between them exist.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which of the two databases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The existing database.
    Legacy,
    /// The storage service.
    Storage,
}

/// How far the migration is. Ordered: later stages are greater.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Legacy alone.
    Off,
    /// Legacy answers; every write is owed to storage.
    DualWrite,
    /// The same, and reads are repeated on storage and compared.
    Shadow,
    /// Storage answers; every write is in both before it is acknowledged.
    Live,
    /// Storage answers; legacy is paid as well as it can be.
    RampDown,
    /// Storage alone.
    Complete,
}

impl Backend {
    /// As it is spelled in labels and headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Storage => "storage",
        }
    }

    /// The one that this one is held against.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Legacy => Self::Storage,
            Self::Storage => Self::Legacy,
        }
    }
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] = [
        Self::Off,
        Self::DualWrite,
        Self::Shadow,
        Self::Live,
        Self::RampDown,
        Self::Complete,
    ];

    /// As it is spelled everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DualWrite => "dual_write",
            Self::Shadow => "shadow",
            Self::Live => "live",
            Self::RampDown => "ramp_down",
            Self::Complete => "complete",
        }
    }

    /// The backend whose commit is the truth and whose rows answer callers.
    #[must_use]
    pub fn authority(self) -> Backend {
        match self {
            Self::Off | Self::DualWrite | Self::Shadow => Backend::Legacy,
            Self::Live | Self::RampDown | Self::Complete => Backend::Storage,
        }
    }

    /// The next stage forward, if there is one. Only neighbours are reached forward.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage > self)
    }

    /// Which backend's debts the journal holds in this stage, if any.
    #[must_use]
    pub fn owes(self) -> Option<Backend> {
        match self {
            Self::DualWrite | Self::Shadow => Some(Backend::Storage),
            Self::Live | Self::RampDown => Some(Backend::Legacy),
            Self::Off | Self::Complete => None,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not a stage.
#[derive(Debug, thiserror::Error)]
#[error("no such stage; stages are off, dual_write, shadow, live, ramp_down, complete")]
pub struct UnknownStage;

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.as_str() == text)
            .ok_or(UnknownStage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_neighbour_is_next() {
        assert_eq!(Stage::Off.next(), Some(Stage::DualWrite));
        assert_eq!(Stage::Shadow.next(), Some(Stage::Live));
        assert_eq!(Stage::Complete.next(), None);
    }

    #[test]
    fn every_stage_is_read_as_it_is_written() {
        for stage in Stage::ALL {
            assert_eq!(stage.as_str().parse::<Stage>().unwrap(), stage);
        }
    }
}
