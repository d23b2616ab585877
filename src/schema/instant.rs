//! Dates, times and instants as text: read leniently, written in one way.
//!
//! One reader serves requests and the comparer, which also meets PostgreSQL's own spellings (a space for
//! the `T`, an offset of hours only). Written out, every instant has microseconds and is in UTC, so that a
//! database without a type for it (SQLite) stores, compares and sorts the text alone. Digits beyond
//! microseconds are cut off, as no backend keeps them.

use time::{Date, Month};

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// Microseconds since 1970-01-01T00:00:00Z of an instant; the offset is mandatory.
pub(crate) fn parse_timestamptz(text: &str) -> Option<i64> {
    let (day, rest) = split_date(text)?;
    let (of_day, rest) = take_clock(separated(rest)?)?;
    let offset = parse_offset(rest)?;
    in_range(day * US_PER_DAY + of_day - offset)
}

/// Microseconds since 1970-01-01T00:00:00 of a date and time without offset.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let (day, rest) = split_date(text)?;
    let (of_day, rest) = take_clock(separated(rest)?)?;
    if !rest.is_empty() {
        return None;
    }
    in_range(day * US_PER_DAY + of_day)
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    match split_date(text)? {
        (day, "") => Some(day),
        _ => None,
    }
}

/// Microseconds since midnight of `HH:MM:SS[.ffffff]`; 24:00:00 is the end of the day.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    if text == "24:00:00" {
        return Some(US_PER_DAY);
    }
    match take_clock(text)? {
        (of_day, "") if of_day < US_PER_DAY => Some(of_day),
        _ => None,
    }
}

/// Whether it is what RFC 3339 has no spelling for, as PostgreSQL writes it: an infinity, or a year before 1 or after
/// 9999, ending in `zone`. Only its shape is looked at; SQL judges the rest.
pub(crate) fn is_beyond(text: &str, zone: &str) -> bool {
    if matches!(text, "infinity" | "-infinity") {
        return true;
    }
    let date = text.strip_suffix(" BC");
    let (date, year_min) = date.map_or((text, 5), |date| (date, 4));
    let Some(date) = date.strip_suffix(zone) else {
        return false;
    };
    let year = date.bytes().take_while(u8::is_ascii_digit).count();
    let allowed = |byte: u8| byte.is_ascii_digit() || b"-: .".contains(&byte);
    year >= year_min && !(year > 4 && date.starts_with('0')) && date.bytes().all(allowed)
}

/// `YYYY-MM-DDTHH:MM:SS.ffffff`, followed by nothing: the caller adds the `Z` of an instant.
pub(crate) fn format_timestamp(us: i64) -> Option<String> {
    let date = format_date(us.div_euclid(US_PER_DAY))?;
    let of_day = us.rem_euclid(US_PER_DAY);
    let clock = format_clock(of_day / US_PER_SECOND);
    Some(format!("{date}T{clock}.{:06}", of_day % US_PER_SECOND))
}

/// `YYYY-MM-DD`, for the years 1 to 9999.
pub(crate) fn format_date(day: i64) -> Option<String> {
    let date = Date::from_julian_day(i32::try_from(day).ok()? + epoch_julian_day()).ok()?;
    let (year, month, day) = date.to_calendar_date();
    (1..=9999)
        .contains(&year)
        .then(|| format!("{year:04}-{:02}-{day:02}", u8::from(month)))
}

/// `HH:MM:SS[.f…]`, the fraction without trailing zeros, as PostgreSQL writes it.
pub(crate) fn format_time(us: i64) -> String {
    let clock = format_clock(us / US_PER_SECOND);
    match us % US_PER_SECOND {
        0 => clock,
        fraction => {
            let fraction = format!("{fraction:06}");
            format!("{clock}.{}", fraction.trim_end_matches('0'))
        }
    }
}

fn format_clock(seconds: i64) -> String {
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}")
}

fn epoch_julian_day() -> i32 {
    time::UtcDateTime::UNIX_EPOCH.date().to_julian_day()
}

/// Only instants that can be written with four digits of year.
fn in_range(us: i64) -> Option<i64> {
    format_date(us.div_euclid(US_PER_DAY)).map(|_| us)
}

/// The days since 1970 of a leading `YYYY-MM-DD`, and the rest.
fn split_date(text: &str) -> Option<(i64, &str)> {
    let (year, rest) = take_digits(text, 4)?;
    let (month, rest) = take_digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = take_digits(rest.strip_prefix('-')?, 2)?;
    if year == 0 {
        return None;
    }
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date =
        Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    Some((i64::from(date.to_julian_day() - epoch_julian_day()), rest))
}

fn separated(text: &str) -> Option<&str> {
    text.strip_prefix(['T', 't', ' '])
}

/// Microseconds since midnight of a leading `HH:MM:SS[.f…]`, and the rest. A leap second is the first
/// moment of the next minute.
fn take_clock(text: &str) -> Option<(i64, &str)> {
    let (hour, rest) = take_digits(text, 2)?;
    let (minute, rest) = take_digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = take_digits(rest.strip_prefix(':')?, 2)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => take_fraction(rest)?,
        None => (0, rest),
    };
    let fraction = if second == 60 { 0 } else { fraction };
    let seconds = hour * 3600 + minute * 60 + second;
    Some((seconds * US_PER_SECOND + fraction, rest))
}

/// At least one digit; those after the sixth are cut off.
fn take_fraction(text: &str) -> Option<(i64, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    if len == 0 {
        return None;
    }
    let digits = format!("{:0<6}", &text[..len.min(6)]);
    Some((digits.parse().ok()?, &text[len..]))
}

/// `Z`, `±HH`, `±HH:MM` or `±HHMM`, in microseconds east of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = take_digits(rest, 2)?;
    let (minutes, rest) = match rest {
        "" => (0, ""),
        rest => take_digits(rest.strip_prefix(':').unwrap_or(rest), 2)?,
    };
    (rest.is_empty() && hours < 24 && minutes < 60)
        .then_some(sign * (hours * 3600 + minutes * 60) * US_PER_SECOND)
}

fn take_digits(text: &str, count: usize) -> Option<(i64, &str)> {
    let (digits, rest) = text.split_at_checked(count)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_instant_is_one_instant() {
        let us = parse_timestamptz("2026-01-02T03:04:05.5Z").unwrap();
        for text in [
            "2026-01-02 03:04:05.500+00",
            "2026-01-02t08:34:05.500000999+05:30",
            "2026-01-01T22:04:05.5-0500",
        ] {
            assert_eq!(parse_timestamptz(text), Some(us), "{text}");
        }
        assert_eq!(format_timestamp(us).unwrap(), "2026-01-02T03:04:05.500000");
    }

    #[test]
    fn instants_before_1970_and_leap_days_are_right() {
        for text in [
            "1969-12-31T23:59:59.999999",
            "0001-01-01T00:00:00.000000",
            "2024-02-29T12:00:00.000000",
        ] {
            let us = parse_timestamp(text).unwrap();
            assert_eq!(format_timestamp(us).unwrap(), text);
        }
        assert_eq!(parse_timestamptz("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            parse_timestamptz("2016-12-31T23:59:60Z"),
            parse_timestamptz("2017-01-01T00:00:00Z")
        );
    }

    #[test]
    fn what_is_no_date_or_time_is_refused() {
        for text in [
            "2023-02-29",
            "2026-13-01",
            "2026-1-1",
            "0000-01-01",
            "2026-01-01x",
            "２０２６-01-01",
            "",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in [
            "24:00:01",
            "12:60:00",
            "12:00",
            "12:00:00.",
            "12:00:00Z",
            "é2:00:00",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        for text in [
            "2026-01-02T03:04:05",
            "2026-01-02",
            "2026-01-02T03:04:05+24:00",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "now",
            "infinity",
        ] {
            assert_eq!(parse_timestamptz(text), None, "{text}");
        }
        assert_eq!(parse_timestamp("2026-01-02T03:04:05Z"), None);
    }

    #[test]
    fn times_are_written_as_postgres_writes_them() {
        for text in ["03:04:05", "03:04:05.5", "23:59:59.999999", "24:00:00"] {
            assert_eq!(format_time(parse_time(text).unwrap()), text);
        }
        assert_eq!(
            format_time(parse_time("03:04:05.500").unwrap()),
            "03:04:05.5"
        );
    }
}
