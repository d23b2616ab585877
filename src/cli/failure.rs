//! Why a command ends without having done what it was asked, and the exit code that says so.

use std::process::ExitCode;

use super::ClientError;

/// A command's failure: one line for people, one hint, one exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The proxy refused, or there is something to look at (exit code 1).
    #[error("{message}")]
    Refused {
        /// What happened.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Wrong usage or configuration (exit code 2).
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The proxy was not reached, or did not speak as expected (exit code 3).
    #[error("{0}")]
    Unreachable(String),
    /// The proxy went out of sight while it was at work, or does not see storage (exit code 3).
    #[error("{message}")]
    Lost {
        /// What happened.
        message: String,
        /// What becomes of the work, or what to look at.
        hint: String,
    },
}

impl Failure {
    /// Says it on standard error.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        let hint = match self {
            Self::Refused { hint, .. } | Self::Usage { hint, .. } => hint.as_deref(),
            Self::Lost { hint, .. } => Some(&**hint),
            Self::Unreachable(_) => {
                Some("is it running? name its admin plane by --admin URL or CUTOVER_ADMIN")
            }
        };
        if let Some(hint) = hint {
            eprintln!("  hint: {hint}");
        }
        ExitCode::from(self.code())
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Usage { .. } => 2,
            Self::Unreachable(_) | Self::Lost { .. } => 3,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Address(message) => Self::Usage {
                message,
                hint: Some("give --admin http://HOST:PORT".to_owned()),
            },
            ClientError::Unreachable(message) => Self::Unreachable(message),
            ClientError::Refused {
                code,
                message,
                blockers,
            } => {
                let lines = blockers.iter().map(|one| format!("\n  - {one}"));
                Self::Refused {
                    hint: hint_for(&code).map(str::to_owned),
                    message: format!("{code}: {message}{}", lines.collect::<String>()),
                }
            }
        }
    }
}

fn hint_for(code: &str) -> Option<&'static str> {
    match code {
        "unauthorized" => Some("set CUTOVER_TOKEN, or run where data/operator.token is"),
        "forbidden" => Some("this needs a token with role operator"),
        "precondition_failed" => {
            Some("look at `cutover status`: it names what blocks, and the epoch")
        }
        _ => None,
    }
}
