//! Whether two values of one column are the same value.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::schema::{Kind, decimal};

/// Whether two values of a column of this kind are equal, however they are spelled. NULL is equal to NULL.
/// A number is never equal to a text: callers would see the difference.
#[must_use]
pub fn values_equal(kind: &Kind, a: &Value, b: &Value) -> bool {
    // Nearly always the two are spelled alike, and then they are equal whatever the kind.
    if a == b {
        return true;
    }
    match kind {
        // Spelled differently, these are different.
        Kind::Bool | Kind::Text | Kind::Interval | Kind::Enum(_) | Kind::Other => false,
        Kind::Int(_) | Kind::Numeric => match (a, b) {
            (Value::Number(a), Value::Number(b)) => numbers_equal(a, b),
            _ => false,
        },
        Kind::Float(bits) => match (a, b) {
            (Value::Number(a), Value::Number(b)) => floats_equal(*bits, a, b),
            _ => false,
        },
        Kind::Uuid
        | Kind::Timestamptz
        | Kind::Timestamp
        | Kind::Date
        | Kind::Time
        | Kind::Bytes => match (kind.canonical(a), kind.canonical(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
        Kind::Json(_) => json_equal(a, b),
        Kind::Array(element) => arrays_equal(element, a, b),
    }
}

/// Which of two versions is the later one: whole numbers by value, instants by time. None where that cannot be
/// said.
pub(super) fn order(kind: &Kind, a: &Value, b: &Value) -> Option<Ordering> {
    match kind {
        Kind::Int(_) | Kind::Numeric => {
            let whole = |value: &Value| value.as_number()?.as_str().parse::<i128>().ok();
            Some(whole(a)?.cmp(&whole(b)?))
        }
        // Canonical instants are in UTC, and of one length for thousands of years.
        Kind::Timestamptz | Kind::Timestamp | Kind::Date => {
            let canonical = |value: &Value| Some(kind.canonical(value)?.as_str()?.to_owned());
            let (a, b) = (canonical(a)?, canonical(b)?);
            (a.len() == b.len()).then(|| a.cmp(&b))
        }
        Kind::Bool
        | Kind::Float(_)
        | Kind::Text
        | Kind::Uuid
        | Kind::Time
        | Kind::Interval
        | Kind::Bytes
        | Kind::Json(_)
        | Kind::Enum(_)
        | Kind::Array(_)
        | Kind::Other => None,
    }
}

fn numbers_equal(a: &Number, b: &Number) -> bool {
    match (decimal(a), decimal(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// Equal once read in the column's own width; numbers that no float holds are equal by value only.
fn floats_equal(bits: u8, a: &Number, b: &Number) -> bool {
    // Beyond the range all numbers read as infinity.
    let equal = if bits == 32 {
        let read = |number: &Number| number.as_str().parse::<f32>().ok();
        read(a)
            .filter(|a| a.is_finite())
            .is_some_and(|a| read(b) == Some(a))
    } else {
        let read = |number: &Number| number.as_str().parse::<f64>().ok();
        read(a)
            .filter(|a| a.is_finite())
            .is_some_and(|a| read(b) == Some(a))
    };
    equal || numbers_equal(a, b)
}

fn json_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || numbers_equal(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| json_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(name, a)| b.get(name).is_some_and(|b| json_equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

/// Element by element; an element that is an array is a further dimension, unless elements are JSON.
fn arrays_equal(element: &Kind, a: &Value, b: &Value) -> bool {
    let (Value::Array(a), Value::Array(b)) = (a, b) else {
        return false;
    };
    let equal = |(a, b): (&Value, &Value)| {
        if a.is_array() && !matches!(element, Kind::Json(_)) {
            arrays_equal(element, a, b)
        } else {
            values_equal(element, a, b)
        }
    };
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(kind: &Kind, a: &str, b: &str) -> bool {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let result = values_equal(kind, &read(a), &read(b));
        assert_eq!(result, values_equal(kind, &read(b), &read(a)), "{a} {b}");
        result
    }

    fn assert_all(kind: &Kind, same: &[(&str, &str)], different: &[(&str, &str)]) {
        for (a, b) in same {
            assert!(equal(kind, a, b), "{kind:?}: {a} is {b}");
        }
        for (a, b) in different {
            assert!(!equal(kind, a, b), "{kind:?}: {a} is not {b}");
        }
    }

    #[test]
    fn the_later_of_two_versions_is_told_only_where_versions_have_an_order() {
        let later = |kind: Kind, a: &str, b: &str| {
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            order(&kind, &read(a), &read(b))
        };
        assert_eq!(later(Kind::Int(64), "10", "9"), Some(Ordering::Greater));
        assert_eq!(later(Kind::Numeric, "9", "10"), Some(Ordering::Less));
        let (noon, later_on) = (
            "\"2026-01-01T12:00:00Z\"",
            "\"2026-01-01T14:00:00.5+01:00\"",
        );
        let told = later(Kind::Timestamptz, noon, later_on);
        assert_eq!(told, Some(Ordering::Less));
        assert_eq!(later(Kind::Int(64), "1", "null"), None);
        assert_eq!(later(Kind::Text, "\"a\"", "\"b\""), None);
    }

    #[test]
    fn numerics_are_equal_by_value_and_never_through_f64() {
        assert_all(
            &Kind::Numeric,
            &[
                ("1.50", "1.5"),
                ("1e2", "100"),
                ("-0.0", "0"),
                (r#""NaN""#, r#""NaN""#),
            ],
            &[
                ("9007199254740993", "9007199254740992"),
                ("0.1", "0.1000000000000000000000000000001"),
                ("1", r#""1""#),
                ("0", "null"),
                ("1", "-1"),
            ],
        );
        assert_all(
            &Kind::Int(64),
            &[("1.0", "1")],
            &[("1", "true"), ("1", "2")],
        );
    }

    #[test]
    fn floats_are_equal_in_their_own_width() {
        assert_all(
            &Kind::Float(64),
            &[
                ("0.1", "0.10000000000000000555"),
                ("0.0", "-0"),
                (r#""NaN""#, r#""NaN""#),
                ("1e2", "100"),
            ],
            &[
                ("0.1", "0.10000000000000002"),
                ("1e999", "1e998"),
                (r#""NaN""#, "0"),
            ],
        );
        assert_all(
            &Kind::Float(32),
            &[("0.1", "0.10000000149011612")],
            &[("0.1", "0.2")],
        );
    }

    #[test]
    fn instants_are_equal_whatever_their_spelling() {
        assert_all(
            &Kind::Timestamptz,
            &[
                (
                    r#""2026-01-02T03:04:05Z""#,
                    r#""2026-01-02 04:04:05.000+01""#,
                ),
                (r#""infinity""#, r#""infinity""#),
            ],
            &[
                (
                    r#""2026-01-02T03:04:05Z""#,
                    r#""2026-01-02T03:04:05.000001Z""#,
                ),
                (r#""2026-01-02T03:04:05Z""#, r#""2026-01-02T03:04:05""#),
                (r#""infinity""#, r#""-infinity""#),
            ],
        );
        assert_all(
            &Kind::Timestamp,
            &[(
                r#""2026-01-02T03:04:05""#,
                r#""2026-01-02 03:04:05.000000""#,
            )],
            &[],
        );
        assert_all(&Kind::Time, &[(r#""03:04:05""#, r#""03:04:05.000""#)], &[]);
    }

    #[test]
    fn uuids_bytes_and_text_are_compared_by_what_they_mean() {
        assert_all(
            &Kind::Uuid,
            &[(
                r#""0190A5C8-7D3E-7C3E-8F00-0123456789AB""#,
                r#""0190a5c8-7d3e-7c3e-8f00-0123456789ab""#,
            )],
            &[],
        );
        assert_all(
            &Kind::Bytes,
            &[(r#""AQI=""#, r#""AQI""#)],
            &[(r#""AQI=""#, r#""AQM=""#)],
        );
        assert_all(
            &Kind::Text,
            &[],
            &[
                (r#""a""#, r#""A""#),
                (r#""a""#, r#""a ""#),
                (r#""""#, "null"),
            ],
        );
    }

    #[test]
    fn json_is_compared_by_structure_and_arrays_by_element() {
        assert_all(
            &Kind::Json(true),
            &[(r#"{"a":[1.0],"b":null}"#, r#"{"b":null,"a":[1]}"#)],
            &[
                (r#"{"a":null}"#, "{}"),
                ("[1,2]", "[2,1]"),
                (r#"{"a":1}"#, r#"{"b":1}"#),
                ("9007199254740993", "9007199254740992"),
            ],
        );
        let instants = Kind::Array(Box::new(Kind::Date));
        assert!(equal(
            &instants,
            r#"["2026-01-02",null]"#,
            r#"["2026-01-02",null]"#
        ));
        let numbers = Kind::Array(Box::new(Kind::Numeric));
        assert_all(
            &numbers,
            &[("[[1.0],[2]]", "[[1],[2.00]]")],
            &[
                ("[1]", "[1,1]"),
                ("[[1]]", "[1]"),
                ("[1]", "1"),
                ("[null]", "[1]"),
            ],
        );
    }
}
