//! Strict JSON: the only way bytes from outside become values.
//!
//! `serde_json` is lenient where a database is not: it keeps the last of two equal keys, keeps `\u0000`,
//! and gives two private member names a meaning of their own. So one pass over the bytes counts what can
//! be counted before anything is built (depth, members, those names), and one walk over the built value
//! checks the rest. Two equal keys show as fewer members than colons.

use serde_json::Value;

use super::{Code, Error};

/// Most digits of one number, before and after the point.
const NUMBER_DIGITS_MAX: usize = 1_000;
/// Greatest magnitude of a number's exponent: that of the smallest double, 5e-324.
const NUMBER_EXPONENT_MAX: u32 = 324;
/// `serde_json` itself stops at 128.
const DEPTH_HARD_MAX: usize = 127;
/// Members that `serde_json` would not read as members.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// What a body may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonLimits {
    /// At most this many bytes.
    pub bytes_max: usize,
    /// At most this many arrays and objects inside each other; more than 127 is never accepted.
    pub depth_max: usize,
}

impl Default for JsonLimits {
    fn default() -> Self {
        Self {
            bytes_max: 4 << 20,
            depth_max: 32,
        }
    }
}

/// Reads one JSON value, refusing what is ambiguous or what a database could not store.
///
/// # Errors
/// `too_large` for too many bytes; `invalid_request` for an empty body, invalid UTF-8, malformed JSON, a
/// key twice in one object, `\u0000`, a lone surrogate, too much nesting, a number beyond sense.
pub fn parse_json(bytes: &[u8], limits: &JsonLimits) -> Result<Value, Error> {
    if bytes.len() > limits.bytes_max {
        let message = format!("the body is larger than {} bytes", limits.bytes_max);
        return Err(Error::new(Code::TooLarge, message));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        invalid(format!("the body is not UTF-8 (byte {at})"))
    })?;
    if text.trim_ascii().is_empty() {
        return Err(invalid("the body is empty"));
    }
    let members = scan(bytes, limits.depth_max.min(DEPTH_HARD_MAX))?;
    let value: Value =
        serde_json::from_str(text).map_err(|error| invalid(malformed(&error.to_string())))?;
    if check(&value)? != members {
        return Err(invalid("an object has the same key twice"));
    }
    Ok(value)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, message)
}

fn malformed(why: &str) -> String {
    format!("the body is not JSON: {why}")
}

/// Passes over the bytes once: limits the depth, refuses reserved member names, and counts the members of
/// all objects (every `:` outside strings). What is not JSON is left to the parser.
fn scan(bytes: &[u8], depth_max: usize) -> Result<usize, Error> {
    let (mut depth, mut members, mut at) = (0_usize, 0_usize, 0_usize);
    let mut last_string = 0..0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at + 1);
                last_string = at..end;
                at = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return Err(invalid(format!("nested deeper than {depth_max} levels")));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' => {
                members += 1;
                if is_reserved(&bytes[last_string.clone()]) {
                    return Err(invalid("a member has a reserved name"));
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(members)
}

/// The index after the closing quote of a string whose first byte is at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Whether a quoted key, once unescaped, is one of `serde_json`'s own.
fn is_reserved(quoted: &[u8]) -> bool {
    // Almost every key is told apart by its first byte; an escape could spell the `$`.
    if !matches!(quoted.get(1), Some(b'$' | b'\\')) {
        return false;
    }
    serde_json::from_slice::<String>(quoted).is_ok_and(|key| key.starts_with(RESERVED_PREFIX))
}

/// Walks a value, whose depth is already bounded, and returns how many members its objects have.
fn check(value: &Value) -> Result<usize, Error> {
    match value {
        Value::Null | Value::Bool(_) => Ok(0),
        Value::Number(number) => check_number(number.as_str()).map(|()| 0),
        Value::String(text) => check_text(text).map(|()| 0),
        Value::Array(items) => items.iter().map(check).sum(),
        Value::Object(map) => {
            let mut members = map.len();
            for (key, member) in map {
                check_text(key)?;
                members += check(member)?;
            }
            Ok(members)
        }
    }
}

fn check_text(text: &str) -> Result<(), Error> {
    if text.as_bytes().contains(&0) {
        return Err(invalid("text contains \\u0000, which no database stores"));
    }
    Ok(())
}

fn check_number(text: &str) -> Result<(), Error> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    if digits > NUMBER_DIGITS_MAX {
        return Err(invalid(format!(
            "a number has more than {NUMBER_DIGITS_MAX} digits"
        )));
    }
    match exponent.trim_start_matches(['+', '-']).parse::<u32>() {
        Ok(magnitude) if magnitude <= NUMBER_EXPONENT_MAX => Ok(()),
        _ => Err(invalid(format!(
            "a number's exponent is beyond {NUMBER_EXPONENT_MAX}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: impl AsRef<[u8]>) -> Result<Value, Error> {
        parse_json(text.as_ref(), &JsonLimits::default())
    }

    fn refused(text: impl AsRef<[u8]>) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code, Code::InvalidRequest);
        error.message
    }

    #[test]
    fn every_digit_is_kept() {
        let text = r#"[123456789012345678901234567890.12345678901234567890,1.50,1e308,-0]"#;
        assert_eq!(
            parse(text).unwrap().to_string(),
            text.replace("1e308", "1e+308")
        );
    }

    #[test]
    fn malformed_json_is_refused() {
        for text in [
            "{",
            "{}}",
            "[1,]",
            "{'a':1}",
            "nul",
            "01",
            "+1",
            "NaN",
            r#"{"a"}"#,
            r#""a"#,
            "\"a\\",
            "\"\t\"",
            "{} {}",
            r#"{"a":1 "b":2}"#,
            "\u{feff}{}",
        ] {
            assert!(refused(text).contains("not JSON"), "{text}");
        }
    }

    #[test]
    fn an_empty_body_is_refused_as_such() {
        assert_eq!(refused(""), "the body is empty");
        assert_eq!(refused(" \r\n\t"), "the body is empty");
    }

    #[test]
    fn invalid_utf8_is_refused_with_its_place() {
        assert!(refused(b"{\"a\":\"\xff\"}").contains("byte 6"));
        assert!(refused(b"\"\xed\xa0\x80\"").contains("not UTF-8"));
    }

    #[test]
    fn equal_keys_are_refused_however_they_are_spelled_and_wherever_they_are() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"x":[{"k":1,"b":2,"k":3}]}]"#,
        ] {
            assert!(refused(text).contains("same key twice"), "{text}");
        }
        assert!(parse(r#"{"a":{"a":1},"b":[{"a":1},{"a":2}],"c:":":"}"#).is_ok());
    }

    #[test]
    fn a_zero_byte_is_refused_in_strings_and_keys() {
        assert!(refused(r#"{"a":"x\u0000"}"#).contains("\\u0000"));
        assert!(refused(r#"{"a\u0000":1}"#).contains("\\u0000"));
        assert!(parse(r#""\\u0000""#).is_ok());
    }

    #[test]
    fn lone_surrogates_are_refused_and_pairs_are_not() {
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800x""#,
        ] {
            refused(text);
        }
        assert_eq!(parse(r#""\ud83d\ude00""#).unwrap(), "😀");
    }

    #[test]
    fn depth_is_limited_before_anything_is_built() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(nested(32)).is_ok());
        assert!(refused(nested(33)).contains("32 levels"));
        assert!(refused(nested(100_000)).contains("32 levels"));
        assert!(refused(r#"{"a":"#.repeat(100_000)).contains("32 levels"));
        assert!(parse(format!("\"{}\"", "[".repeat(100))).is_ok());
        let generous = JsonLimits {
            depth_max: 1_000_000,
            ..JsonLimits::default()
        };
        assert!(parse_json(nested(127).as_bytes(), &generous).is_ok());
        assert!(parse_json(nested(128).as_bytes(), &generous).is_err());
    }

    #[test]
    fn numbers_beyond_sense_are_refused() {
        for text in ["1e999", "-1E-999", "1e99999999999999999999", "[0e325]"] {
            assert!(refused(text).contains("exponent"), "{text}");
        }
        assert!(parse("1".repeat(1_000)).is_ok());
        assert!(refused("1".repeat(1_001)).contains("1000 digits"));
    }

    #[test]
    fn private_members_of_the_parser_are_not_a_way_in() {
        for text in [
            r#"{"$serde_json::private::Number":"1e999"}"#,
            r#"{"$serde_json::private::RawValue":"{\"a\":1}"}"#,
            r#"{"\u0024serde_json::private::RawValue":"[]"}"#,
            r#"{"$\u0073erde_json::private::RawValue" : "[]"}"#,
        ] {
            assert!(refused(text).contains("reserved"), "{text}");
        }
        assert!(parse(r#"{"$ref":1,"a":"$serde_json::private::Number"}"#).is_ok());
    }

    #[test]
    fn a_body_over_its_limit_is_too_large() {
        let limits = JsonLimits {
            bytes_max: 4,
            ..JsonLimits::default()
        };
        assert_eq!(
            parse_json(b"[1,2]", &limits).unwrap_err().code,
            Code::TooLarge
        );
    }

    #[test]
    fn whatever_bytes_come_there_is_an_answer() {
        let alphabet = br#"{}[]:,"\u0a1e-.$ tn"#;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..24)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .collect();
            if let Ok(value) = parse(&text) {
                assert_eq!(parse(value.to_string()).unwrap(), value);
            }
        }
    }
}
