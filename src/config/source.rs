//! The configuration as a tree that remembers where each value was written.
//!
//! Environment variables are laid over the file's tree before anything is read from it, so that a value is
//! checked the same way wherever it comes from. Values of variables get positions past the end of the file;
//! that is how an error knows to name the variable and not a line.

use std::ops::Range;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::problem::{Finding, Place, Problem};
use super::raw::Raw;

/// `CUTOVER_LEGACY__URL` is `legacy.url`.
const PREFIX: &str = "CUTOVER_";

/// The two top-level keys that have no section, hence no `__` to tell their variables from others.
const BARE: [&str; 2] = ["CUTOVER_DB", "CUTOVER_TABLES"];

/// The file and the variables, merged.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    /// The variables that were used; number `n` has position `text.len() + 1 + n`.
    variables: Vec<&'a str>,
    tree: Spanned<DeTable<'a>>,
}

impl<'a> Source<'a> {
    /// Reads the file's text and lays the variables over it.
    pub(super) fn parse(
        text: &'a str,
        environment: &'a [(String, String)],
    ) -> Result<Self, Problem> {
        let tree = DeTable::parse(text).map_err(|error| Problem {
            place: place_in(text, error.span()),
            message: error.message().to_owned(),
            hint: None,
        })?;
        let mut source = Self {
            text,
            variables: Vec::new(),
            tree,
        };
        for (name, value) in environment {
            if is_override(name) {
                source.lay_over(name, value)?;
            }
        }
        Ok(source)
    }

    /// The tree as raw structs.
    pub(super) fn to_raw(&self) -> Result<Raw, Problem> {
        Raw::deserialize(Deserializer::from(self.tree.clone())).map_err(|error| Problem {
            place: self.place(error.span()),
            message: error.to_string().trim_end().replace('\n', " "),
            hint: None,
        })
    }

    /// Says where the key of a finding is written, or the nearest section around it.
    pub(super) fn locate(&self, finding: Finding) -> Problem {
        let mut table = Some(self.tree.get_ref());
        let mut items: Option<&[Spanned<DeValue<'_>>]> = None;
        let mut span = None;
        for part in finding.key.split('.') {
            let value = match (table, items) {
                (Some(table), _) => table.get(part),
                (None, Some(items)) => part.parse().ok().and_then(|at: usize| items.get(at)),
                (None, None) => None,
            };
            let Some(value) = value else { break };
            span = Some(value.span());
            table = value.get_ref().as_table();
            items = value.get_ref().as_array().map(AsRef::as_ref);
        }
        Problem {
            place: self.place(span),
            message: format!("{}: {}", finding.key, finding.message),
            hint: finding.hint,
        }
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let variable = span
            .as_ref()
            .and_then(|span| span.start.checked_sub(self.text.len() + 1))
            .and_then(|index| self.variables.get(index));
        match variable {
            Some(name) => Place::Variable((*name).to_owned()),
            None => place_in(self.text, span),
        }
    }

    fn lay_over(&mut self, name: &'a str, value: &'a str) -> Result<(), Problem> {
        let at = self.text.len() + 1 + self.variables.len();
        let span = at..at;
        self.variables.push(name);
        let path = name[PREFIX.len()..].to_ascii_lowercase();
        let mut parts: Vec<&str> = path.split("__").collect();
        let last = parts.pop().unwrap_or_default();
        let mut table = self.tree.get_mut();
        for part in parts {
            let key = Spanned::new(span.clone(), part.to_owned().into());
            let section = table
                .entry(key)
                .or_insert_with(|| Spanned::new(span.clone(), DeValue::Table(DeTable::default())));
            let DeValue::Table(inner) = section.get_mut() else {
                return Err(Problem {
                    place: Place::Variable(name.to_owned()),
                    message: format!("{part} is a value, not a section"),
                    hint: Some("the variable of section.key is CUTOVER_SECTION__KEY".to_owned()),
                });
            };
            table = inner;
        }
        let key = Spanned::new(span.clone(), last.to_owned().into());
        table.remove(last);
        table.insert(key, moved_to(&span, parse_value(value)));
        Ok(())
    }
}

fn is_override(name: &str) -> bool {
    BARE.contains(&name) || (name.starts_with(PREFIX) && name.contains("__"))
}

/// A variable's text is TOML where it is a number, a boolean, a list, a table or quoted; else it is a string.
fn parse_value(text: &str) -> DeValue<'_> {
    match DeValue::parse(text).map(Spanned::into_inner) {
        Ok(DeValue::Datetime(_)) | Err(_) => DeValue::String(text.into()),
        Ok(value) => value,
    }
}

/// The same value with every position in it replaced.
fn moved_to<'a>(span: &Range<usize>, value: DeValue<'a>) -> Spanned<DeValue<'a>> {
    let value = match value {
        DeValue::Array(items) => DeValue::Array(
            items
                .into_iter()
                .map(|item| moved_to(span, item.into_inner()))
                .collect(),
        ),
        DeValue::Table(entries) => DeValue::Table(
            entries
                .into_iter()
                .map(|(key, value)| {
                    (
                        Spanned::new(span.clone(), key.into_inner()),
                        moved_to(span, value.into_inner()),
                    )
                })
                .collect(),
        ),
        scalar => scalar,
    };
    Spanned::new(span.clone(), value)
}

fn place_in(text: &str, span: Option<Range<usize>>) -> Place {
    match span.and_then(|span| text.as_bytes().get(..span.start)) {
        Some(before) => Place::Line(1 + before.iter().filter(|byte| **byte == b'\n').count()),
        None => Place::File,
    }
}
