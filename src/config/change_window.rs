//! When stages may be advanced: `Mon-Fri 08:00-17:00 UTC`.
//!
//! A window is counted at a fixed distance from UTC. A zone's name would need a database of zones that
//! changes twice a year, on the replica as on the operator's desk.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MINUTES: i64 = 24 * 60;
/// 1 January 1970 was a Thursday.
const FIRST_WEEKDAY: i64 = 3;

/// Hours on some days of every week. A window that ends before it begins ends on the next day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeWindow {
    first_day: i64,
    last_day: i64,
    from_minute: i64,
    to_minute: i64,
    offset_minutes: i64,
}

/// The text is not a window.
#[derive(Debug, thiserror::Error)]
#[error("no such window: write \"Mon-Fri 08:00-17:00 UTC\", \"Sat 22:00-02:00 +01:00\"")]
pub struct NoWindow;

impl ChangeWindow {
    /// Whether the window is open.
    #[must_use]
    pub fn contains(&self, unix_us: i64) -> bool {
        let minutes = unix_us.div_euclid(60_000_000) + self.offset_minutes;
        let (day, minute) = (
            minutes.div_euclid(DAY_MINUTES) + FIRST_WEEKDAY,
            minutes.rem_euclid(DAY_MINUTES),
        );
        if self.from_minute < self.to_minute {
            return self.on(day) && (self.from_minute..self.to_minute).contains(&minute);
        }
        self.on(day) && minute >= self.from_minute || self.on(day - 1) && minute < self.to_minute
    }

    fn on(&self, day: i64) -> bool {
        let day = day.rem_euclid(7);
        if self.first_day <= self.last_day {
            (self.first_day..=self.last_day).contains(&day)
        } else {
            day >= self.first_day || day <= self.last_day
        }
    }
}

impl FromStr for ChangeWindow {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Self, NoWindow> {
        let mut words = text.split_whitespace();
        let (Some(days), Some(hours), Some(zone), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(NoWindow);
        };
        let (first_day, last_day) = days.split_once('-').unwrap_or((days, days));
        let (from, to) = hours.split_once('-').ok_or(NoWindow)?;
        Ok(Self {
            first_day: day(first_day)?,
            last_day: day(last_day)?,
            from_minute: clock(from)?,
            to_minute: clock(to)?,
            offset_minutes: offset(zone)?,
        })
    }
}

fn day(text: &str) -> Result<i64, NoWindow> {
    let place = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    place
        .and_then(|place| i64::try_from(place).ok())
        .ok_or(NoWindow)
}

/// `08:00`, in minutes; `24:00` is the end of a day.
fn clock(text: &str) -> Result<i64, NoWindow> {
    let (hours, minutes) = text.split_once(':').ok_or(NoWindow)?;
    let number = |text: &str| match text.len() {
        2 => text.parse::<u8>().map_err(|_| NoWindow),
        _ => Err(NoWindow),
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let sum = i64::from(hours) * 60 + i64::from(minutes);
    if minutes < 60 && sum <= DAY_MINUTES {
        Ok(sum)
    } else {
        Err(NoWindow)
    }
}

fn offset(text: &str) -> Result<i64, NoWindow> {
    if text.eq_ignore_ascii_case("UTC") || text == "Z" {
        return Ok(0);
    }
    if let Some(ahead) = text.strip_prefix('+') {
        return clock(ahead);
    }
    let behind = text.strip_prefix('-').ok_or(NoWindow)?;
    clock(behind).map(|minutes| -minutes)
}

impl fmt::Display for ChangeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |index: i64| usize::try_from(index).map_or("", |index| DAYS[index % 7]);
        let clock = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let zone = match self.offset_minutes {
            0 => "UTC".to_owned(),
            ahead if ahead > 0 => format!("+{}", clock(ahead)),
            behind => format!("-{}", clock(-behind)),
        };
        write!(
            f,
            "{}-{} {}-{} {zone}",
            day(self.first_day),
            day(self.last_day),
            clock(self.from_minute),
            clock(self.to_minute)
        )
    }
}

impl Serialize for ChangeWindow {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChangeWindow {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microseconds of a minute of the week that began on Monday, 5 January 1970.
    fn at(day: i64, hour: i64, minute: i64) -> i64 {
        (((4 + day) * 24 + hour) * 60 + minute) * 60_000_000
    }

    fn window(text: &str) -> ChangeWindow {
        text.parse().unwrap()
    }

    #[test]
    fn office_hours_are_open_on_weekdays_from_their_first_minute_to_before_their_last() {
        let office = window("Mon-Fri 08:00-17:00 UTC");
        assert!(office.contains(at(0, 8, 0)) && office.contains(at(4, 16, 59)));
        assert!(!office.contains(at(0, 7, 59)) && !office.contains(at(4, 17, 0)));
        assert!(!office.contains(at(5, 12, 0)) && !office.contains(at(6, 12, 0)));
    }

    #[test]
    fn a_night_ends_on_the_next_day_and_a_week_goes_round() {
        let night = window("Sun 22:00-02:00 UTC");
        assert!(night.contains(at(6, 23, 0)) && night.contains(at(7, 1, 59)));
        assert!(!night.contains(at(6, 1, 0)) && !night.contains(at(7, 2, 0)));
        let weekend = window("Sat-Mon 00:00-24:00 UTC");
        assert!(weekend.contains(at(0, 12, 0)) && weekend.contains(at(5, 0, 0)));
        assert!(!weekend.contains(at(2, 12, 0)));
    }

    #[test]
    fn hours_are_those_of_the_given_distance_from_utc() {
        let east = window("Mon 08:00-09:00 +02:00");
        assert!(east.contains(at(0, 6, 30)) && !east.contains(at(0, 8, 30)));
        let west = window("Mon 20:00-21:00 -05:30");
        assert!(west.contains(at(1, 1, 45)));
    }

    #[test]
    fn what_is_written_back_is_read_as_the_same_and_nonsense_is_refused() {
        for text in ["Mon-Fri 08:00-17:00 UTC", "Sat-Sat 22:00-02:00 +01:00"] {
            assert_eq!(window(text).to_string(), text);
        }
        for bad in [
            "always",
            "Mon 8-17 UTC",
            "Mon 08:00-25:00 UTC",
            "Mon 08:00-17:00 Europe/Berlin",
            "Montag 08:00-17:00 UTC",
            "Mon 08:00-17:60 UTC",
        ] {
            assert!(bad.parse::<ChangeWindow>().is_err(), "{bad}");
        }
    }
}
