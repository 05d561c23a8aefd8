//! A bucket that many askers share, of which none can take it all.
//!
//! The upper half is for whoever comes first: a crowd that comes back together is served at once. The lower half is
//! kept for those that ask little: from there each asker has a small allowance of its own, and so has each address,
//! so that names are no way to have more. Who asks at full rate waits, and the others do not notice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parlor_protocol::name::UserName;

use super::Source;
use super::rate::TokenBucket;

/// Takings from the lower half by one asker at once, and then a second: enough for one that has lost its links and
/// searches anew.
const ASKER: [u64; 2] = [4, 1];
/// Takings from the lower half from one address at once, and then a second. Loopback has no limit of its own: every
/// program of the machine comes from there.
const ADDRESS: [u64; 2] = [64, 16];
/// Askers that are remembered, and addresses; then those that have their whole allowance are forgotten.
const REMEMBERED: usize = 1_024;

/// Allows a burst and then a steady rate over all askers.
#[derive(Debug)]
pub struct FairBucket {
    all: TokenBucket,
    half: u64,
    /// Nobody has taken from the lower half lately: then there is nothing to remember.
    shares: Option<Box<Shares>>,
}

#[derive(Debug, Default)]
struct Shares {
    askers: HashMap<UserName, TokenBucket>,
    addresses: HashMap<Source, TokenBucket>,
}

impl FairBucket {
    /// A full bucket of `burst` that fills again with `rate` a second.
    pub fn new(rate: u64, burst: u64, now: Instant) -> Self {
        Self { all: TokenBucket::new(rate, burst, now), half: burst / 2, shares: None }
    }

    /// Takes one for `asker` at `source`, or says how long it has to wait.
    pub fn try_take(&mut self, asker: &UserName, source: Source, now: Instant) -> Result<(), Duration> {
        if self.all.level(now) > self.half {
            self.shares = None;
            return self.all.try_take(1, now);
        }
        let shares = self.shares.get_or_insert_default();
        shares.take(asker, source, now)?;
        self.all.try_take(1, now)
    }
}

impl Shares {
    fn take(&mut self, asker: &UserName, source: Source, now: Instant) -> Result<(), Duration> {
        let address = (!source.is_loopback()).then(|| share(&mut self.addresses, &source, ADDRESS, now));
        if let Some(address) = address {
            address.try_take(1, now)?;
        }
        share(&mut self.askers, asker, ASKER, now).try_take(1, now)
    }
}

/// The share of one. Where there are too many, those with nothing to remember go, or else one of them.
fn share<'a, K: std::hash::Hash + Eq + Clone>(
    shares: &'a mut HashMap<K, TokenBucket>,
    key: &K,
    [burst, rate]: [u64; 2],
    now: Instant,
) -> &'a mut TokenBucket {
    if shares.len() >= REMEMBERED && !shares.contains_key(key) {
        shares.retain(|_, bucket| bucket.level(now) < burst);
        if shares.len() >= REMEMBERED
            && let Some(any) = shares.keys().next().cloned()
        {
            shares.remove(&any);
        }
    }
    shares.entry(key.clone()).or_insert_with(|| TokenBucket::new(rate, burst, now))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use super::*;

    fn name(n: u64) -> UserName {
        format!("asker{n}").parse().unwrap()
    }

    fn source(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    #[test]
    fn a_crowd_takes_the_upper_half_at_once_and_of_the_lower_everybody_something() {
        let (mut bucket, now) = (FairBucket::new(200, 1_000, Instant::now()), Instant::now());
        let served = (0..1_000).filter(|n| bucket.try_take(&name(*n), source(*n as u8), now).is_ok()).count();
        assert_eq!(served, 1_000);
        assert!(bucket.try_take(&name(0), source(0), now).is_err());
    }

    #[test]
    fn some_that_ask_at_full_rate_from_many_names_of_one_address_starve_nobody() {
        let start = Instant::now();
        let mut bucket = FairBucket::new(200, 1_000, start);
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            for greedy in 0..4 {
                let _ = bucket.try_take(&name(millis % 50), source(greedy), now);
            }
            if millis > 5_000 && millis % 1_000 == 0 {
                assert_eq!(bucket.try_take(&name(99), source(99), now), Ok(()), "after {millis} ms");
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_when_it_is_calm() {
        let start = Instant::now();
        let mut bucket = FairBucket::new(1_000_000, 4, start);
        for n in 0..3 * REMEMBERED as u64 {
            let _ = bucket.try_take(&name(n), source(n as u8), start);
        }
        let shares = bucket.shares.as_ref().unwrap();
        assert!(shares.askers.len() <= REMEMBERED && shares.addresses.len() <= REMEMBERED);
        bucket.try_take(&name(1), source(1), start + Duration::from_secs(1)).unwrap();
        assert!(bucket.shares.is_none());
    }
}
