//! Output for people: aligned tables, a little colour on a terminal. Scripts ask for `--json`.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use super::Failure;

/// How something should strike the eye.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mood {
    /// All is well.
    Good,
    /// Look here.
    Bad,
    /// A heading.
    Strong,
}

/// Writes a line (or lines) to standard output. A reader that went away (`| head`) is not an error.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Refused {
            message: format!("cannot write: {error}"),
            hint: None,
        }),
        _ => Ok(()),
    }
}

/// Writes a value as indented JSON.
pub(super) fn say_json(value: &Value) -> Result<(), Failure> {
    say(&format!("{value:#}"))
}

/// The text in colour, where colour is wanted.
pub(super) fn paint(text: &str, mood: Mood) -> String {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if no_color || !io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match mood {
        Mood::Good => "32",
        Mood::Bad => "31",
        Mood::Strong => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A table of some members of each item. Control characters are left out: what is shown must not steer a terminal.
pub(super) fn table(columns: &[&str], items: &[Value]) -> String {
    let mut rows = vec![
        columns
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    ];
    for item in items {
        let cells = columns.iter().map(|name| shown(item.get(name)));
        rows.push(cells.collect());
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// That a list does not show all there is, where that is so.
pub(super) fn say_more(shown: usize, all: Option<&Value>, which: &str) -> Result<(), Failure> {
    match all.and_then(Value::as_u64) {
        Some(all) if all > shown as u64 => say(&format!("{shown} are shown; {all} are {which}")),
        Some(_) | None => Ok(()),
    }
}

/// A value in a cell; `-` for none.
pub(super) fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    plain(&text)
}

/// Text that does not steer a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The list in an answer: the answer itself, or its member of that name.
pub(super) fn items<'a>(answer: &'a Value, member: &str) -> &'a [Value] {
    answer
        .as_array()
        .or_else(|| answer.get(member)?.as_array())
        .map_or(&[], Vec::as_slice)
}

/// A line for each blocker of a list, or of the object that has one: code and what to do, or plain text.
pub(super) fn blockers(readiness: Option<&Value>) -> Vec<String> {
    let line = |blocker: &Value| match blocker.get("code") {
        Some(code) => format!("{}: {}", shown(Some(code)), shown(blocker.get("message"))),
        None => shown(Some(blocker)),
    };
    let blockers = readiness.map_or(&[][..], |list| items(list, "blockers"));
    blockers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_nothing_steers_the_terminal() {
        let items = [json!({"id": 1, "why": "a\u{1b}[31mb"}), json!({"id": 100})];
        assert_eq!(
            table(&["id", "why"], &items),
            "id   why\n1    a[31mb\n100  -"
        );
    }
}
