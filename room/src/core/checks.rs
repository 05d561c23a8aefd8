//! Which addresses the Room dials to see whether a user is there, how many at once, and how often.
//!
//! The Room is no tool to dial others with. So there are few checks at once, one address can cause only a part of
//! them, and an address that its user does not come from is dialled a few times a second, whoever asks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::rate::TokenBucket;
use super::{ConnId, Source};

/// Checks at once, in all.
const AT_ONCE: usize = 32;
/// Checks at once that users of one address cause.
const OF_ONE_ADDRESS: usize = 8;
/// Checks of an address that none of its askers comes from: so many at once, and then so many a second.
const OF_ONE_TARGET: [u64; 2] = [8, 1];
/// Such addresses that are remembered; then no more are checked until some are forgotten.
const TARGETS: usize = 4_096;
/// When to try again if there is no place.
const AGAIN: Duration = Duration::from_secs(1);

/// The checks under way, and what was dialled lately.
#[derive(Debug, Default)]
pub struct Checks {
    running: HashMap<(ConnId, u32), Source>,
    targets: HashMap<Source, TokenBucket>,
}

impl Checks {
    /// A place for a check of `target` for a user of `asker`, or how long it has to wait. A check is told from all
    /// others by its connection and generation, and must be given back to [`ended`](Self::ended).
    pub fn start(
        &mut self,
        check: (ConnId, u32),
        asker: Source,
        target: Source,
        now: Instant,
    ) -> Result<(), Duration> {
        let of_asker = self.running.values().filter(|source| **source == asker).count();
        if self.running.len() >= AT_ONCE || of_asker >= OF_ONE_ADDRESS {
            return Err(AGAIN);
        }
        if asker != target {
            self.target(target, now)?;
        }
        self.running.insert(check, asker);
        Ok(())
    }

    fn target(&mut self, target: Source, now: Instant) -> Result<(), Duration> {
        let [burst, rate] = OF_ONE_TARGET;
        if self.targets.len() >= TARGETS {
            self.targets.retain(|_, bucket| bucket.level(now) < burst);
        }
        if self.targets.len() >= TARGETS && !self.targets.contains_key(&target) {
            return Err(AGAIN);
        }
        self.targets.entry(target).or_insert_with(|| TokenBucket::new(rate, burst, now)).try_take(1, now)
    }

    /// A check has its answer.
    pub fn ended(&mut self, check: (ConnId, u32)) {
        self.running.remove(&check);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use super::*;

    fn source(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    #[test]
    fn one_address_has_a_part_of_the_places_and_gets_them_back() {
        let (mut checks, now) = (Checks::default(), Instant::now());
        let mut next = 0;
        let mut start = |checks: &mut Checks, asker: u8| {
            next += 1;
            checks.start((ConnId(next), 1), source(asker), source(asker), now).is_ok()
        };
        assert_eq!((0..100).filter(|_| start(&mut checks, 1)).count(), OF_ONE_ADDRESS);
        assert!(start(&mut checks, 2));
        checks.ended((ConnId(1), 1));
        assert!(start(&mut checks, 1) && !start(&mut checks, 1));
        let others = (3..100).filter(|asker| start(&mut checks, *asker)).count();
        assert_eq!(others, AT_ONCE - OF_ONE_ADDRESS - 1);
    }

    #[test]
    fn a_stranger_is_dialled_a_few_times_a_second_however_many_ask_for_it() {
        let (mut checks, start) = (Checks::default(), Instant::now());
        let mut dialled = 0;
        for second in 0..10 {
            for asker in 0..200u8 {
                let check = (ConnId(u64::from(asker)), second);
                let now = start + Duration::from_secs(second.into());
                dialled += usize::from(checks.start(check, source(asker), source(250), now).is_ok());
                checks.ended(check);
            }
        }
        assert_eq!(dialled, 8 + 9);
    }
}
