//! Durations as text: `1.5s`, `24h`, `500ms`.
//!
//! A bare number would leave its unit to memory, so it is refused. Reading is exact (whole nanoseconds), so
//! that what is written back is what was meant.

use std::time::Duration;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize as _, Deserializer, Serializer};

/// Units and their length in nanoseconds, longest spelling first where one ends like another.
const UNITS: [(&str, u128); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads `<number><unit>`, the number with at most nine decimals, the unit one of us, ms, s, m, h, d.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, *unit)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 12 || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let nanos = whole.parse::<u128>().ok()? * unit + fraction.parse::<u128>().ok()? * unit / scale;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(
        seconds,
        u32::try_from(nanos % 1_000_000_000).ok()?,
    ))
}

/// Serde's reading side.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    parse(&text).ok_or_else(|| {
        D::Error::invalid_value(
            Unexpected::Str(&text),
            &"a duration such as \"1.5s\", \"500ms\", \"10m\" or \"24h\"",
        )
    })
}

/// Serde's writing side, canonical: whole microseconds.
pub(super) fn serialize<S: Serializer>(duration: &Duration, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_str(&format!("{}us", duration.as_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse("0s"), Some(Duration::ZERO));
        assert_eq!(parse("10m"), Some(Duration::from_secs(600)));
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        for text in [
            "5",
            "",
            "s",
            "-1s",
            "1,5s",
            "1.s",
            ".5s",
            "1 s",
            "9999999999999s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
