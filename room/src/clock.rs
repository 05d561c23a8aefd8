//! The one place of this crate that reads a clock.

use std::time::{Instant, SystemTime};

use crate::core::Now;

/// The time now, monotonic and by the calendar. A calendar before 1970 counts as 1970.
#[expect(clippy::disallowed_methods, reason = "the shell's one clock; cores take `Now` as an argument")]
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}
