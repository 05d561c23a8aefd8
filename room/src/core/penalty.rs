//! What misbehaviour costs the address it came from, never the account it was aimed at.
//!
//! A [`Penalties`] score is a time: it decays by a second a second, and from
//! [`PENALTY_ACTS_FROM`] on the address is kept out until it is used
//! up. An address that is kept out again and again may be kept out for good, if the operator says so. Loopback
//! addresses collect no score: every program of the machine comes from there, and none is a stranger.
//!
//! [`Throttle`] counts failed logins by address and account.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parlor_protocol::limits::{
    LOGINS_PER_MINUTE, PENALTY_ACTS_FROM, PENALTY_CAP, PENALTY_MALFORMED, PENALTY_TABLE, PENALTY_TIMED_OUT,
    PENALTY_WRONG_PASSWORD,
};
use parlor_protocol::name::UserName;

use super::Source;

/// What an address did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// A wrong password, an unknown name, a proof that does not match.
    WrongPassword,
    /// Bytes that no user of this protocol sends.
    Malformed,
    /// A deadline passed before it logged in.
    TimedOut,
}

impl Offence {
    fn cost(self) -> Duration {
        match self {
            Offence::WrongPassword => PENALTY_WRONG_PASSWORD,
            Offence::Malformed => PENALTY_MALFORMED,
            Offence::TimedOut => PENALTY_TIMED_OUT,
        }
    }
}

/// What a penalty leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Noted,
    /// The address is kept out until then.
    Barred {
        /// When it may come back.
        until: Instant,
    },
    /// The operator's policy keeps it out for good.
    ForGood,
}

/// The scores of all addresses. At most [`PENALTY_TABLE`] are remembered.
#[derive(Debug)]
pub struct Penalties {
    scores: HashMap<Source, Score>,
    ban_forever_after: Option<u32>,
    capacity: usize,
}

#[derive(Debug, Clone, Copy)]
struct Score {
    height: Duration,
    at: Instant,
    bars: u32,
    barred_until: Option<Instant>,
}

impl Score {
    fn left(&self, now: Instant) -> Duration {
        self.height.saturating_sub(now.saturating_duration_since(self.at))
    }
}

impl Penalties {
    /// No scores. After `ban_forever_after` times of being kept out, an address is kept out for good.
    pub fn new(ban_forever_after: Option<u32>) -> Self {
        Self { scores: HashMap::new(), ban_forever_after, capacity: PENALTY_TABLE }
    }

    /// Charges `source` with an offence.
    pub fn charge(&mut self, source: Source, offence: Offence, now: Instant) -> Verdict {
        if source.is_loopback() {
            return Verdict::Noted;
        }
        make_room(&mut self.scores, &source, self.capacity, |score| score.left(now));
        let entry = self.scores.entry(source).or_insert(Score {
            height: Duration::ZERO,
            at: now,
            bars: 0,
            barred_until: None,
        });
        entry.height = (entry.left(now) + offence.cost()).min(PENALTY_CAP);
        entry.at = now;
        if entry.height < PENALTY_ACTS_FROM {
            return Verdict::Noted;
        }
        // What comes while it is kept out already (connections that were open) lengthens the same bar.
        if entry.barred_until.is_none_or(|until| until <= now) {
            entry.bars += 1;
        }
        let until = now + entry.height;
        entry.barred_until = Some(until);
        if self.ban_forever_after.is_some_and(|most| entry.bars > most) {
            self.scores.remove(&source);
            return Verdict::ForGood;
        }
        Verdict::Barred { until }
    }

    /// Until when a source is kept out, if it is.
    pub fn barred_until(&self, source: Source, now: Instant) -> Option<Instant> {
        self.scores.get(&source)?.barred_until.filter(|until| *until > now)
    }

    /// True if the address has failed lately and that is not used up.
    pub fn has_score(&self, source: Source, now: Instant) -> bool {
        self.scores.get(&source).is_some_and(|score| score.left(now) > Duration::ZERO)
    }

    /// Who is kept out now, and until when.
    pub fn barred(&self, now: Instant) -> impl Iterator<Item = (Source, Instant)> {
        self.scores.iter().filter_map(move |(source, score)| {
            score.barred_until.filter(|until| *until > now).map(|until| (*source, until))
        })
    }

    /// Forgets what the addresses of a network did. True if one of them was kept out.
    pub fn pardon(&mut self, net: IpNet, now: Instant) -> bool {
        let mut any = false;
        self.scores.retain(|source, score| {
            let pardoned = net.contains(&source.net());
            any |= pardoned && score.barred_until.is_some_and(|until| until > now);
            !pardoned
        });
        any
    }

    /// Forgets scores that were used up long ago; with them, how often the address was kept out.
    pub fn forget_old(&mut self, now: Instant) {
        self.scores.retain(|_, score| score.left(now) > Duration::ZERO || now < score.at + REMEMBERED);
    }
}

/// How long it is remembered how often an address was kept out.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Failed logins a minute by address and account.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: HashMap<(Source, UserName), Vec<Instant>>,
}

const MINUTE: Duration = Duration::from_mins(1);

impl Throttle {
    /// Whether another attempt is allowed; else how long to wait.
    pub fn check(&self, source: Source, name: &UserName, now: Instant) -> Result<(), Duration> {
        let Some(failures) = self.failures.get(&(source, name.clone())) else { return Ok(()) };
        let recent: Vec<Instant> = failures.iter().copied().filter(|at| now < *at + MINUTE).collect();
        if recent.len() < LOGINS_PER_MINUTE as usize {
            return Ok(());
        }
        let oldest = recent[recent.len() - LOGINS_PER_MINUTE as usize];
        Err((oldest + MINUTE).saturating_duration_since(now))
    }

    /// True if there was a failure within the last minute.
    pub fn has_failures(&self, source: Source, name: &UserName, now: Instant) -> bool {
        let failures = self.failures.get(&(source, name.clone()));
        failures.and_then(|failures| failures.last()).is_some_and(|at| now < *at + MINUTE)
    }

    /// Notes a failed attempt.
    pub fn failed(&mut self, source: Source, name: &UserName, now: Instant) {
        let key = (source, name.clone());
        make_room(&mut self.failures, &key, PENALTY_TABLE, |failures| failures.last().copied());
        let failures = self.failures.entry(key).or_default();
        failures.retain(|at| now < *at + MINUTE);
        failures.push(now);
        if failures.len() > LOGINS_PER_MINUTE as usize {
            failures.remove(0);
        }
    }

    /// Forgets failures of more than a minute ago.
    pub fn forget_old(&mut self, now: Instant) {
        self.failures.retain(|_, failures| failures.last().is_some_and(|at| now < *at + MINUTE));
    }
}

/// Makes room for `key` in a full table: of a few entries the one that matters least goes.
pub(super) fn make_room<K: Hash + Eq + Clone, V, R: Ord>(
    table: &mut HashMap<K, V>,
    key: &K,
    capacity: usize,
    matters: impl Fn(&V) -> R,
) {
    const LOOKED_AT: usize = 16;
    if table.len() < capacity || table.contains_key(key) {
        return;
    }
    let least =
        table.iter().take(LOOKED_AT).min_by_key(|(_, value)| matters(value)).map(|(key, _)| key.clone());
    if let Some(least) = least {
        table.remove(&least);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use super::*;

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from(0xc000_0200 + n).into())
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_slip_costs_nothing_and_the_third_in_a_row_is_kept_out() {
        let (mut penalties, now) = (Penalties::new(None), Instant::now());
        assert_eq!(penalties.charge(source(1), Offence::WrongPassword, now), Verdict::Noted);
        assert_eq!(penalties.charge(source(1), Offence::WrongPassword, now), Verdict::Noted);
        let verdict = penalties.charge(source(1), Offence::WrongPassword, now);
        assert_eq!(verdict, Verdict::Barred { until: now + secs(15) });
        assert_eq!(penalties.charge(source(2), Offence::WrongPassword, now), Verdict::Noted);
    }

    #[test]
    fn a_score_decays_by_a_second_a_second_and_is_capped() {
        let (mut penalties, now) = (Penalties::new(None), Instant::now());
        penalties.charge(source(1), Offence::TimedOut, now);
        assert_eq!(penalties.charge(source(1), Offence::WrongPassword, now + secs(8)), Verdict::Noted);
        for _ in 0..20 {
            penalties.charge(source(1), Offence::Malformed, now + secs(8));
        }
        let verdict = penalties.charge(source(1), Offence::Malformed, now + secs(8));
        assert_eq!(verdict, Verdict::Barred { until: now + secs(8) + PENALTY_CAP });
    }

    #[test]
    fn an_address_that_keeps_coming_back_is_kept_out_for_good_if_the_operator_says_so() {
        let (mut penalties, mut now) = (Penalties::new(Some(2)), Instant::now());
        for _ in 0..2 {
            assert!(matches!(penalties.charge(source(1), Offence::Malformed, now), Verdict::Barred { .. }));
            // Still inside the same bar: it counts once.
            assert!(matches!(penalties.charge(source(1), Offence::Malformed, now), Verdict::Barred { .. }));
            now += secs(1000);
        }
        assert_eq!(penalties.charge(source(1), Offence::Malformed, now), Verdict::ForGood);
    }

    #[test]
    fn the_machine_itself_is_never_kept_out() {
        let (mut penalties, now) = (Penalties::new(Some(0)), Instant::now());
        let loopback = Source::of([127, 0, 0, 1].into());
        for _ in 0..100 {
            assert_eq!(penalties.charge(loopback, Offence::Malformed, now), Verdict::Noted);
        }
    }

    #[test]
    fn who_is_kept_out_is_listed_and_can_be_pardoned() {
        let (mut penalties, now) = (Penalties::new(None), Instant::now());
        penalties.charge(source(1), Offence::Malformed, now);
        penalties.charge(source(2), Offence::TimedOut, now);
        assert_eq!(penalties.barred(now).collect::<Vec<_>>(), [(source(1), now + secs(90))]);
        assert_eq!(penalties.barred_until(source(1), now), Some(now + secs(90)));
        assert_eq!(penalties.barred_until(source(1), now + secs(90)), None);
        assert_eq!(penalties.barred_until(source(2), now), None, "charged, and not kept out");
        assert!(penalties.pardon("192.0.2.0/24".parse().unwrap(), now));
        assert!(!penalties.pardon("192.0.2.0/24".parse().unwrap(), now));
        assert_eq!(penalties.barred(now).count(), 0);
    }

    #[test]
    fn the_table_stays_bounded_and_keeps_who_is_worst() {
        let (mut penalties, now) = (Penalties::new(None), Instant::now());
        penalties.capacity = 16;
        penalties.charge(source(0), Offence::Malformed, now);
        for n in 1..200 {
            penalties.charge(source(n), Offence::WrongPassword, now);
        }
        assert_eq!(penalties.scores.len(), 16);
        assert!(penalties.scores.contains_key(&source(0)));
        penalties.forget_old(now + REMEMBERED + secs(700));
        assert!(penalties.scores.is_empty());
    }

    #[test]
    fn three_failures_a_minute_and_the_fourth_waits() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let foo: UserName = "Foo".parse().unwrap();
        for second in 0..3 {
            assert_eq!(throttle.check(source(1), &foo, now + secs(second)), Ok(()));
            throttle.failed(source(1), &foo, now + secs(second));
        }
        assert_eq!(throttle.check(source(1), &"FOO".parse().unwrap(), now + secs(10)), Err(secs(50)));
        assert_eq!(
            throttle.check(source(2), &foo, now + secs(10)),
            Ok(()),
            "another address is not made to wait"
        );
        assert_eq!(throttle.check(source(1), &"Bar".parse().unwrap(), now + secs(10)), Ok(()));
        assert_eq!(throttle.check(source(1), &foo, now + secs(60)), Ok(()));
        throttle.forget_old(now + secs(100));
        assert!(throttle.failures.is_empty());
    }
}
