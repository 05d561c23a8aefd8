//! The one place of this crate that reads a clock. Everything else takes the time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time.
#[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970. 0 on a machine whose clock stands before that.
#[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
