//! What is wrong with a configuration, told so that it can be mended.

use std::fmt;

/// Everything that is wrong with one configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// At least one, in the file's order.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, naming the key.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// Nowhere: the value is missing.
    File,
    /// An environment variable.
    Variable(String),
}

/// A broken rule, before it is known where the key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    /// The key's path: `flip.max_pause`, `tables.0.name`.
    pub(super) key: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl ConfigError {
    pub(super) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Self {
            file: file.to_owned(),
            problems,
        }
    }

    pub(super) fn unreadable(file: String, error: &std::io::Error) -> Self {
        Self {
            file,
            problems: vec![Problem {
                place: Place::File,
                message: format!("cannot be read: {error}"),
                hint: Some(
                    "give the path of a TOML file; without one the embedded default runs"
                        .to_owned(),
                ),
            }],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match &problem.place {
                Place::Line(line) => write!(f, "{}:{line}: ", self.file)?,
                Place::File => write!(f, "{}: ", self.file)?,
                Place::Variable(name) => write!(f, "{name}: ")?,
            }
            f.write_str(&problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
