//! A user without its sockets: its program, and how it leaves.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parlor_protocol::identity::{Identity, InstanceId};
use parlor_protocol::introduction::{Introduction, IntroductionId};
use parlor_protocol::name::UserName;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::{Member, RungOffer, TicketSecret, ToRoom};

use super::conversation::Conversation;
use super::network::{ConnKey, Dialed, End, Role, Way};
use super::note;
use super::world::{What, World};
use crate::core::reconnect::Backoff;
use crate::core::roster::Members;

/// As in `user.rs` of the shell.
const LEAVE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AttemptKey(pub(super) u64);

/// An introduction that holds.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: IntroductionId,
    pub(super) peer: usize,
    pub(super) until: Instant,
    pub(super) introduction: Introduction,
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
    /// Kept on its disk.
    pub(super) ticket: Option<KeptTicket>,
    /// The latest introductions, kept on its disk.
    pub(super) kept: BTreeMap<usize, (Rc<Known>, Vec<RungOffer>)>,
}

/// A ticket, and what the world knows of it.
#[derive(Debug, Clone)]
pub(super) struct KeptTicket {
    pub(super) secret: TicketSecret,
    /// Which run of the Room gave it out, and when it had arrived.
    pub(super) room_run: u32,
    pub(super) at: Instant,
}

impl Seat {
    pub(super) fn new(user: usize, name: &str) -> Self {
        Self {
            name: name.parse().unwrap(),
            identity: Identity::from_seed(&[user as u8 + 1; 32]),
            host: 10 + user as u8,
            lan: 0,
            lan_address: [10, 0, 0, user as u8 + 1],
            reachable: false,
            runs: 0,
            process: None,
            ticket: None,
            kept: BTreeMap::new(),
        }
    }
}

/// One run of a user's program.
pub(super) struct Process {
    pub(super) run: u32,
    pub(super) instance: InstanceId,
    pub(super) port: u16,
    pub(super) members: Members,
    pub(super) room_up: bool,
    pub(super) control: Option<ConnKey>,
    pub(super) exporter: [u8; 32],
    pub(super) first_list: Option<Vec<Member>>,
    pub(super) joined_at: Option<Instant>,
    pub(super) has_joined: bool,
    pub(super) backoff: Backoff,
    /// Who waits for an introduction, by request.
    pub(super) requests: BTreeMap<u32, usize>,
    pub(super) next_request: u32,
    pub(super) introductions: HashMap<IntroductionId, Rc<Known>>,
    pub(super) latest: BTreeMap<usize, (Rc<Known>, Vec<RungOffer>)>,
    pub(super) peers: BTreeMap<usize, Conversation>,
    pub(super) next_link: u64,
    next_generation: u32,
    pub(super) leaving: Option<Instant>,
    pub(super) left: bool,
    /// The Room wants this user no more.
    pub(super) refused: bool,
    /// How long the Room asked to be left alone.
    pub(super) asked_wait: Option<Duration>,
    pub(super) blacklist: Vec<IpNet>,
    /// The credentials of a login under way were a ticket.
    pub(super) shows_ticket: bool,
    /// What this machine's addresses were when they were last looked at.
    pub(super) known_address: [u8; 4],
    /// Bytes that all channels keep, as the budget knows.
    pub(super) kept: usize,
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
            introductions: seat.kept.values().map(|(known, _)| (known.id, Rc::clone(known))).collect(),
            latest: seat.kept.clone(),
            peers: BTreeMap::new(),
            next_link: 1,
            next_generation: 0,
            leaving: None,
            left: false,
            refused: false,
            asked_wait: None,
            blacklist: Vec::new(),
            shows_ticket: false,
            known_address: seat.lan_address,
            kept: 0,
        });
        note!(self, "user {user} starts run {run}");
        let look = self.more.ms(0, 5000);
        self.schedule(self.now + look, What::NetworkLook { user, run });
        self.on_join(user, run);
    }

    /// The program is gone. Its sockets are closed by its system, or go silent with it.
    pub(super) fn kill_user(&mut self, user: usize, silently: bool) {
        let Some(process) = self.users[user].process.take() else { return };
        let run = process.run;
        // They are written a second after the last time at the latest, so that some are lost with the program.
        if self.more.one_in(2) {
            self.users[user].kept = process.latest;
        }
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
