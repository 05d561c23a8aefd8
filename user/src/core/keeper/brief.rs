//! Links that die as soon as they are up: what lies on the way lets a handshake pass and nothing else, or one end gives
//! up what the other has just proved. Each is searched for like any other, so without pauses two users would
//! ask the Room and dial each other as fast as their machines can.

use std::time::{Duration, Instant};

use super::{SEARCH_FIRST, pause_after};

/// A link that lasted this long has been pause enough. It is short, because paths that are cut again and again are to be
/// found again at once each time.
pub(super) const LASTED: Duration = SEARCH_FIRST;
/// So many in a row cost no pause: a path that is being mended may go a few times.
pub(super) const FREE: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Brief {
    /// A link has come up since there was none.
    linked: bool,
    /// When one was first seen.
    since: Option<Instant>,
    /// Times in a row that all were gone at once.
    times: u32,
}

impl Brief {
    /// A link came up.
    pub(super) fn came_up(&mut self) {
        self.linked = true;
    }

    /// There is a link now.
    pub(super) fn is_up(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// There is no link now. If one just went: how long to wait before the next search, if at all.
    pub(super) fn is_gone(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take();
        if !std::mem::take(&mut self.linked) {
            return None;
        }
        if since.is_some_and(|since| since + LASTED <= now) {
            self.times = 0;
            return None;
        }
        self.times += 1;
        self.times.checked_sub(FREE + 1).map(pause_after)
    }
}
