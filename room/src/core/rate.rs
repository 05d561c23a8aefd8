//! A bucket of tokens: so many at once, then so many a second.

use std::time::{Duration, Instant};

/// Allows a burst and then a steady rate. Time comes in as an argument; it never runs backwards here.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    /// Tokens a second; 0 means that there is no limit.
    rate: u64,
    burst: u64,
    /// Tokens there are, in billionths; negative while a debt is being paid off.
    nano_tokens: i128,
    at: Instant,
}

const NANO: i128 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket of `burst` tokens that fills again with `rate` tokens a second. A rate of 0 sets no limit.
    pub fn new(rate: u64, burst: u64, now: Instant) -> Self {
        Self { rate, burst, nano_tokens: i128::from(burst) * NANO, at: now }
    }

    /// Takes `count` tokens if they are there; else takes none and says how long until they will be.
    pub fn try_take(&mut self, count: u64, now: Instant) -> Result<(), Duration> {
        if self.rate == 0 {
            return Ok(());
        }
        self.fill(now);
        let short = i128::from(count) * NANO - self.nano_tokens;
        if short > 0 {
            return Err(self.time_for(short));
        }
        self.nano_tokens -= i128::from(count) * NANO;
        Ok(())
    }

    /// Takes `count` tokens, into debt if need be, and says how long to pause until the debt is paid.
    pub fn take(&mut self, count: u64, now: Instant) -> Option<Duration> {
        if self.rate == 0 {
            return None;
        }
        self.fill(now);
        self.nano_tokens -= i128::from(count) * NANO;
        (self.nano_tokens < 0).then(|| self.time_for(-self.nano_tokens))
    }

    /// Whole tokens that are there; as many as ever if there is no limit.
    pub fn level(&mut self, now: Instant) -> u64 {
        if self.rate == 0 {
            return self.burst;
        }
        self.fill(now);
        u64::try_from(self.nano_tokens.max(0) / NANO).unwrap_or(u64::MAX)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let gained =
            i128::from(self.rate) * i128::from(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        self.nano_tokens = (self.nano_tokens + gained).min(i128::from(self.burst) * NANO);
    }

    fn time_for(&self, nano_tokens: i128) -> Duration {
        let rate = i128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from((nano_tokens + rate - 1) / rate).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3, start);
        for _ in 0..3 {
            assert_eq!(bucket.try_take(1, start), Ok(()));
        }
        assert_eq!(bucket.try_take(1, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.try_take(1, start + Duration::from_millis(100)), Ok(()));
        assert!(
            bucket.try_take(4, start + Duration::from_secs(60)).is_err(),
            "more than the burst never passes"
        );
    }

    #[test]
    fn a_debt_is_waited_for() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, 500, start);
        assert_eq!(bucket.take(500, start), None);
        assert_eq!(bucket.take(250, start), Some(Duration::from_millis(250)));
        assert_eq!(bucket.take(1, start + Duration::from_millis(250)), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_rate_of_zero_sets_no_limit() {
        let start = Instant::now();
        assert_eq!(TokenBucket::new(0, 0, start).take(u64::MAX, start), None);
        assert_eq!(TokenBucket::new(0, 0, start).try_take(u64::MAX, start), Ok(()));
    }
}
