//! The Room's client without its socket: what `net/room` and `hub/room` do, in their order.

use parlor_protocol::identity::Purpose;
use parlor_protocol::limits::{ROOM_DEAD, ROOM_PING, WHOLE_LOGIN};
use parlor_protocol::name::UserName;
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::wire::control::{
    Credentials, Hello, Login, Roster, ToRoom, ToUser, login_proof_message,
};

use super::network::{ConnKey, Dialed, End, Packet, Role, Way};
use super::note;
use super::user::Process;
use super::world::{What, World};
use crate::core::roster::Change;

impl World {
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

    pub(super) fn say_to_room(&mut self, conn: ConnKey, frame: ToRoom) {
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
}
