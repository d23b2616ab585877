//! Reads the repository's own source for the house rules.
//!
//! No parser: `rustfmt` has been over every file, so that a scan which knows comments, strings and braces
//! finds what the rules ask about.

use std::path::{Path, PathBuf};

/// One Rust file.
pub(crate) struct Source {
    /// Its path from the repository's folder.
    pub(crate) path: String,
    /// As it is written.
    pub(crate) text: String,
    /// The same, line for line, with comments and what is inside quotes blanked out.
    pub(crate) code: String,
}

/// Every file below a folder of the repository whose name ends so.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The path from the repository's folder.
pub(crate) fn relative(path: &Path) -> String {
    let path = path
        .strip_prefix(env!("CARGO_MANIFEST_DIR"))
        .unwrap_or(path);
    path.display().to_string()
}

impl Source {
    /// Every Rust file below a folder of the repository.
    pub(crate) fn below(folder: &str) -> Vec<Self> {
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).expect("source is text");
            let code = blank(&text);
            let path = relative(&path);
            Self { path, text, code }
        };
        files(folder, "rs").into_iter().map(read).collect()
    }

    /// The top-level module it belongs to: the folder below `src`, or the file's own name.
    pub(crate) fn module(&self) -> &str {
        let path = self.path.trim_start_matches("src/");
        path.split('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".rs")
    }

    /// How many lines come before the unit tests; none in a file that is unit tests only.
    pub(crate) fn lines_before_tests(&self) -> usize {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return 0;
        }
        let tests = self.code.lines().position(|line| line == "#[cfg(test)]");
        tests.unwrap_or_else(|| self.code.lines().count())
    }

    /// The modules of this crate that it names, whether by `use` or in the middle of the code.
    pub(crate) fn imports(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            // `$crate::` in a macro is ours as well, `another_crate::` is not.
            if before.is_some_and(is_word) {
                continue;
            }
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(first_words(group)),
                None => found.push(word(rest)),
            }
        }
        found.retain(|name| !name.is_empty());
        found
    }

    /// Name, line and length in lines of every function with a body.
    pub(crate) fn functions(&self) -> Vec<(String, usize, usize)> {
        let starts = self.code.match_indices("fn ").filter(|(at, _)| {
            let before = self.code[..*at].chars().next_back();
            !before.is_some_and(is_word)
        });
        starts
            .filter_map(|(at, _)| {
                let name = word(&self.code[at + "fn ".len()..]);
                // `fn(…)` is a type, and so is `Fn`.
                let length = (!name.is_empty()).then(|| body_lines(&self.code[at..]))??;
                let line = self.code[..at].matches('\n').count() + 1;
                Some((name, line, length))
            })
            .collect()
    }
}

/// The lines from a function's name to its closing brace; none when it has no body.
fn body_lines(from_name: &str) -> Option<usize> {
    let mut brackets = 0_usize;
    let mut braces = 0_usize;
    for (at, character) in from_name.char_indices() {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(from_name[..at].matches('\n').count() + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The first word of each entry of `a::{…}, b, c::d}`, up to the brace that closes the group.
fn first_words(group: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut entry = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entry = true,
            _ if entry && is_word(character) => {
                found.push(word(&group[at..]));
                entry = false;
            }
            _ => {}
        }
    }
    found
}

/// The text with comments, strings and character literals blanked, line for line.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(character) = rest.chars().next() {
        let quoted = match character {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_length(rest),
            'r' if !after_word => raw_string_length(rest),
            '\'' => character_length(rest),
            _ => 0,
        };
        let taken = quoted.max(character.len_utf8());
        let kept = |c: char| if quoted > 0 && c != '\n' { ' ' } else { c };
        code.extend(rest[..taken].chars().map(kept));
        // `br"…"` is raw too, the `r` of `for` begins nothing.
        after_word = is_word(character) && (after_word || character != 'b');
        rest = &rest[taken..];
    }
    code
}

/// The length of the string literal that begins here.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"…"` or `r#"…"#`; 0 when it is only a word.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    let closing = text[body..].find(&end);
    closing.map_or(text.len(), |at| body + at + end.len())
}

/// The length of a character literal; 0 when the quote begins a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            let after_escape = characters.nth(1);
            let closing = after_escape.and_then(|(at, _)| Some(at + text[at..].find('\'')? + 1));
            // `'\''` closes at once.
            if text.starts_with(r"'\''") {
                4
            } else {
                closing.unwrap_or(0)
            }
        }
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| is_word(*c)).collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[test]
fn comments_and_quotes_are_no_code() {
    let text = "a // use crate::x\n\"crate::\\\"{\" /* { */ r#\"\"}\"# '{' '\\'' '\\u{7b}' &'a b";
    let code = blank(text);
    assert_eq!(code.lines().count(), 2);
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "&'a", "b"]);
}

#[test]
fn imports_are_found_alone_in_groups_and_in_code() {
    let source = Source {
        path: "src/front/http.rs".to_owned(),
        text: String::new(),
        code: blank("use crate::{a::{b, c}, d};\nuse crate::e;\nlet x = crate::f::g(my_crate::h);"),
    };
    assert_eq!(source.module(), "front");
    assert_eq!(source.imports(), ["a", "d", "e", "f"]);
}

#[test]
fn a_function_is_as_long_as_from_its_name_to_its_brace() {
    let text = "trait T {\n    fn none(a: [u8; 4]);\n}\nfn one() {}\nasync fn three(\n    f: fn(u8) -> u8,\n) {\n}\n";
    let source = Source {
        path: "src/clock.rs".to_owned(),
        text: String::new(),
        code: blank(text),
    };
    let expected = [("one".to_owned(), 4, 1), ("three".to_owned(), 5, 4)];
    assert_eq!(source.functions(), expected);
}
