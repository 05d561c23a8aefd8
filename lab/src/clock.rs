//! The laboratory's only clock. Deadlines of waits are taken from it.

use std::time::Instant;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "real programs run against real time; this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
