//! Which two links the Room splices into one.
//!
//! A link that waits and goes meanwhile is found out when the other one comes, and the pair ends at once.
//!
//! An introduction that offers the relay gives each of its two users a token. A token is good for one link
//! and for [`RELAY_TOKEN_LIFETIME`]; when both links have shown theirs, the pair runs, and counts
//! against what each of the two, and all together, may have at once. Tokens that are out count, too, so that
//! nobody holds the Room's sockets with links that wait. The Room learns from a token which pair it belongs
//! to, and nothing of what the pair says.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use parlor_protocol::limits::RELAY_TOKEN_LIFETIME;
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::RelayToken;

use super::LinkId;

/// Tells one relayed pair from every other of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId(pub u64);

/// Tokens that are out at once, in all. An introduction makes two, and they live 30 s.
const TOKENS: usize = 262_144;

/// Offers that a user may have out at once, in its pairs: those that it asked for, and those that others asked
/// it for, which it cannot help.
const OFFERS_PER_PAIR: [usize; 2] = [2, 8];

/// Pairs that wait and pairs that run.
#[derive(Debug)]
pub struct Relay {
    pairs_per_user: usize,
    pairs_total: usize,
    /// Links that wait, of all users.
    waiting: usize,
    /// Offers of a user: those that it asked for, those that it was asked for.
    offers_of: HashMap<UserName, [usize; 2]>,
    next: u64,
    tokens: HashMap<RelayToken, Half>,
    /// Offers by age: the oldest is the first to expire.
    offers: BTreeMap<PairId, Offer>,
    running: BTreeMap<PairId, Running>,
    running_of: HashMap<UserName, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Half {
    pair: PairId,
    side: usize,
}

#[derive(Debug)]
struct Offer {
    users: [UserName; 2],
    tokens: [RelayToken; 2],
    waiting: [Option<(LinkId, IpAddr)>; 2],
    expires: Instant,
}

#[derive(Debug)]
struct Running {
    users: [UserName; 2],
    addresses: [IpAddr; 2],
}

/// What becomes of a link that showed a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// It waits for the other one.
    Waits,
    /// Both are there.
    Ready {
        /// The pair.
        pair: PairId,
        /// Its links.
        links: [LinkId; 2],
        /// Whose they are, in the same order.
        users: [UserName; 2],
    },
    /// The link is refused, and with it one that waits, if any.
    Refused {
        /// Why.
        code: CloseCode,
        /// The link that waited.
        waiting: Option<LinkId>,
    },
}

impl Relay {
    /// No pairs. A user may have `pairs_per_user` at once, all together `pairs_total`.
    pub fn new(pairs_per_user: usize, pairs_total: usize) -> Self {
        Self {
            pairs_per_user,
            pairs_total,
            waiting: 0,
            offers_of: HashMap::new(),
            next: 0,
            tokens: HashMap::new(),
            offers: BTreeMap::new(),
            running: BTreeMap::new(),
            running_of: HashMap::new(),
        }
    }

    /// True if these two, of whom the first asks, may be offered a relayed pair.
    pub fn may_offer(&self, users: [&UserName; 2]) -> bool {
        let room = self.tokens.len() < TOKENS && self.running.len() < self.pairs_total;
        room && users.iter().enumerate().all(|(side, user)| {
            let offers = self.offers_of.get(*user).map_or(0, |offers| offers[side]);
            self.may(user) && offers < self.pairs_per_user.saturating_mul(OFFERS_PER_PAIR[side])
        })
    }

    /// Makes `tokens` good for these two users, in this order, of whom the first asks. They must be fresh random
    /// bytes. False: there are too many already, and the tokens are good for nothing.
    pub fn offer(&mut self, users: [UserName; 2], tokens: [RelayToken; 2], now: Instant) -> bool {
        if !self.may_offer([&users[0], &users[1]]) {
            return false;
        }
        for (side, user) in users.iter().enumerate() {
            self.offers_of.entry(user.clone()).or_default()[side] += 1;
        }
        let pair = PairId(self.next);
        self.next += 1;
        for (side, token) in tokens.iter().enumerate() {
            self.tokens.insert(*token, Half { pair, side });
        }
        let offer = Offer { users, tokens, waiting: [None, None], expires: now + RELAY_TOKEN_LIFETIME };
        self.offers.insert(pair, offer);
        true
    }

    /// A link from `from` shows a token.
    pub fn arrive(&mut self, link: LinkId, from: IpAddr, token: &RelayToken, now: Instant) -> Arrival {
        let refused = |code| Arrival::Refused { code, waiting: None };
        let Some(Half { pair, side }) = self.tokens.remove(token) else {
            return refused(CloseCode::Introduction);
        };
        let crowded = self.waiting >= self.pairs_total;
        let Some(offer) = self.offers.get_mut(&pair) else { return refused(CloseCode::Introduction) };
        if offer.expires <= now {
            return refused(CloseCode::TimedOut);
        }
        if crowded && offer.waiting == [None, None] {
            return refused(CloseCode::LimitExceeded);
        }
        self.waiting += 1;
        offer.waiting[side] = Some((link, from));
        let [Some(first), Some(second)] = offer.waiting else { return Arrival::Waits };
        let Some(offer) = self.take_offer(pair) else { return refused(CloseCode::Internal) };
        if self.running.len() >= self.pairs_total || !offer.users.iter().all(|user| self.may(user)) {
            let other = if side == 0 { second.0 } else { first.0 };
            return Arrival::Refused { code: CloseCode::LimitExceeded, waiting: Some(other) };
        }
        for user in &offer.users {
            *self.running_of.entry(user.clone()).or_default() += 1;
        }
        let running = Running { users: offer.users.clone(), addresses: [first.1, second.1] };
        self.running.insert(pair, running);
        Arrival::Ready { pair, links: [first.0, second.0], users: offer.users }
    }

    /// A pair has ended.
    pub fn ended(&mut self, pair: PairId) {
        let Some(running) = self.running.remove(&pair) else { return };
        for user in running.users {
            if let Some(count) = self.running_of.get_mut(&user) {
                *count -= 1;
                if *count == 0 {
                    self.running_of.remove(&user);
                }
            }
        }
    }

    /// Voids tokens that were not used in time. Returns the links that waited in vain.
    pub fn expire(&mut self, now: Instant) -> Vec<LinkId> {
        let mut in_vain = Vec::new();
        while let Some((&pair, offer)) = self.offers.first_key_value() {
            if offer.expires > now {
                break;
            }
            in_vain.extend(self.drop_offer(pair));
        }
        in_vain
    }

    /// Voids what a user was offered. Returns the links that waited.
    pub fn void_offers_of(&mut self, user: &UserName) -> Vec<LinkId> {
        self.void_offers(|offer| offer.users.contains(user))
    }

    /// Voids the offers for which a link from an address that `matches` waits. Returns the links that waited.
    pub fn void_offers_from(&mut self, matches: impl Fn(IpAddr) -> bool) -> Vec<LinkId> {
        self.void_offers(|offer| offer.waiting.iter().flatten().any(|(_, ip)| matches(*ip)))
    }

    fn void_offers(&mut self, hit: impl Fn(&Offer) -> bool) -> Vec<LinkId> {
        let hits: Vec<PairId> =
            self.offers.iter().filter(|(_, offer)| hit(offer)).map(|(pair, _)| *pair).collect();
        hits.into_iter().flat_map(|pair| self.drop_offer(pair)).collect()
    }

    /// The running pairs that a user has.
    pub fn pairs_of(&self, user: &UserName) -> Vec<PairId> {
        self.running.iter().filter(|(_, pair)| pair.users.contains(user)).map(|(id, _)| *id).collect()
    }

    /// The running pairs with an end at an address that `matches`.
    pub fn pairs_from(&self, matches: impl Fn(IpAddr) -> bool) -> Vec<PairId> {
        let hit = |pair: &Running| pair.addresses.iter().any(|ip| matches(*ip));
        self.running.iter().filter(|(_, pair)| hit(pair)).map(|(id, _)| *id).collect()
    }

    /// How many pairs run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    fn drop_offer(&mut self, pair: PairId) -> Vec<LinkId> {
        let Some(offer) = self.take_offer(pair) else { return Vec::new() };
        offer.waiting.into_iter().flatten().map(|(link, _)| link).collect()
    }

    fn take_offer(&mut self, pair: PairId) -> Option<Offer> {
        let offer = self.offers.remove(&pair)?;
        for token in offer.tokens {
            self.tokens.remove(&token);
        }
        self.waiting -= offer.waiting.iter().flatten().count();
        for (side, user) in offer.users.iter().enumerate() {
            if let Some(offers) = self.offers_of.get_mut(user) {
                offers[side] -= 1;
                if *offers == [0, 0] {
                    self.offers_of.remove(user);
                }
            }
        }
        Some(offer)
    }

    /// True if the user may have another relayed pair.
    fn may(&self, user: &UserName) -> bool {
        self.running_of.get(user).copied().unwrap_or(0) < self.pairs_per_user
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn users() -> [UserName; 2] {
        ["Foo", "Bar"].map(|name| name.parse().unwrap())
    }

    fn offered(relay: &mut Relay, n: u8, now: Instant) -> [RelayToken; 2] {
        let tokens = [RelayToken([n; 32]), RelayToken([n + 100; 32])];
        assert!(relay.offer(users(), tokens, now));
        tokens
    }

    #[test]
    fn two_links_with_the_tokens_of_one_pair_are_spliced_and_a_token_works_once() {
        let (mut relay, now) = (Relay::new(4, 100), Instant::now());
        let [one, other] = offered(&mut relay, 1, now);
        assert_eq!(relay.arrive(LinkId(1), HERE, &other, now), Arrival::Waits);
        assert_eq!(
            relay.arrive(LinkId(2), HERE, &other, now),
            Arrival::Refused { code: CloseCode::Introduction, waiting: None }
        );
        assert_eq!(
            relay.arrive(LinkId(3), HERE, &one, now),
            Arrival::Ready { pair: PairId(0), links: [LinkId(3), LinkId(1)], users: users() }
        );
        assert_eq!(relay.running(), 1);
        assert_eq!(relay.pairs_of(&"foo".parse().unwrap()), [PairId(0)]);
        assert_eq!(relay.pairs_from(|ip| ip == HERE), [PairId(0)]);
        relay.ended(PairId(0));
        assert_eq!((relay.running(), relay.running_of.len(), relay.tokens.len()), (0, 0, 0));
        assert_eq!((relay.waiting, relay.offers_of.len()), (0, 0));
    }

    #[test]
    fn a_token_that_is_not_used_in_time_is_void_and_who_waited_is_told() {
        let (mut relay, now) = (Relay::new(4, 100), Instant::now());
        let [one, other] = offered(&mut relay, 1, now);
        relay.arrive(LinkId(1), HERE, &one, now);
        assert!(relay.expire(now + RELAY_TOKEN_LIFETIME / 2).is_empty());
        assert_eq!(relay.expire(now + RELAY_TOKEN_LIFETIME), [LinkId(1)]);
        assert!(matches!(relay.arrive(LinkId(2), HERE, &other, now), Arrival::Refused { .. }));
        assert!(relay.tokens.is_empty() && relay.offers.is_empty());
    }

    #[test]
    fn a_user_holds_so_many_offers_and_no_more_until_they_expire() {
        let (mut relay, now) = (Relay::new(2, 100), Instant::now());
        for n in 0..4 {
            offered(&mut relay, n, now);
        }
        let token = |n| RelayToken([n; 32]);
        let [foo, bar] = users();
        assert!(!relay.offer([foo.clone(), bar.clone()], [token(50), token(51)], now));
        assert!(relay.offer([bar, foo], [token(52), token(53)], now), "Bar has asked for none yet");
        assert_eq!(
            relay.arrive(LinkId(1), HERE, &token(50), now),
            Arrival::Refused { code: CloseCode::Introduction, waiting: None }
        );
        relay.expire(now + RELAY_TOKEN_LIFETIME);
        assert!(relay.offers_of.is_empty());
        offered(&mut relay, 9, now);
    }

    #[test]
    fn all_users_together_have_so_many_pairs_and_links_that_wait() {
        let (mut relay, now) = (Relay::new(4, 1), Instant::now());
        let [one, other] = offered(&mut relay, 1, now);
        let [third, fourth] = offered(&mut relay, 2, now);
        let [fifth, _] = offered(&mut relay, 3, now);
        assert_eq!(relay.arrive(LinkId(1), HERE, &one, now), Arrival::Waits);
        let full = |waiting| Arrival::Refused { code: CloseCode::LimitExceeded, waiting };
        assert_eq!(relay.arrive(LinkId(5), HERE, &fifth, now), full(None));
        assert!(matches!(relay.arrive(LinkId(2), HERE, &other, now), Arrival::Ready { .. }));
        assert_eq!(relay.arrive(LinkId(3), HERE, &third, now), Arrival::Waits);
        assert_eq!(relay.arrive(LinkId(4), HERE, &fourth, now), full(Some(LinkId(3))));
        let [foo, bar] = users();
        assert!(!relay.may_offer([&foo, &bar]));
        relay.ended(PairId(0));
        assert!(relay.may_offer([&foo, &bar]));
    }

    #[test]
    fn what_a_user_was_offered_can_be_voided_and_who_waits_is_told() {
        let (mut relay, now) = (Relay::new(4, 100), Instant::now());
        let [one, other] = offered(&mut relay, 1, now);
        relay.arrive(LinkId(1), HERE, &one, now);
        assert!(relay.void_offers_of(&"Baz".parse().unwrap()).is_empty());
        assert_eq!(relay.void_offers_from(|ip| ip == HERE), [LinkId(1)]);
        assert!(matches!(relay.arrive(LinkId(2), HERE, &other, now), Arrival::Refused { .. }));
        let [one, other] = offered(&mut relay, 2, now);
        relay.arrive(LinkId(3), HERE, &one, now);
        assert_eq!(relay.void_offers_of(&"bar".parse().unwrap()), [LinkId(3)]);
        assert!(matches!(relay.arrive(LinkId(4), HERE, &other, now), Arrival::Refused { .. }));
        assert_eq!((relay.waiting, relay.offers_of.len(), relay.tokens.len()), (0, 0, 0));
    }

    #[test]
    fn a_user_has_so_many_pairs_and_no_more() {
        let (mut relay, now) = (Relay::new(1, 100), Instant::now());
        let [first, second] = offered(&mut relay, 1, now);
        let [third, fourth] = offered(&mut relay, 2, now);
        relay.arrive(LinkId(1), HERE, &first, now);
        relay.arrive(LinkId(2), HERE, &second, now);
        assert!(!relay.may(&"Foo".parse().unwrap()) && relay.may(&"Baz".parse().unwrap()));
        relay.arrive(LinkId(3), HERE, &third, now);
        assert_eq!(
            relay.arrive(LinkId(4), HERE, &fourth, now),
            Arrival::Refused { code: CloseCode::LimitExceeded, waiting: Some(LinkId(3)) }
        );
        relay.ended(PairId(0));
        assert!(relay.may(&"Foo".parse().unwrap()));
    }
}
