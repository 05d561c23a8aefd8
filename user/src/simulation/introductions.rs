//! Introductions and who comes with one: what `hub/{introductions,arrivals}.rs` do, in their order.

use std::rc::Rc;
use std::time::Duration;

use parlor_protocol::introduction::{Introduction, SignedIntroduction};
use parlor_protocol::limits::WHOLE_LOGIN;
use parlor_protocol::refusal::PairRefusal;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{Introduce, Introduced, RungOffer, ToRoom};

use super::network::{ConnKey, End, Packet, Role, Way};
use super::note;
use super::room::{public_address, room_identity};
use super::user::Known;
use super::world::{What, World};
use crate::error::OpenError;

/// As in `hub/arrivals.rs`.
const EARLY: Duration = Duration::from_secs(2);
/// As in `hub/introductions.rs`.
const BUSY_TRIES: u32 = 8;

impl World {
    /// Asks for an introduction for the search that goes on.
    pub(super) fn introduce(&mut self, user: usize, run: u32, peer: usize) {
        let name = self.users[peer].name.clone();
        let Some(process) = self.process(user, run) else { return };
        if !process.room_up {
            return self.introduce_from_memory(user, run, peer);
        }
        let request = process.next_request;
        process.next_request += 1;
        process.requests.insert(request, peer);
        let control = process.control;
        if let Some(conn) = control {
            self.say_to_room(conn, ToRoom::Introduce(Introduce { request, peer: name }));
        }
        self.schedule(self.now + WHOLE_LOGIN, What::RequestDeadline { user, run, request });
    }

    pub(super) fn on_request_deadline(&mut self, user: usize, run: u32, request: u32) {
        let peer = self.process(user, run).and_then(|p| p.requests.remove(&request));
        if let Some(peer) = peer {
            self.introduce_from_memory(user, run, peer);
        }
    }

    pub(super) fn introduce_from_memory(&mut self, user: usize, run: u32, peer: usize) {
        let (now, name) = (self.now, self.users[peer].name.clone());
        let Some(process) = self.process(user, run) else { return };
        let latest = process.latest.get(&peer).filter(|(known, _)| known.until > now).cloned();
        let result = match latest {
            None => Err(OpenError::RoomLost(name)),
            Some((known, offers)) => {
                Ok((known, offers.into_iter().filter(|offer| offer.rung.is_direct()).collect()))
            }
        };
        self.search_introduced(user, run, peer, result);
    }

    pub(super) fn on_introduced(&mut self, user: usize, run: u32, request: u32, introduced: &Introduced) {
        let peer = self.process(user, run).and_then(|p| p.requests.remove(&request));
        // One that nobody waits for is dropped, as there.
        let Some(peer) = peer else { return };
        let result = self.know(user, run, introduced);
        self.search_introduced(user, run, peer, Ok(result));
    }

    pub(super) fn on_asked(&mut self, user: usize, run: u32, introduced: &Introduced) {
        let (known, offers) = self.know(user, run, introduced);
        if self.process(user, run).is_some_and(|p| !p.left) {
            self.ensure_conversation(user, run, known.peer);
            self.attempt(user, run, known, &offers, true);
        }
    }

    pub(super) fn on_refused(&mut self, user: usize, run: u32, request: u32, why: PairRefusal) {
        let peer = self.process(user, run).and_then(|p| p.requests.remove(&request));
        let Some(peer) = peer else { return };
        if matches!(why, PairRefusal::NoSuchPeer | PairRefusal::Blocked) {
            self.withdraw(user, run, |known| known.peer != peer);
        }
        let name = self.users[peer].name.clone();
        let error = match why {
            PairRefusal::Offline => OpenError::Offline(name),
            PairRefusal::NoSuchPeer => OpenError::NoSuchPeer(name),
            PairRefusal::Busy { retry_after_ms } if self.busy_again(user, run, peer) <= BUSY_TRIES => {
                let at = self.now + Duration::from_millis(retry_after_ms.into());
                return self.schedule(at, What::AskAgain { user, run, peer });
            }
            why => OpenError::Refused { peer: name, why },
        };
        self.search_introduced(user, run, peer, Err(error));
    }

    /// Introductions that are good for nothing any more.
    pub(super) fn withdraw(&mut self, user: usize, run: u32, stay: impl Fn(&Known) -> bool) {
        if let Some(process) = self.process(user, run) {
            process.introductions.retain(|_, known| stay(known));
            process.latest.retain(|_, (known, _)| stay(known));
        }
    }

    fn busy_again(&mut self, user: usize, run: u32, peer: usize) -> u32 {
        let Some(conversation) = self.conversation(user, run, peer) else { return 0 };
        conversation.busy += 1;
        conversation.busy
    }

    /// Verifies an introduction and remembers it.
    fn know(&mut self, user: usize, run: u32, introduced: &Introduced) -> (Rc<Known>, Vec<RungOffer>) {
        let introduction = self.verified(&introduced.introduction);
        let name = self.users[user].name.clone();
        let (me, peer) = introduction.sides(&name).expect("an introduction of this user");
        assert_eq!(me.identity, self.users[user].identity.public());
        let peer = self.number_of(&peer.name);
        let until = self.now + introduction.lifetime();
        let known = Rc::new(Known { id: introduction.id, peer, until, introduction });
        let offers = introduced.rungs.clone();
        if let Some(process) = self.process(user, run) {
            process.introductions.insert(known.id, Rc::clone(&known));
            process.latest.insert(peer, (Rc::clone(&known), offers.clone()));
        }
        let me = End::User(user, run);
        let early: Vec<(ConnKey, usize)> = self
            .network
            .conns
            .iter()
            .flat_map(|(key, c)| (0..2).map(move |end| (*key, end, c)))
            .filter(|(_, end, c)| {
                c.ends[*end] == me && matches!(c.roles[*end], Role::Early(id) if id == known.id)
            })
            .map(|(key, end, _)| (key, end))
            .collect();
        for (key, end) in early {
            let role = Role::Answering { known: Rc::clone(&known), attempt: None, terms: None };
            self.set_role(key, end, role);
            self.answer_what_waited(key, end);
        }
        (known, offers)
    }

    /// Both users verify the same statement: once is enough here.
    fn verified(&mut self, signed: &SignedIntroduction) -> Introduction {
        if let Some((_, known)) = self.verified.iter().find(|(s, _)| s == signed) {
            return known.clone();
        }
        let introduction = signed.verify(&room_identity().public()).expect("the Room's own statement");
        self.verified.push_back((signed.clone(), introduction.clone()));
        if self.verified.len() > 8 {
            self.verified.pop_front();
        }
        introduction
    }

    // Arrivals on the listener.

    pub(super) fn user_hears(&mut self, user: usize, run: u32, key: ConnKey, end: usize, packet: Packet) {
        match (self.role(key, end), packet) {
            (Role::Control, Packet::ToUser(frame)) => self.on_control(user, run, key, *frame),
            (Role::New, Packet::Preface(id)) => {
                let now = self.now;
                let Some(process) = self.process(user, run) else { return };
                if process.left {
                    return self.close(key, end);
                }
                if self.blocks_arrival(user, run, key) {
                    note!(self, "{user} drops {key:?}: it comes from a blacklisted address");
                    return self.close(key, end);
                }
                let Some(process) = self.process(user, run) else { return };
                match process.introductions.get(&id).filter(|known| known.until > now).cloned() {
                    Some(known) => {
                        self.set_role(key, end, Role::Answering { known, attempt: None, terms: None });
                    }
                    None => {
                        self.set_role(key, end, Role::Early(id));
                        self.schedule(self.now + EARLY, What::EarlyDeadline { conn: key, end });
                    }
                }
            }
            (Role::Early(_), packet) => {
                self.early.insert(key, packet);
            }
            (role, packet) => self.handshake_or_record(user, run, key, end, role, packet),
        }
    }

    /// True if the peer that dialed comes from where this user takes nobody from.
    fn blocks_arrival(&self, user: usize, run: u32, key: ConnKey) -> bool {
        let Some(conn) = self.network.conns.get(&key) else { return false };
        let (End::User(from, _), Way::Direct(_, _, Rung::Public)) = (conn.ends[0], conn.way) else {
            return false;
        };
        let process = self.users[user].process.as_ref().filter(|p| p.run == run);
        process.is_some_and(|p| p.blocks(public_address(from)))
    }

    fn answer_what_waited(&mut self, key: ConnKey, end: usize) {
        if let Some(packet) = self.early.remove(&key)
            && let Some(End::User(user, run)) = self.network.conns.get(&key).map(|c| c.ends[end])
        {
            self.user_hears(user, run, key, end, packet);
        }
    }

    pub(super) fn on_early_deadline(&mut self, key: ConnKey, end: usize) {
        if matches!(self.role(key, end), Role::Early(_)) {
            self.early.remove(&key);
            self.close(key, end);
        }
    }
}
