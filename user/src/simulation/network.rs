//! Connections that behave like TCP: in order, late, with a bounded amount under way; cut at any moment with what
//! is under way; silent for a while or for ever, both ways or one way; slower than before.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_protocol::introduction::IntroductionId;
use parlor_protocol::noise::payload::{LinkAccept, LinkHello};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{RelayToken, ToRoom, ToUser};

use super::user::{AttemptKey, Known};
use super::world::{What, World};
use crate::core::channel::{LinkId, Terms};

/// What a socket's buffers and the path hold, in bytes.
const UNDER_WAY: usize = 384 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnKey(pub(super) u64);

/// A way between two places, on which things can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Between two users, the lower number first.
    Direct(usize, usize, Rung),
    /// From a user to the Room.
    Room(usize),
}

impl Way {
    pub(super) fn direct(a: usize, b: usize, rung: Rung) -> Self {
        Way::Direct(a.min(b), a.max(b), rung)
    }
}

/// What a dial on a way comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialed {
    Works,
    Refused,
    Silence,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct WayState {
    /// Whether it works when nothing is wrong.
    pub(super) works: bool,
    /// A dial that does not work is refused at once; otherwise nothing comes back.
    pub(super) refuses: bool,
    pub(super) down: bool,
    pub(super) latency: Duration,
    /// Bytes a millisecond.
    pub(super) rate: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    User(usize, u32),
    Room(u32),
}

/// What an end of a connection is used for.
#[derive(Debug, Clone)]
pub(super) enum Role {
    New,
    Closed,
    Control,
    Dialing(AttemptKey),
    /// Waits until the Room's word of its introduction is here.
    Early(IntroductionId),
    Answering {
        known: Rc<Known>,
        attempt: Option<AttemptKey>,
        terms: Option<(Rung, Terms)>,
    },
    Link {
        peer: usize,
        id: LinkId,
    },
    RoomControl(u64),
    RelayWaiting,
    Spliced(ConnKey),
}

#[derive(Debug, Clone)]
pub(super) enum Packet {
    Preface(IntroductionId),
    Token(RelayToken),
    RelayReady,
    RelayRefused,
    /// With the first message of a real handshake, in worlds that seal.
    Hello(Rung, LinkHello, Option<Bytes>),
    Accept(LinkAccept, Option<Bytes>),
    Refusal(CloseCode),
    Record {
        number: u64,
        key: u64,
        plaintext: Bytes,
        sealed: Option<Vec<u8>>,
    },
    ToRoom(Box<ToRoom>),
    ToUser(Box<ToUser>),
    Fin,
}

impl Packet {
    fn size(&self) -> usize {
        match self {
            Packet::Record { plaintext, .. } => plaintext.len() + 18,
            _ => 200,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Pipe {
    queue: VecDeque<Packet>,
    pub(super) bytes: usize,
    free_at: Option<Instant>,
    /// Arrivals that wait because the relay's other side is full.
    held: usize,
    /// Records and keys at the sender and the receiver.
    pub(super) filled: u64,
    pub(super) taken: u64,
    pub(super) sealing_key: u64,
    pub(super) opening_key: u64,
    blocked: bool,
    pub(super) nothing_follows: bool,
    ended: bool,
}

pub(super) struct Conn {
    pub(super) way: Way,
    pub(super) ends: [End; 2],
    pub(super) roles: [Role; 2],
    /// `pipes[i]` leads from `ends[i]` to the other.
    pub(super) pipes: [Pipe; 2],
    pub(super) dead: bool,
    /// Nothing arrives from this end until then.
    pub(super) silent_until: [Option<Instant>; 2],
    pub(super) latency: Duration,
    rate: u64,
    /// When each end last heard the other, for control connections.
    pub(super) heard: [Instant; 2],
}

#[derive(Default)]
pub(super) struct Network {
    pub(super) conns: BTreeMap<ConnKey, Conn>,
    pub(super) ways: BTreeMap<Way, WayState>,
    next: u64,
}

impl World {
    /// A connection whose first end has dialed. Both ends are new.
    pub(super) fn connect(&mut self, way: Way, ends: [End; 2]) -> ConnKey {
        let key = ConnKey(self.network.next);
        self.network.next += 1;
        let state = self.network.ways[&way];
        let conn = Conn {
            way,
            ends,
            roles: [Role::New, Role::New],
            pipes: [Pipe::default(), Pipe::default()],
            dead: false,
            silent_until: [None; 2],
            latency: state.latency,
            rate: state.rate,
            heard: [self.now; 2],
        };
        self.network.conns.insert(key, conn);
        key
    }

    pub(super) fn role(&self, conn: ConnKey, end: usize) -> Role {
        self.network.conns.get(&conn).map_or(Role::Closed, |c| c.roles[end].clone())
    }

    pub(super) fn set_role(&mut self, conn: ConnKey, end: usize, role: Role) {
        if let Some(c) = self.network.conns.get_mut(&conn) {
            c.roles[end] = role;
        }
    }

    /// Sends a packet from this end.
    pub(super) fn transmit(&mut self, key: ConnKey, end: usize, packet: Packet) {
        let now = self.now;
        let Some(conn) = self.network.conns.get_mut(&key) else { return };
        let size = packet.size();
        let pipe = &mut conn.pipes[end];
        if pipe.ended {
            return;
        }
        pipe.ended = matches!(packet, Packet::Fin);
        pipe.bytes += size;
        if conn.dead {
            return;
        }
        let begin = pipe.free_at.map_or(now, |at| at.max(now));
        let free = begin + Duration::from_micros(size as u64 * 1000 / conn.rate);
        pipe.free_at = Some(free);
        pipe.queue.push_back(packet);
        let at = free + conn.latency;
        self.schedule(at, What::Arrive { conn: key, from: end });
    }

    pub(super) fn on_arrive(&mut self, key: ConnKey, from: usize) {
        let now = self.now;
        let Some(conn) = self.network.conns.get_mut(&key) else { return };
        if conn.dead {
            return;
        }
        if let Some(until) = conn.silent_until[from] {
            if until > now {
                self.schedule(until, What::Arrive { conn: key, from });
                return;
            }
            conn.silent_until[from] = None;
        }
        // The relay reads no more than it can pass on.
        if let Role::Spliced(other) = conn.roles[1 - from]
            && self.network.conns.get(&other).is_some_and(|o| o.pipes[1].bytes >= UNDER_WAY)
        {
            if let Some(conn) = self.network.conns.get_mut(&key) {
                conn.pipes[from].held += 1;
            }
            return;
        }
        let Some(conn) = self.network.conns.get_mut(&key) else { return };
        let pipe = &mut conn.pipes[from];
        let Some(packet) = pipe.queue.pop_front() else { return };
        pipe.bytes -= packet.size();
        conn.heard[1 - from] = now;
        let unblocked = std::mem::take(&mut pipe.blocked);
        let sender = conn.roles[from].clone();
        self.deliver(key, 1 - from, packet);
        match sender {
            Role::Link { .. } if unblocked => self.pump(key, from),
            Role::Spliced(other) => {
                let held = match self.network.conns.get_mut(&other) {
                    Some(other) => std::mem::take(&mut other.pipes[0].held),
                    None => 0,
                };
                for _ in 0..held {
                    self.on_arrive(other, 0);
                }
            }
            _ => {}
        }
    }

    fn deliver(&mut self, key: ConnKey, end: usize, packet: Packet) {
        let Some(conn) = self.network.conns.get(&key) else { return };
        match (conn.ends[end], packet) {
            (_, _) if matches!(conn.roles[end], Role::Closed) => {}
            (End::Room(_), packet) => self.room_hears(key, end, packet),
            (End::User(..), Packet::Fin) => self.connection_lost(key, end),
            (End::User(user, run), packet) => self.user_hears(user, run, key, end, packet),
        }
    }

    /// An end learns that its connection is gone.
    pub(super) fn connection_lost(&mut self, key: ConnKey, end: usize) {
        let Some(conn) = self.network.conns.get(&key) else { return };
        let role = conn.roles[end].clone();
        match conn.ends[end] {
            End::Room(_) => self.room_lost_connection(key, end, role),
            End::User(user, run) => self.user_lost_connection(user, run, key, end, role),
        }
        self.close(key, end);
    }

    /// An end is done with its connection.
    pub(super) fn close(&mut self, key: ConnKey, end: usize) {
        let Some(conn) = self.network.conns.get_mut(&key) else { return };
        if matches!(conn.roles[end], Role::Closed) {
            return;
        }
        conn.roles[end] = Role::Closed;
        self.transmit(key, end, Packet::Fin);
        self.forget_if_over(key);
    }

    fn forget_if_over(&mut self, key: ConnKey) {
        let over = |c: &Conn| {
            matches!(c.roles, [Role::Closed, Role::Closed])
                && (c.dead || c.pipes.iter().all(|p| p.queue.is_empty()))
        };
        if self.network.conns.get(&key).is_some_and(over) {
            self.network.conns.remove(&key);
            self.seals.forget(key);
        }
    }

    /// Everything under way is lost. Each end learns of it after a while, or never.
    pub(super) fn cut(&mut self, key: ConnKey, learns: [Option<Duration>; 2]) {
        let Some(conn) = self.network.conns.get_mut(&key) else { return };
        if conn.dead {
            return;
        }
        conn.dead = true;
        for pipe in &mut conn.pipes {
            pipe.queue.clear();
        }
        super::note!(self, "{key:?} on {:?} is cut, learns {learns:?}", conn.way);
        for (end, after) in learns.into_iter().enumerate() {
            if let Some(after) = after {
                self.schedule(self.now + after, What::Broken { conn: key, end });
            }
        }
        self.watch_links(key);
        self.forget_if_over(key);
    }

    /// Nothing comes from `from` until then.
    pub(super) fn silence(&mut self, key: ConnKey, from: &[usize], until: Instant) {
        let Some(conn) = self.network.conns.get_mut(&key) else { return };
        for &from in from {
            conn.silent_until[from] = conn.silent_until[from].max(Some(until));
        }
        super::note!(self, "{key:?} hears nothing from {from:?} for {:?}", until - self.now);
        self.watch_links(key);
    }

    /// Puts what a link has to say on its way, as far as the connection takes it.
    pub(super) fn pump(&mut self, key: ConnKey, end: usize) {
        loop {
            let Some(conn) = self.network.conns.get_mut(&key) else { return };
            let (Role::Link { peer, id }, End::User(user, run)) = (conn.roles[end].clone(), conn.ends[end])
            else {
                return;
            };
            let pipe = &mut conn.pipes[end];
            if pipe.nothing_follows {
                return;
            }
            if pipe.bytes >= UNDER_WAY {
                pipe.blocked = true;
                return;
            }
            let rekey = pipe.filled % 64 == 63;
            let now = self.now;
            let Some(conversation) = self.conversation(user, run, peer) else { return };
            let mut out = Vec::new();
            let rekey = rekey && conversation.says(id, now);
            let Some(after) = conversation.channel.fill(id, &mut out, rekey, now) else {
                return;
            };
            let sleeps_too_long = conversation.sleeps_too_long();
            assert!(out.len() <= 65_519, "a record of {} bytes", out.len());
            let sealed = self.seal_record(key, end, &out, after.rekey);
            if let Some(conversation) = self.conversation(user, run, peer) {
                conversation.records += 1;
            }
            let Some(conn) = self.network.conns.get_mut(&key) else { return };
            let pipe = &mut conn.pipes[end];
            let (number, sealing_key, plaintext) = (pipe.filled, pipe.sealing_key, out.into());
            let record = Packet::Record { number, key: sealing_key, plaintext, sealed };
            pipe.filled += 1;
            pipe.sealing_key += u64::from(after.rekey);
            pipe.nothing_follows = after.closed;
            self.transmit(key, end, record);
            if sleeps_too_long {
                self.look(user, run, peer);
            }
            if after.closed {
                self.schedule(self.now, What::Over { conn: key, end });
            }
        }
    }
}
