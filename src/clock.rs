//! The clocks: one that only runs forward, and one that other machines can read.
//!
//! Leases are counted on `CLOCK_BOOTTIME`, which keeps running while the machine is suspended: a lease must
//! not survive a laptop lid or a paused virtual machine. `std::time::Instant` stops there on Linux.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Time since boot, suspension included. Only differences mean anything.
#[must_use]
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Neither part is ever negative or too large: the kernel counts from zero at boot.
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Unix time in microseconds, as this machine believes it.
#[must_use]
pub fn unix_us() -> i64 {
    micros(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// Unix time in milliseconds, as this machine believes it.
#[must_use]
pub fn unix_ms() -> i64 {
    unix_us() / 1000
}

/// A duration in microseconds, as the control tables count; more than fits is the largest.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_never_goes_back() {
        let first = boottime();
        assert!(boottime() >= first);
    }

    #[test]
    fn unix_time_is_after_2020_in_both_units() {
        assert!(unix_us() > 1_577_836_800_000_000);
        assert!((unix_us() / 1000 - unix_ms()).abs() < 1000);
    }
}
