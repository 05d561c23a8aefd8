//! Which rungs to try, when, and the story of it for people.
//!
//! Attempts are staggered, best rung first. When nothing direct has answered after [`RELAY_AFTER`], the relay
//! is tried beside it, so that the two can talk while direct attempts go on. A rung counts when a handshake
//! has proved it, and no attempt starts that could not improve on the best one proved so far. A channel that
//! ended up on the relay, or on a worse direct rung than was offered, climbs again after 5 s, 15 s, 60 s and then
//! every 5 min.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{RelayToken, RungOffer};

/// How long direct rungs are tried alone.
pub(crate) const RELAY_AFTER: Duration = Duration::from_millis(250);
/// Between the first attempts of two direct rungs.
const RUNG_STAGGER: Duration = Duration::from_millis(100);
/// Between two addresses of one rung.
const ADDRESS_STAGGER: Duration = Duration::from_millis(50);
/// The asked side leaves this head start to the side that asked, whose dial usually is enough.
const ASKED_LATER: Duration = Duration::from_millis(60);
/// The side that was asked waits at least and at most so long for a sign of life on a link that it believes in.
const SIGN_OF_LIFE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// When a channel that is not on the best rung offered tries to climb, counted from the last attempt.
const CLIMBS: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(300)];

/// Where an attempt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A peer's listener.
    Address(SocketAddr),
    /// The Room's relay, with this token.
    Relay(RelayToken),
}

/// One thing to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) rung: Rung,
    pub(crate) target: Target,
    /// Counted from the introduction.
    pub(crate) after: Duration,
}

/// The attempts for a set of offers, in the order of their start.
pub(crate) fn schedule(offers: &[RungOffer], asked: bool) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let direct = offers.iter().filter(|offer| offer.rung.is_direct());
    let head_start = if asked { ASKED_LATER } else { Duration::ZERO };
    let mut rungs = 0;
    for offer in direct {
        let start = RUNG_STAGGER * rungs + head_start;
        rungs += 1;
        for (index, &address) in offer.dial.iter().enumerate() {
            let after = start + ADDRESS_STAGGER * index as u32;
            attempts.push(Attempt { rung: offer.rung, target: Target::Address(address), after });
        }
    }
    let relay_after = if rungs == 0 { Duration::ZERO } else { RELAY_AFTER };
    for offer in offers {
        if let (Rung::Relay, Some(token)) = (offer.rung, offer.relay) {
            attempts.push(Attempt { rung: Rung::Relay, target: Target::Relay(token), after: relay_after });
        }
    }
    attempts.sort_by_key(|attempt| attempt.after);
    attempts
}

/// True if a proved `rung` would improve on `best`.
pub(crate) fn improves(rung: Rung, best: Option<Rung>) -> bool {
    best.is_none_or(|best| rung < best)
}

/// How long the side that was asked waits for a sign of life on the link it has before it dials beside it: the peer may
/// have asked because that link is dead the other way, or only in order to climb from it. `rtt` is the link's.
pub(crate) fn sign_of_life(rtt: Option<Duration>) -> Duration {
    let [least, most] = SIGN_OF_LIFE;
    rtt.map_or(RELAY_AFTER, |rtt| (rtt * 4).clamp(least, most))
}

/// How long a channel below the best rung offered waits before its next climb, after so many.
pub(crate) fn climb_after(climbs: usize) -> Duration {
    CLIMBS[climbs.min(CLIMBS.len() - 1)]
}

/// What happened on the way to a peer, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Instant,
    pub(crate) rung: Option<Rung>,
    pub(crate) what: String,
}

/// The latest steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Story {
    steps: std::collections::VecDeque<Step>,
}

/// Steps that are kept.
const STEPS: usize = 64;

impl Story {
    pub(crate) fn tell(&mut self, at: Instant, rung: Option<Rung>, what: String) {
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(Step { at, rung, what });
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1000))
    }

    fn offers() -> Vec<RungOffer> {
        vec![
            RungOffer { rung: Rung::Lan, dial: vec![address(1), address(2)], relay: None },
            RungOffer { rung: Rung::Public, dial: vec![address(3)], relay: None },
            RungOffer { rung: Rung::Relay, dial: Vec::new(), relay: Some(RelayToken([1; 32])) },
        ]
    }

    #[test]
    fn better_rungs_start_earlier_and_the_relay_after_a_quarter_of_a_second() {
        let attempts = schedule(&offers(), false);
        let times: Vec<_> = attempts.iter().map(|a| (a.rung, a.after.as_millis())).collect();
        assert_eq!(times, [(Rung::Lan, 0), (Rung::Lan, 50), (Rung::Public, 100), (Rung::Relay, 250)]);
    }

    #[test]
    fn the_relay_is_tried_at_once_when_nothing_else_is_offered() {
        let attempts = schedule(&offers()[2..], false);
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].after, Duration::ZERO);
    }

    #[test]
    fn the_side_that_asked_dials_first() {
        let (asker, asked) = (schedule(&offers(), false), schedule(&offers(), true));
        assert!(asker[0].after < asked[0].after);
        assert_eq!(asker.last().unwrap().after, asked.last().unwrap().after);
    }

    #[test]
    fn only_a_better_rung_is_worth_an_attempt() {
        assert!(improves(Rung::Relay, None));
        assert!(improves(Rung::Lan, Some(Rung::Relay)));
        assert!(!improves(Rung::Lan, Some(Rung::Lan)));
        assert!(!improves(Rung::Relay, Some(Rung::Public)));
    }

    #[test]
    fn a_link_has_a_few_round_trips_to_show_that_it_lives() {
        let ms = Duration::from_millis;
        assert_eq!(sign_of_life(Some(ms(1))), ms(100));
        assert_eq!(sign_of_life(Some(ms(100))), ms(400));
        assert_eq!(sign_of_life(Some(ms(900))), ms(1000));
        assert_eq!(sign_of_life(None), ms(250));
    }

    #[test]
    fn climbs_grow_rarer() {
        let waits: Vec<u64> = (0..6).map(|n| climb_after(n).as_secs()).collect();
        assert_eq!(waits, [5, 15, 60, 300, 300, 300]);
    }

    #[test]
    fn a_story_keeps_its_latest_steps() {
        let mut story = Story::default();
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let at = Instant::now();
        for number in 0..100 {
            story.tell(at, None, number.to_string());
        }
        assert_eq!(story.steps().count(), 64);
        assert_eq!(story.steps().last().unwrap().what, "99");
    }
}
