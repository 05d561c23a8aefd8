//! A user without its sockets: what `hub.rs` and `net/room` do, in their order.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use parlor_protocol::identity::{Identity, InstanceId, Purpose};
use parlor_protocol::introduction::{Introduction, IntroductionId, SignedIntroduction};
use parlor_protocol::limits::{ROOM_DEAD, ROOM_PING, WHOLE_LOGIN};
use parlor_protocol::name::UserName;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::{CloseCode, PairRefusal};
use parlor_protocol::wire::control::{
    Credentials, Hello, Introduce, Introduced, Login, Member, Roster, RungOffer, ToRoom, ToUser,
    login_proof_message,
};

use super::conversation::Conversation;
use super::network::{ConnKey, Dialed, End, Packet, Role, Way};
use super::note;
use super::room::room_identity;
use super::world::{What, World};
use crate::core::reconnect::Backoff;
use crate::core::roster::{Change, Members};
use crate::error::OpenError;

/// As in `hub.rs`.
const EARLY: Duration = Duration::from_secs(2);
const BUSY_TRIES: u32 = 8;
const LEAVE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AttemptKey(pub(super) u64);

/// An introduction that holds.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: IntroductionId,
    pub(super) peer: usize,
    pub(super) until: Instant,
}

/// A place in the world where a user's program runs, or not.
pub(super) struct Seat {
    pub(super) name: UserName,
    pub(super) identity: Identity,
    pub(super) host: u8,
    pub(super) lan: u8,
    pub(super) lan_address: [u8; 4],
    /// Its listener can be reached from outside.
    pub(super) reachable: bool,
    pub(super) runs: u32,
    pub(super) process: Option<Process>,
}

/// One run of a user's program.
pub(super) struct Process {
    pub(super) run: u32,
    pub(super) instance: InstanceId,
    pub(super) port: u16,
    pub(super) members: Members,
    pub(super) room_up: bool,
    pub(super) control: Option<ConnKey>,
    exporter: [u8; 32],
    first_list: Option<Vec<Member>>,
    joined_at: Option<Instant>,
    has_joined: bool,
    backoff: Backoff,
    /// Who waits for an introduction, by request.
    pub(super) requests: BTreeMap<u32, usize>,
    next_request: u32,
    introductions: HashMap<IntroductionId, Rc<Known>>,
    latest: BTreeMap<usize, (Rc<Known>, Vec<RungOffer>)>,
    pub(super) peers: BTreeMap<usize, Conversation>,
    pub(super) next_link: u64,
    next_generation: u32,
    pub(super) leaving: Option<Instant>,
    pub(super) left: bool,
}

impl Process {
    /// An epoch that no conversation of this run has had.
    pub(super) fn next_epoch(&mut self) -> Epoch {
        let generation = self.next_generation;
        self.next_generation += 1;
        Epoch { instance: self.instance, generation }
    }
}

impl World {
    pub(super) fn process(&mut self, user: usize, run: u32) -> Option<&mut Process> {
        self.users[user].process.as_mut().filter(|p| p.run == run)
    }

    pub(super) fn is_up(&self, user: usize, run: u32) -> bool {
        self.users[user].process.as_ref().is_some_and(|p| p.run == run)
    }

    pub(super) fn start_user(&mut self, user: usize) {
        if self.users[user].process.is_some() {
            return;
        }
        let instance = InstanceId(self.chance.bytes32()[..16].try_into().unwrap());
        let seat = &mut self.users[user];
        seat.runs += 1;
        let run = seat.runs;
        seat.process = Some(Process {
            run,
            instance,
            port: 10_000 + user as u16 * 1000 + run as u16,
            members: Members::default(),
            room_up: false,
            control: None,
            exporter: [0; 32],
            first_list: None,
            joined_at: None,
            has_joined: false,
            backoff: Backoff::default(),
            requests: BTreeMap::new(),
            next_request: 1,
            introductions: HashMap::new(),
            latest: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_link: 1,
            next_generation: 0,
            leaving: None,
            left: false,
        });
        note!(self, "user {user} starts run {run}");
        self.on_join(user, run);
    }

    /// The program is gone. Its sockets are closed by its system, or go silent with it.
    pub(super) fn kill_user(&mut self, user: usize, silently: bool) {
        let Some(process) = self.users[user].process.take() else { return };
        let run = process.run;
        note!(self, "user {user} run {run} is killed, silently: {silently}");
        self.ledger.died(user, run);
        self.excuse_all(user);
        let me = End::User(user, run);
        let mut mine = Vec::new();
        for (key, conn) in &self.network.conns {
            for end in 0..2 {
                if conn.ends[end] == me {
                    mine.push((*key, end));
                }
            }
        }
        let attempts: Vec<AttemptKey> =
            self.attempts.iter().filter(|(_, a)| a.user == user && a.run == run).map(|(k, _)| *k).collect();
        for attempt in attempts {
            self.attempts.remove(&attempt);
        }
        self.groups.retain(|_, group| (group.user, group.run) != (user, run));
        for (key, end) in mine {
            if silently {
                self.set_role(key, end, Role::Closed);
                self.cut(key, [None, None]);
            } else {
                self.close(key, end);
            }
        }
    }

    // The Room's client.

    pub(super) fn on_join(&mut self, user: usize, run: u32) {
        let Some(process) = self.process(user, run) else { return };
        if process.control.is_some() || process.left {
            return;
        }
        let way = Way::Room(user);
        let dialed = if self.room.core.is_some() { self.dial_outcome(way) } else { Dialed::Refused };
        match dialed {
            Dialed::Works => {
                let room = End::Room(self.room.run);
                let conn = self.connect(way, [End::User(user, run), room]);
                self.set_role(conn, 0, Role::Control);
                if let Some(process) = self.process(user, run) {
                    process.control = Some(conn);
                }
                let after = self.network.ways[&way].latency * 2;
                self.schedule(self.now + after, What::ControlUp { user, run, conn });
                self.schedule(self.now + WHOLE_LOGIN, What::LoginDeadline { user, run, conn });
            }
            Dialed::Refused => self.join_later(user, run),
            Dialed::Silence => {
                let at = self.now + WHOLE_LOGIN;
                self.schedule(at, What::Join { user, run });
            }
        }
    }

    fn join_later(&mut self, user: usize, run: u32) {
        let random = self.chance.draw();
        let Some(process) = self.process(user, run) else { return };
        let wait = process.backoff.next(random, None);
        self.schedule(self.now + wait, What::Join { user, run });
    }

    pub(super) fn on_control_up(&mut self, user: usize, run: u32, conn: ConnKey) {
        if self.process(user, run).is_none_or(|p| p.control != Some(conn)) {
            return;
        }
        if self.network.conns.get(&conn).is_none_or(|c| c.dead) {
            return;
        }
        let Some(exporter) = self.room_accepts_control(conn, user) else { return };
        if let Some(process) = self.process(user, run) {
            process.exporter = exporter;
            process.first_list = Some(Vec::new());
        }
        self.say_to_room(conn, ToRoom::Hello(Hello::new("simulation")));
        self.schedule(self.now + ROOM_PING, What::UserChecks { user, run, conn });
    }

    pub(super) fn on_login_deadline(&mut self, user: usize, run: u32, conn: ConnKey) {
        let late =
            |p: &mut Process| p.control == Some(conn) && (p.first_list.is_some() || p.joined_at.is_none());
        if self.process(user, run).is_some_and(late) {
            self.connection_lost(conn, 0);
        }
    }

    pub(super) fn on_user_checks(&mut self, user: usize, run: u32, conn: ConnKey) {
        if self.process(user, run).is_none_or(|p| p.control != Some(conn)) {
            return;
        }
        let Some(c) = self.network.conns.get(&conn) else { return };
        if c.heard[0] + ROOM_DEAD <= self.now {
            self.connection_lost(conn, 0);
        } else {
            let up = self.process(user, run).is_some_and(|p| p.joined_at.is_some());
            if up {
                self.say_to_room(conn, ToRoom::Ping(1));
            }
            self.schedule(self.now + ROOM_PING, What::UserChecks { user, run, conn });
        }
    }

    fn say_to_room(&mut self, conn: ConnKey, frame: ToRoom) {
        self.transmit(conn, 0, Packet::ToRoom(Box::new(frame)));
    }

    fn login(&mut self, user: usize, run: u32) -> Option<ToRoom> {
        let seat = &self.users[user];
        let process = seat.process.as_ref().filter(|p| p.run == run)?;
        let message = login_proof_message(&process.exporter, &seat.name);
        Some(ToRoom::Login(Box::new(Login {
            name: seat.name.clone(),
            credentials: Credentials::Open,
            room_password: None,
            identity: seat.identity.public(),
            proof: seat.identity.sign(Purpose::LoginProof, &message),
            noise: seat.identity.noise_certificate(),
            instance: process.instance,
            take_over: !process.has_joined,
            presence: Presence {
                host_tag: HostTag([seat.host; 16]),
                lan_id: format!("lan{}", seat.lan).parse().unwrap(),
                port: process.port,
                private: vec![seat.lan_address.into()],
                public: None,
                encryption: Encryption::On,
                aes: true,
            },
        })))
    }

    pub(super) fn on_control(&mut self, user: usize, run: u32, conn: ConnKey, frame: ToUser) {
        match frame {
            ToUser::HelloReply(_) => {
                if let Some(login) = self.login(user, run) {
                    self.say_to_room(conn, login);
                }
            }
            ToUser::LoginRefused(why) => {
                note!(self, "user {user} is refused: {why:?}");
                self.connection_lost(conn, 0);
            }
            ToUser::Welcome(_) => {
                let now = self.now;
                if let Some(process) = self.process(user, run) {
                    process.joined_at = Some(now);
                    process.has_joined = true;
                }
            }
            ToUser::Roster(roster) => self.on_roster(user, run, roster),
            ToUser::Introduced(introduced) => match introduced.request {
                Some(request) => self.on_introduced(user, run, request, &introduced),
                None => self.on_asked(user, run, &introduced),
            },
            ToUser::IntroductionRefused(request, why) => self.on_refused(user, run, request, why),
            ToUser::Closing(_) => self.connection_lost(conn, 0),
            ToUser::Ping(n) => self.say_to_room(conn, ToRoom::Pong(n)),
            ToUser::Pong(_) | ToUser::Blacklist(_) | ToUser::Reachable(_) => {}
        }
    }

    fn on_roster(&mut self, user: usize, run: u32, roster: Roster) {
        let Some(process) = self.process(user, run) else { return };
        let changes = match &mut process.first_list {
            Some(list) => {
                list.extend(roster.joined);
                if !roster.complete {
                    return;
                }
                let list = process.first_list.take().unwrap_or_default();
                let changes = process.members.replace(list);
                process.room_up = true;
                note!(self, "user {user} has joined");
                self.on_changes(user, run, changes);
                let Some(process) = self.process(user, run) else { return };
                for peer in process.peers.keys().copied().collect::<Vec<_>>() {
                    self.try_again(user, run, peer);
                }
                return;
            }
            None => process.members.apply(roster),
        };
        self.on_changes(user, run, changes);
    }

    fn on_changes(&mut self, user: usize, run: u32, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Joined(member) => {
                    let peer = self.number_of(&member.name);
                    if peer != user && self.conversation(user, run, peer).is_some() {
                        self.try_again(user, run, peer);
                    }
                }
                Change::Left(name) => {
                    let peer = self.number_of(&name);
                    if peer != user {
                        self.peer_left(user, run, peer);
                    }
                }
            }
        }
    }

    fn number_of(&self, name: &UserName) -> usize {
        self.users.iter().position(|seat| seat.name == *name).unwrap()
    }

    /// The connection to the Room is lost.
    fn room_lost(&mut self, user: usize, run: u32) {
        let now = self.now;
        let Some(process) = self.process(user, run) else { return };
        process.control = None;
        process.room_up = false;
        process.first_list = None;
        if let Some(joined) = process.joined_at.take() {
            process.backoff.ended(now.duration_since(joined));
        }
        process.members.room_lost();
        let waiting = std::mem::take(&mut process.requests);
        note!(self, "user {user} loses the Room");
        for (_, peer) in waiting {
            self.introduce_from_memory(user, run, peer);
        }
        self.join_later(user, run);
    }

    pub(super) fn user_lost_connection(
        &mut self,
        user: usize,
        run: u32,
        key: ConnKey,
        end: usize,
        role: Role,
    ) {
        match role {
            Role::Control => {
                if self.process(user, run).is_some_and(|p| p.control == Some(key)) {
                    self.room_lost(user, run);
                }
            }
            Role::Dialing(attempt) | Role::Answering { attempt: Some(attempt), .. } => {
                self.attempt_failed(attempt, "the connection ended");
            }
            Role::Link { peer, id } => self.drop_link(user, run, peer, id, key, end),
            Role::New
            | Role::Closed
            | Role::Early(_)
            | Role::Answering { attempt: None, .. }
            | Role::RoomControl(_)
            | Role::RelayWaiting
            | Role::Spliced(_) => {}
        }
    }

    // Introductions.

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

    fn introduce_from_memory(&mut self, user: usize, run: u32, peer: usize) {
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

    fn on_introduced(&mut self, user: usize, run: u32, request: u32, introduced: &Introduced) {
        let peer = self.process(user, run).and_then(|p| p.requests.remove(&request));
        // One that nobody waits for is dropped, as there.
        let Some(peer) = peer else { return };
        let result = self.know(user, run, introduced);
        self.search_introduced(user, run, peer, Ok(result));
    }

    fn on_asked(&mut self, user: usize, run: u32, introduced: &Introduced) {
        let (known, offers) = self.know(user, run, introduced);
        if self.process(user, run).is_some_and(|p| !p.left) {
            self.ensure_conversation(user, run, known.peer);
            self.attempt(user, run, known, &offers, true);
        }
    }

    fn on_refused(&mut self, user: usize, run: u32, request: u32, why: PairRefusal) {
        let peer = self.process(user, run).and_then(|p| p.requests.remove(&request));
        let Some(peer) = peer else { return };
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
        let known = Rc::new(Known { id: introduction.id, peer, until });
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

    /// What a dial on a way comes to now.
    pub(super) fn dial_outcome(&self, way: Way) -> Dialed {
        let state = self.network.ways[&way];
        match (state.works && !state.down, state.refuses) {
            (true, _) => Dialed::Works,
            (false, true) => Dialed::Refused,
            (false, false) => Dialed::Silence,
        }
    }

    /// Whose listener an address is, if its program runs.
    pub(super) fn listener_at(&self, address: SocketAddr) -> Option<(usize, u32)> {
        self.users.iter().enumerate().find_map(|(user, seat)| {
            let process = seat.process.as_ref()?;
            (process.port == address.port()).then_some((user, process.run))
        })
    }

    // Leaving.

    pub(super) fn leave(&mut self, user: usize) {
        let until = self.now + LEAVE;
        let Some(process) = self.users[user].process.as_mut() else { return };
        let run = process.run;
        process.leaving = Some(until);
        note!(self, "user {user} leaves");
        self.on_leaving(user, run);
    }

    pub(super) fn on_leaving(&mut self, user: usize, run: u32) {
        let now = self.now;
        let Some(process) = self.process(user, run) else { return };
        let Some(until) = process.leaving else { return };
        let flushed = process.peers.values().all(|c| c.channel.is_flushed() || !c.keeper.is_awake());
        if !flushed && until > now {
            let at = now + Duration::from_millis(10);
            return self.schedule(at, What::Leaving { user, run });
        }
        process.left = true;
        let control = process.control.filter(|_| process.joined_at.is_some());
        for peer in process.peers.keys().copied().collect::<Vec<_>>() {
            self.excuse(user, peer);
            self.end(user, run, peer, CloseCode::Done);
        }
        if let Some(conn) = control {
            self.say_to_room(conn, ToRoom::Bye(CloseCode::Done));
        }
        self.schedule(now + Duration::from_millis(100), What::Gone { user, run });
    }
}
