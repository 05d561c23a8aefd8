//! Attempts without their sockets: what `conversation/climb.rs` does, in its order.

use std::rc::Rc;
use std::time::{Duration, Instant};

use parlor_protocol::limits::LINK_ATTEMPT;
use parlor_protocol::noise::payload::LinkHello;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::RungOffer;

use super::network::{ConnKey, Dialed, End, Packet, Role, Way};
use super::note;
use super::user::{AttemptKey, Known};
use super::world::{What, World};
use crate::core::ladder::{Attempt, Target, improves, schedule, sign_of_life};
use crate::error::OpenError;

/// As in `conversation/climb.rs`.
const PEER_DIALS: Duration = Duration::from_secs(1);

/// What a search waits for.
#[derive(Debug)]
pub(super) enum Search {
    /// The Room's word.
    Introduction,
    /// Its attempts.
    Attempts(u64),
}

/// Attempts of one introduction.
pub(super) struct Group {
    pub(super) user: usize,
    pub(super) run: u32,
    pub(super) peer: usize,
    asked: bool,
    began: Instant,
    best: Option<Rung>,
    linked: bool,
    /// On some rung the peer is the one to dial.
    peer_dials: bool,
    pub(super) left: Vec<AttemptKey>,
}

pub(super) struct Trying {
    pub(super) user: usize,
    pub(super) run: u32,
    group: u64,
    pub(super) attempt: Attempt,
    pub(super) asked: bool,
    began: Instant,
    pub(super) known: Rc<Known>,
    conn: Option<ConnKey>,
    pub(super) hello: Option<LinkHello>,
}

pub(super) enum Outcome {
    Linked(Rung),
    Other,
}

impl World {
    pub(super) fn begin_search(&mut self, user: usize, run: u32, peer: usize) {
        if let Some(conversation) = self.conversation(user, run, peer) {
            conversation.search = Some(Search::Introduction);
            conversation.busy = 0;
        }
        if self.plan.about_time {
            self.searches.push((self.now, user, peer));
        }
        self.introduce(user, run, peer);
    }

    /// The Room has answered, or its latest word serves.
    pub(super) fn search_introduced(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        result: Result<(Rc<Known>, Vec<RungOffer>), OpenError>,
    ) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        if !matches!(conversation.search, Some(Search::Introduction)) {
            return;
        }
        match result {
            Err(error) => self.searched(user, run, peer, Err(error)),
            Ok((known, offers)) => {
                conversation.keeper.introduced();
                self.phase_changed(user, run, peer);
                self.attempt(user, run, known, &offers, false);
            }
        }
    }

    /// A search is over.
    pub(super) fn searched(&mut self, user: usize, run: u32, peer: usize, result: Result<(), OpenError>) {
        let now = self.now;
        note!(self, "{user}>{peer} search is over: {result:?}");
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let search = conversation.search.take();
        conversation.keeper.searched(result, now);
        if let Some(Search::Attempts(group)) = search {
            self.abort(group);
        }
        self.look(user, run, peer);
    }

    /// Tries the rungs of an introduction.
    pub(super) fn attempt(
        &mut self,
        user: usize,
        run: u32,
        known: Rc<Known>,
        offers: &[RungOffer],
        asked: bool,
    ) {
        let number = self.next_group;
        self.next_group += 1;
        let best = offers.iter().map(|offer| offer.rung).min();
        if let Some(conversation) = self.conversation(user, run, known.peer) {
            conversation.keeper.offered(best);
        }
        let (peer, began) = (known.peer, self.now);
        if asked {
            self.probe(user, run, peer);
        }
        let mut left = Vec::new();
        for attempt in schedule(offers, asked) {
            let key = AttemptKey(self.next_attempt);
            self.next_attempt += 1;
            left.push(key);
            let known = Rc::clone(&known);
            let trying =
                Trying { user, run, group: number, attempt, asked, began, known, conn: None, hello: None };
            self.attempts.insert(key, trying);
            self.schedule(self.now + attempt.after, What::Try { attempt: key });
        }
        let none = left.is_empty();
        let peer_dials = offers.iter().any(|offer| offer.rung.is_direct() && offer.dial.is_empty());
        let group = Group { user, run, peer, asked, began, best, linked: false, peer_dials, left };
        self.groups.insert(number, group);
        if !asked && let Some(conversation) = self.conversation(user, run, peer) {
            conversation.search = Some(Search::Attempts(number));
        }
        if none {
            self.tried(number);
        }
    }

    fn probe(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.channel.probe();
        if let Some(conn) = conversation.active() {
            self.flush(user, run, conn);
        }
    }

    pub(super) fn on_try(&mut self, key: AttemptKey) {
        let Some(trying) = self.attempts.get(&key) else { return };
        let (user, run, peer, attempt) = (trying.user, trying.run, trying.known.peer, trying.attempt);
        let (asked, began) = (trying.asked, trying.began);
        let conversation = self.conversation(user, run, peer);
        let best = conversation.as_ref().and_then(|c| c.sound_rung(asked, began));
        let believed = conversation.and_then(|c| Some((c.channel.sound_rung()?, c.channel.path()?.2)));
        if !improves(attempt.rung, best) {
            return self.outcome(key, Outcome::Other);
        }
        if let Some((rung, rtt)) = believed
            && asked
            && !improves(attempt.rung, Some(rung))
            && began + sign_of_life(rtt) > self.now
        {
            return self.schedule(began + sign_of_life(rtt), What::Try { attempt: key });
        }
        self.schedule(self.now + LINK_ATTEMPT, What::AttemptDeadline { attempt: key });
        let (way, other) = match attempt.target {
            Target::Address(address) => {
                if self.process(user, run).is_some_and(|p| p.blocks(address.ip())) {
                    return self.attempt_failed(key, "blacklisted");
                }
                let Some((listener, listener_run)) = self.listener_at(address) else {
                    return self.attempt_failed(key, "nobody listens there");
                };
                (Way::direct(user, listener, attempt.rung), End::User(listener, listener_run))
            }
            Target::Relay(_) => (Way::Room(user), End::Room(self.room.run)),
        };
        let dialed = match (other, self.room.core.is_some()) {
            (End::Room(_), false) => Dialed::Refused,
            _ => self.dial_outcome(way),
        };
        match dialed {
            Dialed::Works => {
                let conn = self.connect(way, [End::User(user, run), other]);
                self.set_role(conn, 0, Role::Dialing(key));
                self.schedule(self.now + LINK_ATTEMPT, What::AnswerDeadline { conn, end: 1 });
                if let Some(trying) = self.attempts.get_mut(&key) {
                    trying.conn = Some(conn);
                }
                let after = self.network.ways[&way].latency * 2;
                self.schedule(self.now + after, What::Connected { attempt: key, conn });
            }
            Dialed::Refused => self.attempt_failed(key, "refused"),
            Dialed::Silence => {}
        }
    }

    pub(super) fn on_connected(&mut self, key: AttemptKey, conn: ConnKey) {
        let Some(trying) = self.attempts.get(&key) else { return };
        match trying.attempt.target {
            Target::Address(_) => {
                self.transmit(conn, 0, Packet::Preface(trying.known.id));
                self.open_handshake(key, conn);
            }
            Target::Relay(token) => self.transmit(conn, 0, Packet::Token(token)),
        }
    }

    pub(super) fn open_handshake(&mut self, key: AttemptKey, conn: ConnKey) {
        let Some(trying) = self.attempts.get(&key) else { return };
        let (user, run, peer, rung) = (trying.user, trying.run, trying.known.peer, trying.attempt.rung);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let hello = conversation.channel.hello();
        if let Some(trying) = self.attempts.get_mut(&key) {
            trying.hello = Some(hello);
        }
        let sealed = self.seal_hello(key, conn, rung, &hello);
        self.transmit(conn, 0, Packet::Hello(rung, hello, sealed));
    }

    pub(super) fn on_attempt_deadline(&mut self, key: AttemptKey) {
        if self.attempts.contains_key(&key) {
            self.attempt_failed(key, "timed out");
        }
    }

    pub(super) fn attempt_failed(&mut self, key: AttemptKey, why: &str) {
        if let Some(trying) = self.attempts.get(&key) {
            note!(self, "{}>{} {} fails: {why}", trying.user, trying.known.peer, trying.attempt.rung);
        }
        self.outcome(key, Outcome::Other);
    }

    pub(super) fn outcome(&mut self, key: AttemptKey, outcome: Outcome) {
        let Some(trying) = self.attempts.remove(&key) else { return };
        if let Some(conn) = trying.conn
            && !matches!(self.role(conn, 0), Role::Link { .. })
        {
            self.close(conn, 0);
        }
        let Some(group) = self.groups.get_mut(&trying.group) else { return };
        group.left.retain(|left| *left != key);
        let (user, run, peer, best) = (group.user, group.run, group.peer, group.best);
        let (asked, began) = (group.asked, group.began);
        let mut over = group.left.is_empty();
        if let Outcome::Linked(rung) = outcome {
            group.linked = true;
            over |= best.is_none_or(|best| rung <= best);
        }
        let at = self.conversation(user, run, peer).and_then(|c| c.sound_rung(asked, began));
        over |= at.is_some_and(|rung| best.is_none_or(|best| rung <= best));
        if over {
            self.tried(trying.group);
        }
    }

    /// Every attempt has come to something.
    fn tried(&mut self, number: u64) {
        let Some(group) = self.groups.get(&number) else { return };
        let (user, run, peer) = (group.user, group.run, group.peer);
        let at = self.conversation(user, run, peer).and_then(|c| c.best());
        let Some(group) = self.groups.get_mut(&number) else { return };
        if !(group.peer_dials && !group.linked && at.is_none()) {
            return self.finish(number);
        }
        group.peer_dials = false;
        self.schedule(self.now + PEER_DIALS, What::PeerDialed { group: number });
    }

    /// The peer had its time to dial, or has.
    pub(super) fn finish(&mut self, number: u64) {
        let Some(group) = self.groups.get(&number) else { return };
        let (user, run, peer, linked, asked) = (group.user, group.run, group.peer, group.linked, group.asked);
        self.abort(number);
        if asked {
            return;
        }
        let name = self.users[peer].name.clone();
        let room_up = self.process(user, run).is_some_and(|p| p.room_up);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let result = if linked || conversation.best().is_some() {
            Ok(())
        } else if !room_up {
            // The Room would have offered more.
            Err(OpenError::RoomLost(name))
        } else {
            Err(OpenError::NoPath { peer: name, tried: String::new() })
        };
        self.searched(user, run, peer, result);
    }

    /// Nobody wants a link any more.
    pub(super) fn call_off(&mut self, user: usize, run: u32, peer: usize) {
        let ours = |group: &Group| (group.user, group.run, group.peer) == (user, run, peer);
        let asked: Vec<u64> =
            self.groups.iter().filter(|(_, g)| ours(g) && g.asked).map(|(number, _)| *number).collect();
        for group in asked {
            self.abort(group);
        }
        if self.conversation(user, run, peer).is_some_and(|c| c.search.is_some()) {
            self.searched(user, run, peer, Ok(()));
        }
    }

    /// Drops the attempts that go on.
    fn abort(&mut self, number: u64) {
        let Some(group) = self.groups.remove(&number) else { return };
        for key in group.left {
            if let Some(trying) = self.attempts.remove(&key)
                && let Some(conn) = trying.conn
                && !matches!(self.role(conn, 0), Role::Link { .. })
            {
                self.close(conn, 0);
            }
        }
    }
}
