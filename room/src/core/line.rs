//! Who has its password verified next, where there are more logins than threads for that.
//!
//! A login's place depends on what is known of it and of the address it comes from, never on whether its name has an
//! account: a name that nobody has waits exactly as long as one that somebody has.
//!
//! - Who has proved the identity that its account belongs to goes first, in order of arrival: no guesser can.
//! - Then addresses from which somebody is logged in, then the others, and last those with a score; and among these
//!   whoever has asked least often lately. So an address that asks sixty times stands behind everybody who asks once.
//!   A second of waiting counts as asking again: who was there a moment before a crowd, and had to go for it, is not
//!   behind those of the crowd that had a place.
//! - Among those that have asked equally often the newest goes first. Where more ask than can be verified, most of those
//!   that have waited for long wait in vain, whatever the order: newest first, the others are served at once (known from
//!   overloaded servers as *adaptive LIFO*: Maurer, "Fail at Scale", ACM Queue 13(8), 2015). Those that have waited for a
//!   second come after them, in order of arrival: who came a moment before a few others does not wait for all of them.
//!
//! None of these keeps the ones after it out for good, but for those with a score: a class that is passed over three times
//! in a row has the fourth turn, and the first of it a place in a full line. Else two users that log in again and again
//! would keep everybody else outside. So crowds of neighbours and of strangers may each take a quarter of the turns.
//!
//! So who is nobody yet and comes to a Room under siege is served before everybody who has asked before and goes on asking,
//! however many those are. What holds it up is a flow of addresses that have *not* asked within [`REMEMBERED`], of more a second than
//! the Room verifies passwords: nothing tells it from those.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parlor_protocol::limits::PENALTY_TABLE;

use super::Source;
use super::penalty::make_room;

/// Who goes first; the higher, the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precedence {
    /// Its address has a score.
    Suspect(Reverse<u32>),
    /// Nothing is held against it. So often has its address asked before.
    Stranger(Reverse<u32>),
    /// Nothing is held against its address, and somebody from there is logged in.
    Neighbour(Reverse<u32>),
    /// It has proved the identity that the account belongs to.
    Known,
}

impl Precedence {
    fn class(self) -> Class {
        match self {
            Precedence::Suspect(_) => Class::Suspect,
            Precedence::Stranger(_) => Class::Stranger,
            Precedence::Neighbour(_) => Class::Neighbour,
            Precedence::Known => Class::Known,
        }
    }
}

/// What is known of who waits, however often its address has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Suspect,
    Stranger,
    Neighbour,
    Known,
}

/// So often in a row a class may be passed over by those above it.
const PASSED_OVER: u32 = 3;
/// Those that are not passed over more often.
const HAVE_A_TURN: [Class; 2] = [Class::Neighbour, Class::Stranger];

/// Those that wait, of which there are so many at most.
#[derive(Debug)]
pub struct Line<T> {
    waiting: Vec<Waiting<T>>,
    most: usize,
    came: u64,
    /// How often in a row each of [`HAVE_A_TURN`] was passed over.
    passed_over: [u32; HAVE_A_TURN.len()],
}

#[derive(Debug)]
struct Waiting<T> {
    precedence: Precedence,
    since: Instant,
    /// Who came later has a higher one.
    number: u64,
    who: T,
}

impl<T> Waiting<T> {
    /// The higher, the earlier.
    fn rank(&self, now: Instant) -> (Precedence, (bool, u64)) {
        let in_order = u64::MAX - self.number;
        let waited = now.saturating_duration_since(self.since).as_secs();
        let among_equals = if waited == 0 { (true, self.number) } else { (false, in_order) };
        let times =
            |asked: Reverse<u32>| Reverse(asked.0.saturating_add(u32::try_from(waited).unwrap_or(u32::MAX)));
        match self.precedence {
            Precedence::Known => (Precedence::Known, (true, in_order)),
            Precedence::Neighbour(asked) => (Precedence::Neighbour(times(asked)), among_equals),
            Precedence::Stranger(asked) => (Precedence::Stranger(times(asked)), among_equals),
            Precedence::Suspect(asked) => (Precedence::Suspect(times(asked)), among_equals),
        }
    }
}

impl<T> Line<T> {
    /// A line in which `most` can wait.
    pub fn new(most: usize) -> Self {
        Self { waiting: Vec::new(), most, came: 0, passed_over: [0; HAVE_A_TURN.len()] }
    }

    /// Has it wait, and says who has to go for want of a place: whoever is last, and that may be who came.
    #[must_use]
    pub fn join(&mut self, precedence: Precedence, who: T, now: Instant) -> Option<T> {
        self.came += 1;
        self.waiting.push(Waiting { precedence, since: now, number: self.came, who });
        if self.waiting.len() <= self.most {
            return None;
        }
        let spared = self.spared(now);
        let ranks = self.waiting.iter().enumerate().filter(|(at, _)| !spared.contains(&Some(*at)));
        let (_, last) = ranks.map(|(at, waiting)| (waiting.rank(now), at)).min()?;
        Some(self.waiting.remove(last).who)
    }

    /// Whose turn it is.
    pub fn take(&mut self, now: Instant) -> Option<T> {
        let mut due =
            HAVE_A_TURN.into_iter().zip(self.passed_over).filter(|&(_, times)| times >= PASSED_OVER);
        let due = due.find_map(|(class, _)| self.first(now, |other| other == class));
        let at = due.or_else(|| self.first(now, |_| true))?;
        let taken = self.waiting.remove(at);
        for (nth, class) in HAVE_A_TURN.into_iter().enumerate() {
            self.passed_over[nth] = match class.cmp(&taken.precedence.class()) {
                Ordering::Greater => continue,
                Ordering::Less if self.first(now, |other| other == class).is_some() => {
                    self.passed_over[nth] + 1
                }
                Ordering::Less | Ordering::Equal => 0,
            };
        }
        Some(taken.who)
    }

    /// Who keeps its place in a full line, whoever comes: the first of those that are to have a turn, if others have one, too.
    fn spared(&self, now: Instant) -> [Option<usize>; HAVE_A_TURN.len()] {
        let enough = self.most > HAVE_A_TURN.len();
        HAVE_A_TURN.map(|class| self.first(now, |other| enough && other == class))
    }

    /// Where the one stands that is before all others of such a class.
    fn first(&self, now: Instant, is_meant: impl Fn(Class) -> bool) -> Option<usize> {
        let meant = self.waiting.iter().enumerate().filter(|(_, other)| is_meant(other.precedence.class()));
        meant.map(|(at, waiting)| (waiting.rank(now), at)).max().map(|(_, at)| at)
    }

    /// Lets those go that need not wait any longer.
    pub fn retain(&mut self, mut waits: impl FnMut(&T) -> bool) {
        self.waiting.retain(|waiting| waits(&waiting.who));
    }
}

/// An address that has not asked for this long asks for the first time again.
pub const REMEMBERED: Duration = Duration::from_mins(10);
/// What so many addresses of one v6 site ask, each of them asks once: a site of 65,536 is easily had.
const OF_ONE_SITE: u32 = 16;

/// How often addresses have asked lately.
#[derive(Debug, Default)]
pub struct Asks {
    of: HashMap<IpNet, Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    times: u32,
    last: Instant,
}

impl Asks {
    /// Notes that somebody at `source` asks, and says how often it has before.
    pub fn note(&mut self, source: Source, now: Instant) -> u32 {
        let own = self.count(source.net(), now);
        source.site().map_or(own, |site| own.max(self.count(site, now) / OF_ONE_SITE))
    }

    fn count(&mut self, net: IpNet, now: Instant) -> u32 {
        make_room(&mut self.of, &net, PENALTY_TABLE, |asked| asked.last);
        let asked = self.of.entry(net).or_insert(Asked { times: 0, last: now });
        if now >= asked.last + REMEMBERED {
            asked.times = 0;
        }
        let before = asked.times;
        *asked = Asked { times: before.saturating_add(1), last: now };
        before
    }

    /// Somebody at `source` has shown that it belongs here.
    pub fn forget(&mut self, source: Source) {
        self.of.remove(&source.net());
    }

    /// Forgets who has not asked for long.
    pub fn forget_old(&mut self, now: Instant) {
        self.of.retain(|_, asked| now < asked.last + REMEMBERED);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use super::Precedence::Known;
    use super::*;

    fn stranger(asked: u32) -> Precedence {
        Precedence::Stranger(Reverse(asked))
    }

    fn suspect(asked: u32) -> Precedence {
        Precedence::Suspect(Reverse(asked))
    }

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    /// Those who come, in the order in which it is their turn; and who was sent away, in that order.
    fn served(most: usize, who: &[(u32, Precedence)]) -> (Vec<u32>, Vec<u32>) {
        let mut line = Line::new(most);
        let now = Instant::now();
        let away =
            who.iter().filter_map(|(number, precedence)| line.join(*precedence, *number, now)).collect();
        (std::iter::from_fn(|| line.take(now)).collect(), away)
    }

    #[test]
    fn who_is_known_goes_before_its_neighbours_those_before_strangers_and_those_before_who_has_a_score() {
        let neighbour = Precedence::Neighbour(Reverse(9));
        let who =
            [(1, suspect(0)), (2, stranger(9)), (3, Known), (4, stranger(0)), (5, Known), (6, neighbour)];
        assert_eq!(served(9, &who), (vec![3, 5, 6, 4, 2, 1], vec![]));
    }

    #[test]
    fn who_asks_for_the_first_time_goes_before_who_has_asked() {
        let who = [(1, stranger(0)), (2, stranger(1)), (3, stranger(0)), (4, stranger(2)), (5, stranger(1))];
        assert_eq!(served(9, &who), (vec![3, 1, 5, 2, 4], vec![]));
    }

    #[test]
    fn of_equals_the_newest_is_next_and_after_a_second_the_first_that_came() {
        let (mut line, start) = (Line::new(9), Instant::now());
        for number in 1..=5 {
            let _ = line.join(stranger(0), number, start);
        }
        let later = start + Duration::from_secs(1);
        let _ = line.join(stranger(1), 6, later);
        let turns = [start, later, later, later, later, later].map(|now| line.take(now));
        assert_eq!(turns, [5, 6, 1, 2, 3, 4].map(Some));
    }

    #[test]
    fn users_that_log_in_again_and_again_keep_nobody_else_outside_but_who_has_a_score() {
        let (mut line, now) = (Line::new(32), Instant::now());
        let neighbour = Precedence::Neighbour(Reverse(0));
        for (precedence, who) in
            [(suspect(0), "suspect"), (stranger(0), "stranger"), (neighbour, "neighbour")]
        {
            let _ = line.join(precedence, who, now);
        }
        let turns: Vec<&str> = std::iter::from_fn(|| {
            let _ = line.join(Known, "user", now);
            line.take(now)
        })
        .take(40)
        .collect();
        assert_eq!(turns[..6], ["user", "user", "user", "neighbour", "stranger", "user"]);
        assert!(turns[6..].iter().all(|who| *who == "user"));
    }

    #[test]
    fn a_line_full_of_users_has_a_place_for_others_and_they_have_their_turns() {
        let (mut line, now) = (Line::new(32), Instant::now());
        for _ in 0..32 {
            let _ = line.join(Known, "user", now);
        }
        let mut turns = 0;
        for _ in 0..100 {
            let _ = line.join(stranger(0), "stranger", now);
            let _ = line.join(Known, "user", now);
            turns += u32::from(line.take(now) == Some("stranger"));
        }
        assert_eq!(turns, 25);
    }

    #[test]
    fn who_comes_now_and_then_goes_before_a_flood_of_strangers_each_time() {
        let (mut line, now) = (Line::new(100), Instant::now());
        for _ in 0..50 {
            let _ = line.join(stranger(0), "guesser", now);
        }
        for _ in 0..10 {
            assert_eq!(line.take(now), Some("guesser"));
            let _ = line.join(Known, "user", now);
            assert_eq!(line.take(now), Some("user"));
        }
    }

    #[test]
    fn who_had_to_go_for_a_crowd_and_comes_back_is_not_behind_those_that_wait_since() {
        let (mut line, start) = (Line::new(32), Instant::now());
        let _ = line.join(stranger(0), "unlucky", start);
        let away: Vec<&str> = (0..32).filter_map(|_| line.join(stranger(0), "crowd", start)).collect();
        assert_eq!(away, ["unlucky"]);
        let again = start + Duration::from_secs(1);
        assert_eq!(line.join(stranger(1), "unlucky", again), Some("crowd"));
        assert_eq!(line.take(again), Some("unlucky"));
    }

    #[test]
    fn in_a_full_line_whoever_is_last_has_to_go_and_that_may_be_who_came() {
        let who = [(1, stranger(0)), (2, stranger(3)), (3, stranger(4)), (4, stranger(0)), (5, Known)];
        assert_eq!(served(2, &who), (vec![5, 4], vec![3, 2, 1]));
        assert_eq!(served(0, &[(1, Known)]), (vec![], vec![1]));
        assert_eq!(served(1, &[(1, Known), (2, Known)]), (vec![1], vec![2]), "the known are served in order");
    }

    #[test]
    fn an_address_that_asks_again_and_again_stands_behind_one_that_asks_once() {
        let (mut asks, mut line, now) = (Asks::default(), Line::new(32), Instant::now());
        for n in 0..60 {
            let asked = asks.note(source("192.0.2.1"), now);
            let _ = line.join(stranger(asked), n, now);
        }
        let asked = asks.note(source("192.0.2.2"), now);
        assert!(line.join(stranger(asked), 100, now).is_some_and(|who| who < 60));
        let order: Vec<u32> = std::iter::from_fn(|| line.take(now)).collect();
        assert_eq!(order[..3], [100, 0, 1][..], "of two that ask for the first time, the newer goes first");
    }

    #[test]
    fn five_hundred_addresses_that_keep_asking_hold_up_nobody_who_asks_for_the_first_time() {
        let (mut asks, mut line, mut now) = (Asks::default(), Line::new(32), Instant::now());
        let attacker = |n: u32| source(&std::net::Ipv4Addr::from(0xc612_0000 + n).to_string());
        for round in 0..20 {
            for n in 0..500 {
                let asked = asks.note(attacker(n), now);
                let _ = line.join(stranger(asked), Some(n), now);
            }
            let asked = asks.note(source(&format!("192.0.2.{round}")), now);
            assert_eq!(line.join(stranger(asked), None, now).map(|away| away.is_some()), Some(true));
            assert_eq!(line.take(now), Some(None), "in round {round}");
            now += Duration::from_secs(20);
        }
    }

    #[test]
    fn asks_are_forgotten_when_none_came_for_long_and_when_an_account_begins_there() {
        let (mut asks, start) = (Asks::default(), Instant::now());
        let (first, other) = (source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!([0, 1, 2].map(|_| asks.note(first, start)), [0, 1, 2]);
        assert_eq!(asks.note(other, start), 0);
        asks.forget(first);
        assert_eq!([asks.note(first, start), asks.note(other, start)], [0, 1]);
        let (soon, later) = (start + Duration::from_mins(9), start + REMEMBERED);
        assert_eq!(asks.note(other, soon), 2);
        assert_eq!(asks.note(first, later), 0);
        asks.forget_old(later + REMEMBERED);
        assert!(asks.of.is_empty());
    }

    #[test]
    fn a_v6_site_with_very_many_addresses_is_found_out() {
        let (mut asks, now) = (Asks::default(), Instant::now());
        let of_the_site = |n: u32| source(&format!("2001:db8:1:{n:x}::1"));
        let asked: Vec<u32> = (0..64).map(|n| asks.note(of_the_site(n), now)).collect();
        assert_eq!([asked[0], asked[15], asked[16], asked[63]], [0, 0, 1, 3]);
        assert_eq!(asks.note(source("2001:db8:2::1"), now), 0, "another site");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut asks, now) = (Asks::default(), Instant::now());
        for n in 0..PENALTY_TABLE as u32 + 100 {
            asks.note(Source::of(std::net::Ipv4Addr::from(n).into()), now);
        }
        assert_eq!(asks.of.len(), PENALTY_TABLE);
    }
}
