//! The rules of the house that no lint can check.
//!
//! Each test gathers every offence before it fails, so that one run shows them all.

use crate::house::{Source, files, relative};

/// Few files are long, and none is longer than this.
const FILE_LINES_MAX: usize = 500;
const LONG_FILE_LINES: usize = 400;
const LONG_FILES_MAX: usize = 3;
const FUNCTION_LINES_MAX: usize = 70;

/// A module may name modules of lower layers and itself, nothing else.
const LAYERS: [(u8, &[&str]); 10] = [
    (0, &["clock", "contract", "stage", "tls"]),
    (1, &["schema", "hub", "server"]),
    (2, &["compare", "sql"]),
    (3, &["telemetry"]),
    (
        4,
        &["divergence", "evidence", "guard", "journal", "storage"],
    ),
    (5, &["legacy", "control", "observe", "config", "drift"]),
    (
        6,
        &[
            "shadow",
            "repository",
            "applier",
            "walk",
            "backfill",
            "verify",
            "events",
        ],
    ),
    (7, &["drill", "jobs", "reference", "sentinel"]),
    (8, &["front", "admin"]),
    (9, &["app", "cli", "main"]),
];

/// Imports that the layers do not give, each for a reason: who, whom, why.
const EXCEPTIONS: [(&str, &str, &str); 11] = [
    (
        "repository",
        "shadow",
        "answers are handed to the comparer, which knows nothing of requests",
    ),
    (
        "applier",
        "repository",
        "both are built from the same parts",
    ),
    (
        "applier",
        "shadow",
        "a payment that stored another row is a suspect",
    ),
    (
        "applier",
        "backfill",
        "a refusal is not final while tables are yet to be filled",
    ),
    ("walk", "repository", "a walk is given the same parts"),
    (
        "walk",
        "shadow",
        "what differs is checked as the comparer does",
    ),
    ("backfill", "walk", "a backfill is a walk"),
    ("backfill", "repository", "it is given the same parts"),
    ("verify", "walk", "a verify is a walk"),
    (
        "verify",
        "shadow",
        "what differs is checked as the comparer does",
    ),
    ("verify", "repository", "it is given the same parts"),
];

/// What only one module may mention.
const OWNED: [(&str, &str); 5] = [
    ("sqlx::", "sql"),
    ("lapin::", "hub"),
    ("hyper::server", "server"),
    ("hyper_util::server", "server"),
    ("axum::serve", "server"),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 10] = [
    "util", "utils", "helper", "helpers", "common", "misc", "types", "manager", "managers",
    "shared",
];

#[test]
fn every_file_says_what_it_owns() {
    let silent = all_sources().filter(|source| !source.text.starts_with("//!"));
    none(silent.map(|source| source.path));
}

#[test]
fn files_stay_short() {
    let mut long: Vec<(usize, String)> = all_sources()
        .map(|source| (source.lines_before_tests(), source.path))
        .filter(|(lines, _)| *lines > LONG_FILE_LINES)
        .collect();
    long.sort();
    let too_many = long.len().saturating_sub(LONG_FILES_MAX);
    let offences = long
        .iter()
        .enumerate()
        .filter(|(place, (lines, _))| *place < too_many || *lines > FILE_LINES_MAX);
    none(offences.map(|(_, (lines, path))| format!("{path}: {lines} lines")));
}

#[test]
fn functions_fit_a_screen() {
    let long = all_sources().flat_map(|source| {
        let functions = source.functions().into_iter();
        let long = functions.filter(|(_, _, length)| *length > FUNCTION_LINES_MAX);
        let describe = |(name, line, length)| format!("{}:{line}: {name}: {length}", source.path);
        long.map(describe).collect::<Vec<_>>()
    });
    none(long);
}

#[test]
fn modules_import_from_lower_layers_only() {
    let mut offences = Vec::new();
    for source in Source::below("src") {
        let module = source.module();
        // What a test sets up may come from anywhere.
        if module == "lib" || source.path.contains("/tests") {
            continue;
        }
        let Some(own) = layer(module) else {
            offences.push(format!("{}: {module} is in no layer", source.path));
            continue;
        };
        for import in source.imports() {
            let lower = layer(&import).is_some_and(|other| other < own);
            let excepted = EXCEPTIONS
                .iter()
                .any(|(who, whom, _)| *who == module && *whom == import);
            if import != module && !lower && !excepted {
                offences.push(format!("{}: imports crate::{import}", source.path));
            }
        }
    }
    none(offences);
}

#[test]
fn a_library_is_mentioned_by_its_owner_only() {
    let mut offences = Vec::new();
    for source in Source::below("src") {
        for (mention, owner) in OWNED {
            let tests = source.path.contains("/tests");
            if source.module() != owner && !tests && source.code.contains(mention) {
                offences.push(format!("{}: {mention}", source.path));
            }
        }
    }
    none(offences);
}

#[test]
fn names_are_the_domains_words() {
    let empty = all_sources().filter(|source| {
        let path = source.path.trim_end_matches(".rs");
        path.split('/').any(|part| EMPTY_NAMES.contains(&part))
    });
    none(empty.map(|source| source.path));
}

#[test]
fn nothing_is_left_to_be_done() {
    let left_overs = ["dbg!(", "todo!(", "unimplemented!("];
    let unfinished = all_sources().filter(|source| {
        left_overs
            .iter()
            .any(|left_over| source.code.contains(left_over))
    });
    none(unfinished.map(|source| source.path));
}

#[test]
fn every_metric_of_the_dashboards_exists() {
    let telemetry = Source::below("src")
        .into_iter()
        .filter(|source| source.module() == "telemetry");
    let exported: String = telemetry.map(|source| source.text).collect();
    let mut unknown = Vec::new();
    for path in [files("dashboards", "json"), files("dashboards", "yml")].concat() {
        let text = std::fs::read_to_string(&path).expect("dashboards are text");
        for metric in metrics(&text) {
            // A histogram is exported under its name and asked for by its parts.
            let parts = ["", "_bucket", "_sum", "_count"];
            let mut names = parts.iter().filter_map(|part| metric.strip_suffix(part));
            let known = names.any(|name| exported.contains(&format!("\"{name}\"")));
            if !known {
                unknown.push(format!("{}: {metric}", relative(&path)));
            }
        }
    }
    unknown.dedup();
    none(unknown);
}

fn all_sources() -> impl Iterator<Item = Source> {
    Source::below("src")
        .into_iter()
        .chain(Source::below("tests"))
}

fn layer(module: &str) -> Option<u8> {
    let row = LAYERS.iter().find(|(_, modules)| modules.contains(&module));
    row.map(|(layer, _)| *layer)
}

/// The metric names in a text; names of recording rules have colons and are no metrics.
fn metrics(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("cutover_") && !word.contains(':'))
}

fn none(offences: impl IntoIterator<Item = String>) {
    let offences: Vec<String> = offences.into_iter().collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}
