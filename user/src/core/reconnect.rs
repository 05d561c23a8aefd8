//! When to try the Room again.
//!
//! Full jitter: each wait is drawn evenly from zero to a ceiling that doubles from
//! [`RECONNECT_FIRST`] to [`RECONNECT_MOST`], so that users that lost their Room at the same moment do not
//! come back at the same moment (Brooker, "Exponential Backoff And Jitter", 2015). On its way it rests at `SOON` for
//! `QUICK` attempts, since most Rooms that go are being started again and relayed conversations wait for them. What
//! the Room asks for comes first: a wait it named is never cut short. A connection that lasted starts the ceiling
//! anew; one that broke at once does not.

use std::time::Duration;

use parlor_protocol::limits::{RECONNECT_FIRST, RECONNECT_MOST};

/// A connection that lasted this long was good: twice the longest wait, so that a Room that takes
/// users in and drops them is not asked ever faster.
pub const STABLE: Duration = Duration::from_secs(60);

/// The ceiling at which the waits rest: wide enough that a thousand users are five hundred logins a second.
const SOON: Duration = Duration::from_secs(2);
/// Attempts with a ceiling of at most [`SOON`]: about half a minute of them, and no more for a Room that cannot stay up.
const QUICK: u32 = 32;

/// The waits between attempts to reach the Room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait. `random` is 64 random bits; `asked` is what the Room asked to wait at least.
    pub fn next(&mut self, random: u64, asked: Option<Duration>) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        let ceiling_us = ceiling.as_micros() as u64;
        // Multiply and shift: `random` scaled to 0..=ceiling without a division's bias.
        let jitter_us = (u128::from(random) * u128::from(ceiling_us + 1)) >> 64;
        asked.unwrap_or_default().saturating_add(Duration::from_micros(jitter_us as u64))
    }

    /// A connection that lasted `lived` has ended.
    pub fn ended(&mut self, lived: Duration) {
        if lived >= STABLE {
            self.failures = 0;
        }
    }

    fn ceiling(&self) -> Duration {
        let doubled = |from: Duration, times: u32| from.saturating_mul(1 << times.min(16));
        match self.failures.checked_sub(QUICK) {
            None => doubled(RECONNECT_FIRST, self.failures).min(SOON),
            Some(slow) => doubled(SOON * 2, slow).min(RECONNECT_MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ceiling_doubles_rests_at_two_seconds_and_goes_on_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let longest: Vec<u64> = (0..40).map(|_| backoff.next(u64::MAX, None).as_millis() as u64).collect();
        assert_eq!(longest[..4], [250, 500, 1000, 2000]);
        assert!(longest[4..32].iter().all(|&most| most == 2000), "{longest:?}");
        assert_eq!(longest[32..], [4000, 8000, 16000, 30000, 30000, 30000, 30000, 30000]);
        assert_eq!(backoff.next(0, None), Duration::ZERO);
    }

    #[test]
    fn a_room_that_went_twenty_times_in_a_row_is_tried_again_within_seconds() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            assert!(backoff.next(u64::MAX, None) <= SOON);
            backoff.ended(Duration::from_secs(1));
        }
    }

    #[test]
    fn a_wait_that_the_room_asked_for_is_never_cut_short() {
        let mut backoff = Backoff::default();
        let asked = Duration::from_secs(90);
        assert_eq!(backoff.next(0, Some(asked)), asked);
        assert!(backoff.next(u64::MAX, Some(asked)) > asked);
    }

    #[test]
    fn only_a_connection_that_lasted_starts_the_ceiling_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..QUICK {
            backoff.next(0, None);
        }
        backoff.ended(Duration::from_secs(1));
        assert_eq!(backoff.next(u64::MAX, None), Duration::from_secs(4));
        backoff.ended(STABLE);
        assert_eq!(backoff.next(u64::MAX, None), RECONNECT_FIRST);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_what_was_asked_and_half_a_minute(
            draws in proptest::collection::vec(any::<u64>(), 1..100),
            asked in 0u64..1_000_000,
        ) {
            let mut backoff = Backoff::default();
            for random in draws {
                let wait = backoff.next(random, Some(Duration::from_millis(asked)));
                prop_assert!(wait >= Duration::from_millis(asked));
                prop_assert!(wait <= Duration::from_millis(asked) + RECONNECT_MOST);
            }
        }
    }
}
