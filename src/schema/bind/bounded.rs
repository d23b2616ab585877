//! Whether a condition can match every row, judged by its structure.
//!
//! It guards against accidents (a filter that came out empty), not against malice, so it errs towards
//! asking for `"all": true`: what matches everything, whatever the rows hold, must be found; that a
//! condition happens to match all rows of today cannot be.

use serde_json::Value;

use crate::contract::Operator;
use crate::schema::{Filter, Table, Test};

/// What a part may come to, whatever the rows hold. Neither is the usual case.
#[derive(Clone, Copy)]
struct Coverage {
    everything: bool,
    nothing: bool,
}

const SOME: Coverage = Coverage {
    everything: false,
    nothing: false,
};

/// Whether the filter may match every row.
pub(super) fn may_match_everything(filter: &Filter, table: &Table) -> bool {
    coverage(filter, table).everything
}

fn coverage(filter: &Filter, table: &Table) -> Coverage {
    match filter {
        Filter::All(parts) => {
            let covers = parts.iter().map(|part| coverage(part, table));
            let covers: Vec<Coverage> = covers.collect();
            Coverage {
                everything: covers.iter().all(|cover| cover.everything),
                nothing: covers.iter().any(|cover| cover.nothing) || has_opposites(parts),
            }
        }
        // It matches nothing, but whoever built it from a list may have meant no restriction.
        Filter::Any(parts) if parts.is_empty() => Coverage {
            everything: true,
            nothing: true,
        },
        Filter::Any(parts) => {
            let covers = parts.iter().map(|part| coverage(part, table));
            let covers: Vec<Coverage> = covers.collect();
            Coverage {
                everything: covers.iter().any(|cover| cover.everything) || has_opposites(parts),
                nothing: covers.iter().all(|cover| cover.nothing),
            }
        }
        Filter::Not(part) => {
            let cover = coverage(part, table);
            Coverage {
                everything: cover.nothing,
                nothing: cover.everything,
            }
        }
        Filter::Test(test) => test_coverage(test, table),
        Filter::Keys(keys) => Coverage {
            everything: false,
            nothing: keys.is_empty(),
        },
        Filter::After(_) => SOME,
    }
}

fn test_coverage(test: &Test, table: &Table) -> Coverage {
    let never_null = !table.columns[test.column].nullable || table.key.contains(&test.column);
    match (test.operator, &test.value) {
        (Operator::In, Value::Array(values)) => Coverage {
            everything: false,
            nothing: values.is_empty(),
        },
        (Operator::IsNull, Value::Bool(is_null)) => Coverage {
            everything: never_null && !is_null,
            nothing: never_null && *is_null,
        },
        (Operator::Like, Value::String(pattern)) => Coverage {
            everything: !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'%'),
            nothing: false,
        },
        _ => SOME,
    }
}

/// Whether one part is the opposite of another (NULLs aside).
fn has_opposites(parts: &[Filter]) -> bool {
    let pairs = parts
        .iter()
        .enumerate()
        .flat_map(|(index, part)| parts[..index].iter().map(move |other| (part, other)));
    pairs
        .into_iter()
        .any(|(part, other)| are_opposites(part, other))
}

fn are_opposites(part: &Filter, other: &Filter) -> bool {
    match (part, other) {
        (Filter::Not(inner), _) if **inner == *other => true,
        (_, Filter::Not(inner)) if **inner == *part => true,
        (Filter::Test(a), Filter::Test(b)) if a.column == b.column => {
            match (a.operator, b.operator) {
                (Operator::IsNull, Operator::IsNull) => a.value != b.value,
                (Operator::Eq, Operator::Ne)
                | (Operator::Ne, Operator::Eq)
                | (Operator::Lt, Operator::Gte)
                | (Operator::Gte, Operator::Lt)
                | (Operator::Gt, Operator::Lte)
                | (Operator::Lte, Operator::Gt) => a.value == b.value,
                _ => false,
            }
        }
        _ => false,
    }
}
