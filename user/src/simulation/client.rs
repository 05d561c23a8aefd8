//! The Room's client without its socket: what `net/room` and `hub/room` do, in their order.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parlor_protocol::identity::Purpose;
use parlor_protocol::limits::{ROOM_DEAD, ROOM_PING, WHOLE_LOGIN};
use parlor_protocol::name::UserName;
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{
    Closing, Credentials, Hello, Login, Roster, ToRoom, ToUser, Welcome, login_proof_message,
};

use super::network::{ConnKey, Dialed, End, Packet, Role, Way};
use super::note;
use super::room::password;
use super::user::{KeptTicket, Process, Seat};
use super::world::{What, World};
use crate::core::roster::Change;

/// As in `hub/room.rs`.
const NETWORK_LOOK: Duration = Duration::from_secs(5);
/// A ticket is on the Room's disk this long after its holder has it, at the latest: they are gathered for 5 s, which
/// the Room's look around each second may stretch.
const TICKETS_WRITTEN: Duration = Duration::from_millis(6100);

impl Process {
    /// True if this user neither dials nor answers the address.
    pub(super) fn blocks(&self, address: IpAddr) -> bool {
        self.blacklist.iter().any(|net| net.contains(&address))
    }
}

/// What the Room is told of where a user can be reached.
fn presence(seat: &Seat, process: &Process) -> Presence {
    Presence {
        host_tag: HostTag([seat.host; 16]),
        lan_id: format!("lan{}", seat.lan).parse().unwrap(),
        port: process.port,
        private: vec![seat.lan_address.into()],
        public: None,
        encryption: Encryption::On,
        aes: true,
    }
}

impl World {
    pub(super) fn on_join(&mut self, user: usize, run: u32) {
        let Some(process) = self.process(user, run) else { return };
        if process.control.is_some() || process.left || process.refused {
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
            Dialed::Refused => self.join_later(user, run, None),
            Dialed::Silence => {
                let at = self.now + WHOLE_LOGIN;
                self.schedule(at, What::Join { user, run });
            }
        }
    }

    fn join_later(&mut self, user: usize, run: u32, asked: Option<Duration>) {
        let random = self.chance.draw();
        let Some(process) = self.process(user, run) else { return };
        let wait = process.backoff.next(random, asked);
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

    pub(super) fn say_to_room(&mut self, conn: ConnKey, frame: ToRoom) {
        self.transmit(conn, 0, Packet::ToRoom(Box::new(frame)));
    }

    fn login(&mut self, user: usize, run: u32, with_ticket: bool) -> Option<ToRoom> {
        let seat = &mut self.users[user];
        let accounts = self.plan.accounts;
        let ticket = seat.ticket.as_ref().filter(|_| with_ticket && accounts);
        let credentials = match ticket {
            Some(ticket) => Credentials::Ticket(ticket.secret.clone()),
            None if accounts => Credentials::Password(password(&seat.name)),
            None => Credentials::Open,
        };
        let process = seat.process.as_mut().filter(|p| p.run == run)?;
        process.shows_ticket = ticket.is_some();
        let seat = &self.users[user];
        let process = seat.process.as_ref()?;
        let message = login_proof_message(&process.exporter, &seat.name);
        Some(ToRoom::Login(Box::new(Login {
            name: seat.name.clone(),
            credentials,
            room_password: None,
            identity: seat.identity.public(),
            proof: seat.identity.sign(Purpose::LoginProof, &message),
            noise: seat.identity.noise_certificate(),
            instance: process.instance,
            take_over: !process.has_joined,
            presence: presence(seat, process),
        })))
    }

    /// The Room refuses a login. A ticket that it does not take costs a password, and that has a reason.
    fn on_login_refused(&mut self, user: usize, run: u32, conn: ConnKey, why: LoginRefusal) {
        note!(self, "user {user} is refused: {why:?}");
        let shows_ticket = self.process(user, run).is_some_and(|p| p.shows_ticket);
        if why == LoginRefusal::Ticket && shows_ticket {
            if let Some(ticket) = self.users[user].ticket.take() {
                self.check_ticket_is_void(user, &ticket);
            }
            if let Some(login) = self.login(user, run, false) {
                self.say_to_room(conn, login);
            }
            return;
        }
        match why.retry_after() {
            None => {
                let banned = matches!(why, LoginRefusal::Banned { .. });
                assert!(banned, "{user} is refused for good: {why:?}");
                self.refused_for_good(user, run, conn);
            }
            asked => self.room_lost_for(user, run, conn, asked),
        }
    }

    /// A ticket ends with its day, with a ban, and with a Room that is killed before it is on the disk.
    fn check_ticket_is_void(&self, user: usize, ticket: &KeptTicket) {
        let since = |at: Option<&Instant>| at.is_some_and(|at| *at + Duration::from_secs(1) >= ticket.at);
        let killed = self.room.killed_at.get(&ticket.room_run);
        let unwritten = killed.is_some_and(|at| *at < ticket.at + TICKETS_WRITTEN);
        let excused = since(self.room.clock_set_at.as_ref()) || since(self.room.banned_at.get(&user));
        assert!(unwritten || excused, "the Room does not take a ticket of {user} that is good: {ticket:?}");
    }

    fn on_welcome(&mut self, user: usize, run: u32, welcome: &Welcome) {
        let (now, room_run) = (self.now, self.room.run);
        assert_eq!(welcome.ticket.is_some(), self.plan.accounts);
        if let Some(ticket) = &welcome.ticket {
            let kept = KeptTicket { secret: ticket.secret.clone(), room_run, at: now };
            self.users[user].ticket = Some(kept);
        }
        let Some(process) = self.process(user, run) else { return };
        process.joined_at = Some(now);
        process.has_joined = true;
        process.blacklist.clone_from(&welcome.blacklist);
    }

    fn on_closing(&mut self, user: usize, run: u32, conn: ConnKey, closing: Closing) {
        let told_off = matches!(closing.code, CloseCode::Removed | CloseCode::Replaced | CloseCode::Banned);
        match closing.reconnect_in_ms {
            None if told_off => {
                assert_eq!(closing.code, CloseCode::Banned, "{user} is sent away for good");
                self.refused_for_good(user, run, conn);
            }
            asked => {
                let asked = asked.map(|ms| Duration::from_millis(ms.into()));
                self.room_lost_for(user, run, conn, asked);
            }
        }
    }

    fn refused_for_good(&mut self, user: usize, run: u32, conn: ConnKey) {
        if let Some(process) = self.process(user, run) {
            process.refused = true;
        }
        self.withdraw(user, run, |_| false);
        self.connection_lost(conn, 0);
    }

    /// The Room is lost, and asked to be left alone for a while.
    fn room_lost_for(&mut self, user: usize, run: u32, conn: ConnKey, asked: Option<Duration>) {
        if let Some(process) = self.process(user, run) {
            process.asked_wait = asked;
        }
        self.connection_lost(conn, 0);
    }

    /// A user looks at its machine's addresses every 5 s, and tells the Room when they changed.
    pub(super) fn on_network_look(&mut self, user: usize, run: u32) {
        let address = self.users[user].lan_address;
        let Some(process) = self.process(user, run) else { return };
        let (room_up, control) = (process.room_up, process.control);
        let changed = std::mem::replace(&mut process.known_address, address) != address;
        let peers: Vec<usize> = process.peers.keys().copied().collect();
        let next = self.now + NETWORK_LOOK;
        if next < self.heal_at + NETWORK_LOOK * 2 {
            self.schedule(next, What::NetworkLook { user, run });
        }
        if !changed {
            return;
        }
        note!(self, "user {user} has other addresses");
        if let Some(conn) = control.filter(|_| room_up)
            && let Some(process) = &self.users[user].process
        {
            let said = ToRoom::Presence(presence(&self.users[user], process));
            self.say_to_room(conn, said);
        }
        for peer in peers {
            self.try_again(user, run, peer);
            self.climb_now(user, run, peer, Rung::Lan);
        }
    }

    pub(super) fn on_control(&mut self, user: usize, run: u32, conn: ConnKey, frame: ToUser) {
        match frame {
            ToUser::HelloReply(_) => {
                if let Some(login) = self.login(user, run, true) {
                    self.say_to_room(conn, login);
                }
            }
            ToUser::LoginRefused(why) => self.on_login_refused(user, run, conn, why),
            ToUser::Welcome(welcome) => self.on_welcome(user, run, &welcome),
            ToUser::Roster(roster) => self.on_roster(user, run, roster),
            ToUser::Introduced(introduced) => match introduced.request {
                Some(request) => self.on_introduced(user, run, request, &introduced),
                None => self.on_asked(user, run, &introduced),
            },
            ToUser::IntroductionRefused(request, why) => self.on_refused(user, run, request, why),
            ToUser::Closing(closing) => self.on_closing(user, run, conn, closing),
            ToUser::Ping(n) => self.say_to_room(conn, ToRoom::Pong(n)),
            ToUser::Blacklist(nets) => {
                if let Some(process) = self.process(user, run) {
                    process.blacklist = nets;
                }
            }
            ToUser::Reachable(addresses) if !addresses.is_empty() => {
                let Some(process) = self.process(user, run) else { return };
                for peer in process.peers.keys().copied().collect::<Vec<_>>() {
                    self.climb_now(user, run, peer, Rung::Public);
                }
            }
            ToUser::Pong(_) | ToUser::Reachable(_) => {}
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

    pub(super) fn on_changes(&mut self, user: usize, run: u32, changes: Vec<Change>) {
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

    pub(super) fn number_of(&self, name: &UserName) -> usize {
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
        let asked = process.asked_wait.take();
        note!(self, "user {user} loses the Room");
        for (_, peer) in waiting {
            self.introduce_from_memory(user, run, peer);
        }
        self.join_later(user, run, asked);
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
}
