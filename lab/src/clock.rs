//! The laboratory's only clock. Deadlines of waits are taken from it.

use std::time::{Instant, SystemTime};

/// The time now.
#[expect(clippy::disallowed_methods, reason = "real programs run against real time; this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970 by this process's calendar.
#[expect(
    clippy::disallowed_methods,
    reason = "the calendar as a program under test sees it; this is the one place"
)]
pub(crate) fn calendar() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Nanoseconds on the clock that all processes of a machine share, also across network namespaces.
pub(crate) fn monotonic() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // Every Linux has this clock, and it does not run backwards from 0.
    time.map_or(0, |time| (time.tv_sec() * 1_000_000_000 + time.tv_nsec()).unsigned_abs())
}
