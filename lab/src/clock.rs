//! The laboratory's only clock. Deadlines of waits are taken from it.

use std::time::Instant;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "real programs run against real time; this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds on the clock that all processes of a machine share, also across network namespaces.
pub(crate) fn monotonic() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // Every Linux has this clock, and it does not run backwards from 0.
    time.map_or(0, |time| (time.tv_sec() * 1_000_000_000 + time.tv_nsec()).unsigned_abs())
}
