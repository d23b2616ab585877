//! Whether a JSON value fits a kind, and its one spelling.
//!
//! Both backends are sent the same spelling, so what a database without the type stores as text (SQLite:
//! instants, UUIDs, numerics) is equal and sorts alike wherever it was written. What only SQL can judge
//! (lengths, precision, a network address) is left to it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bigdecimal::BigDecimal;
use serde_json::{Number, Value};
use uuid::Uuid;

use super::Kind;
use super::instant;

/// With or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Kind {
    /// The one spelling of a non-null value of this kind; none when it does not fit. Arrays may nest and
    /// hold NULLs.
    #[must_use]
    pub fn canonical(&self, value: &Value) -> Option<Value> {
        match self {
            Self::Bool => value.as_bool().map(Value::Bool),
            Self::Int(bits) => integer(value, *bits),
            Self::Numeric => special(value).or_else(|| numeric(value)),
            Self::Float(bits) => special(value).or_else(|| float(value, *bits)),
            Self::Text | Self::Other => value.as_str().map(Value::from),
            Self::Uuid => {
                let uuid = Uuid::parse_str(value.as_str()?).ok()?;
                Some(Value::String(uuid.to_string()))
            }
            Self::Timestamptz if instant::is_beyond(value.as_str()?, "+00") => Some(value.clone()),
            Self::Timestamp | Self::Date if instant::is_beyond(value.as_str()?, "") => {
                Some(value.clone())
            }
            Self::Timestamptz => {
                let us = instant::parse_timestamptz(value.as_str()?)?;
                Some(Value::String(instant::format_timestamp(us)? + "Z"))
            }
            Self::Timestamp => {
                let us = instant::parse_timestamp(value.as_str()?)?;
                Some(Value::String(instant::format_timestamp(us)?))
            }
            Self::Date => {
                let day = instant::parse_date(value.as_str()?)?;
                Some(Value::String(instant::format_date(day)?))
            }
            Self::Time => {
                let us = instant::parse_time(value.as_str()?)?;
                Some(Value::String(instant::format_time(us)))
            }
            Self::Interval => interval(value.as_str()?),
            Self::Bytes => {
                let bytes = BASE64.decode(value.as_str()?).ok()?;
                Some(Value::String(BASE64.encode(bytes)))
            }
            Self::Json(_) => Some(value.clone()),
            Self::Enum(labels) => {
                let label = value.as_str()?;
                let known = labels.iter().any(|known| known == label);
                known.then(|| Value::from(label))
            }
            Self::Array(element) => elements(element, value),
        }
    }

    /// What a value of this kind must be, for messages.
    #[must_use]
    pub fn expected(&self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int(16) => "a 16-bit integer",
            Self::Int(32) => "a 32-bit integer",
            Self::Int(_) => "a 64-bit integer",
            Self::Numeric => "a number (or \"NaN\", \"Infinity\", \"-Infinity\")",
            Self::Float(_) => "a number in range (or \"NaN\", \"Infinity\", \"-Infinity\")",
            Self::Text | Self::Other => "text",
            Self::Uuid => "a UUID",
            Self::Timestamptz => "an RFC 3339 date and time with an offset",
            Self::Timestamp => "a date and time without an offset (YYYY-MM-DDTHH:MM:SS)",
            Self::Date => "a date (YYYY-MM-DD)",
            Self::Time => "a time (HH:MM:SS)",
            Self::Interval => "an ISO 8601 duration",
            Self::Bytes => "base64 text",
            Self::Json(_) => "JSON",
            Self::Enum(_) => "one of the type's labels",
            Self::Array(_) => "an array of fitting elements",
        }
    }
}

/// An array's elements, each canonical.
fn elements(element: &Kind, value: &Value) -> Option<Value> {
    let items = value.as_array()?.iter().map(|item| match item {
        Value::Null => Some(Value::Null),
        // A further dimension, unless the elements themselves may be arrays.
        Value::Array(_) if !matches!(element, Kind::Json(_)) => elements(element, item),
        _ => element.canonical(item),
    });
    items.collect::<Option<Vec<_>>>().map(Value::Array)
}

/// A number by value: its digits without needless zeros and their exponent, equal for equal numbers.
/// Works on the text alone, so a million digits cost a pass and `1e999999999` costs nothing; none only
/// where the exponent is beyond 64 bits.
pub(crate) fn decimal(number: &Number) -> Option<(String, i64)> {
    let text = number.as_str();
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    let digits = all.trim_end_matches('0');
    let zeros = i64::try_from(all.len() - digits.len()).ok()?;
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(("0".to_owned(), 0));
    }
    let exponent = exponent
        .parse::<i64>()
        .ok()?
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(zeros)?;
    Some(([sign, digits].concat(), exponent))
}

/// The values that JSON has no number for.
fn special(value: &Value) -> Option<Value> {
    match value.as_str() {
        Some("NaN" | "Infinity" | "-Infinity") => Some(value.clone()),
        _ => None,
    }
}

fn integer(value: &Value, bits: u8) -> Option<Value> {
    let Value::Number(number) = value else {
        return None;
    };
    let integer = match number.as_str().parse::<i64>() {
        Ok(integer) => integer,
        // 1.0 and 1e2 are integers too; JSON has one type of number.
        Err(_) => {
            let decimal = number.as_str().parse::<BigDecimal>().ok()?;
            if !decimal.is_integer() {
                return None;
            }
            decimal.with_scale(0).to_string().parse::<i64>().ok()?
        }
    };
    let fits = match bits {
        16 => i16::try_from(integer).is_ok(),
        32 => i32::try_from(integer).is_ok(),
        _ => true,
    };
    fits.then(|| Value::from(integer))
}

/// Digits stay as they are; an exponent is written out and a negative zero loses its sign, as in SQL.
fn numeric(value: &Value) -> Option<Value> {
    let Value::Number(number) = value else {
        return None;
    };
    let text = number.as_str();
    if !text.contains(['e', 'E']) && !text.starts_with("-0") {
        return Some(value.clone());
    }
    let plain = text.parse::<BigDecimal>().ok()?.to_plain_string();
    plain.parse::<Number>().ok().map(Value::Number)
}

fn float(value: &Value, bits: u8) -> Option<Value> {
    let Value::Number(number) = value else {
        return None;
    };
    let text = number.as_str();
    let parsed = if bits == 32 {
        f64::from(text.parse::<f32>().ok()?)
    } else {
        text.parse::<f64>().ok()?
    };
    // PostgreSQL refuses what is too great and what is so small that it would become zero.
    let mantissa = text.split(['e', 'E']).next()?;
    let is_zero = !mantissa.contains(|c: char| ('1'..='9').contains(&c));
    (parsed.is_finite() && (parsed != 0.0 || is_zero)).then(|| value.clone())
}

/// The shape of an ISO 8601 duration; SQL judges the rest.
fn interval(text: &str) -> Option<Value> {
    let body = text.strip_prefix('-').unwrap_or(text).strip_prefix('P')?;
    let allowed = |byte: u8| byte.is_ascii_digit() || b"YMWDTHS.,+-".contains(&byte);
    (body.bytes().any(|byte| byte.is_ascii_digit()) && body.bytes().all(allowed))
        .then(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    /// The canonical spelling of JSON text, as JSON text.
    fn canonical(kind: &Kind, text: &str) -> Option<String> {
        kind.canonical(&read(text)).map(|value| value.to_string())
    }

    fn becomes(kind: &Kind, text: &str, expected: &str) {
        assert_eq!(canonical(kind, text).as_deref(), Some(expected), "{text}");
    }

    fn refused(kind: &Kind, texts: &[&str]) {
        for text in texts {
            assert_eq!(canonical(kind, text), None, "{kind:?} {text}");
        }
    }

    #[test]
    fn integers_are_in_range_and_integral() {
        becomes(&Kind::Int(16), "-32768", "-32768");
        becomes(&Kind::Int(64), "9223372036854775807", "9223372036854775807");
        becomes(&Kind::Int(32), "1.0", "1");
        becomes(&Kind::Int(32), "12e2", "1200");
        becomes(&Kind::Int(32), "-0", "0");
        refused(&Kind::Int(16), &["32768", "1.5", "\"1\"", "true"]);
        refused(&Kind::Int(32), &["2147483648", "1e10"]);
        refused(&Kind::Int(64), &["9223372036854775808", "1e308", "1e-308"]);
    }

    #[test]
    fn numerics_keep_every_digit() {
        let long = "1234567890123456789012345678901234567890.1200";
        becomes(&Kind::Numeric, long, long);
        becomes(&Kind::Numeric, "1.5e3", "1500");
        becomes(&Kind::Numeric, "15e-3", "0.015");
        becomes(&Kind::Numeric, "-0.00", "0.00");
        becomes(&Kind::Numeric, "-0.5", "-0.5");
        becomes(&Kind::Numeric, "\"NaN\"", "\"NaN\"");
        refused(&Kind::Numeric, &["\"1.5\"", "\"nan\"", "[]", "true"]);
    }

    #[test]
    fn floats_are_finite_in_their_width() {
        becomes(&Kind::Float(64), "1.5", "1.5");
        becomes(&Kind::Float(64), "0e-300", "0e-300");
        becomes(&Kind::Float(32), "\"-Infinity\"", "\"-Infinity\"");
        refused(&Kind::Float(32), &["1e39", "1e-60", "\"x\""]);
        refused(&Kind::Float(64), &["1.8e308"]);
    }

    #[test]
    fn uuids_instants_and_bytes_have_one_spelling() {
        becomes(
            &Kind::Uuid,
            "\"0190A5C87D3E7C3E8F000123456789AB\"",
            "\"0190a5c8-7d3e-7c3e-8f00-0123456789ab\"",
        );
        refused(&Kind::Uuid, &["\"x\"", "1"]);
        becomes(
            &Kind::Timestamptz,
            "\"2026-01-02T05:04:05+02:00\"",
            "\"2026-01-02T03:04:05.000000Z\"",
        );
        refused(
            &Kind::Timestamptz,
            &["\"2026-01-02T05:04:05\"", "1767322800"],
        );
        becomes(
            &Kind::Timestamp,
            "\"2026-01-02 05:04:05.1\"",
            "\"2026-01-02T05:04:05.100000\"",
        );
        becomes(&Kind::Date, "\"2026-01-02\"", "\"2026-01-02\"");
        becomes(&Kind::Time, "\"05:04:05.10\"", "\"05:04:05.1\"");
        becomes(&Kind::Interval, "\"P1DT-2H0.5S\"", "\"P1DT-2H0.5S\"");
        refused(&Kind::Interval, &["\"1 day\"", "\"P\"", "\"P1D; DROP\""]);
        becomes(&Kind::Bytes, "\"AQI\"", "\"AQI=\"");
        refused(&Kind::Bytes, &["\"A\"", "\"_-==\"", "\"\\\\x01\""]);
    }

    #[test]
    fn what_rfc_3339_has_no_spelling_for_is_taken_as_postgresql_writes_it() {
        let same = |kind: &Kind, texts: &[&str]| {
            for text in texts {
                becomes(kind, &format!("\"{text}\""), &format!("\"{text}\""));
            }
        };
        let infinities = ["infinity", "-infinity"];
        for kind in [Kind::Timestamptz, Kind::Timestamp, Kind::Date] {
            same(&kind, &infinities);
            refused(
                &kind,
                &["\"Infinity\"", "\" BC\"", "\"0000-01-01\"", "\"\""],
            );
        }
        same(
            &Kind::Timestamptz,
            &[
                "0044-03-15 12:00:00+00 BC",
                "294276-12-31 23:59:59.999999+00",
            ],
        );
        same(
            &Kind::Timestamp,
            &["4713-01-01 00:00:00 BC", "10000-01-01 00:00:00"],
        );
        same(&Kind::Date, &["0044-03-15 BC", "5874897-12-31"]);
        refused(
            &Kind::Timestamptz,
            &[
                "\"10000-01-01 00:00:00+01\"",
                "\"010000-01-01 00:00:00+00\"",
            ],
        );
        refused(
            &Kind::Date,
            &[
                "\"2026-13-01\"",
                "\"10000-01-01; DROP\"",
                "\"044-03-15 BC\"",
            ],
        );
    }

    #[test]
    fn labels_arrays_and_json_are_checked_inside() {
        let mood = Kind::Enum(vec!["sad".into(), "ok".into()]);
        becomes(&mood, "\"ok\"", "\"ok\"");
        refused(&mood, &["\"OK\"", "1"]);
        let uuids = Kind::Array(Box::new(Kind::Int(16)));
        becomes(&uuids, "[1,null,[2.0]]", "[1,null,[2]]");
        refused(&uuids, &["1", "[\"1\"]", "[[70000]]"]);
        becomes(&Kind::Json(true), "{\"b\":[1.0]}", "{\"b\":[1.0]}");
        assert_eq!(Kind::Text.canonical(&json!(1)), None);
        assert_eq!(Kind::Bool.canonical(&json!("true")), None);
    }

    #[test]
    fn equal_numbers_have_equal_decimals_and_huge_exponents_cost_nothing() {
        let decimal = |text: &str| decimal(&text.parse().unwrap()).unwrap();
        assert_eq!(decimal("1.50"), decimal("15e-1"));
        assert_eq!(decimal("0.000"), decimal("-0"));
        assert_ne!(decimal("1e999999999"), decimal("1e999999998"));
        assert_ne!(decimal("9007199254740993"), decimal("9007199254740992"));
        assert_eq!(decimal("-0.0120e+5"), decimal("-1200"));
        assert_ne!(decimal("12"), decimal("-12"));
        assert_ne!(decimal("12"), decimal("120"));
        assert_eq!(decimal("100"), decimal("1E2"));
    }

    #[test]
    fn a_canonical_value_is_its_own_canonical_value() {
        for (kind, text) in [
            (Kind::Numeric, "-12.5e-7"),
            (Kind::Timestamptz, "\"1999-12-31t23:59:59.9999999-11:30\""),
            (Kind::Time, "\"00:00:00.000100\""),
            (Kind::Bytes, "\"AQIDBA\""),
        ] {
            let once = kind.canonical(&read(text)).unwrap();
            assert_eq!(kind.canonical(&once), Some(once));
        }
    }
}
