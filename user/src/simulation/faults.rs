//! What goes wrong, and when.

use std::time::Duration;

use parlor_protocol::rung::Rung;

use super::chance::Chance;
use super::network::{ConnKey, End, Role, Way};
use super::note;
use super::world::{What, World};

/// What a seed is about.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) users: usize,
    pub(super) lasts: Duration,
    /// Programs stay up, and nothing lasts long enough to be given up: nothing may be lost.
    pub(super) gentle: bool,
    /// More is offered than the buffers hold.
    pub(super) floods: bool,
    pub(super) slow_consumer: Option<usize>,
    /// The longest pause between what one user does.
    pub(super) pause_ms: u64,
    pub(super) patience_ms: u64,
    fault_every_ms: u64,
    /// Things go wrong that go wrong rarely: clocks, bans, addresses, restarts at the worst moment.
    odd: bool,
    /// The Room has accounts: users come with passwords and tickets.
    pub(super) accounts: bool,
    /// Handshakes and records are real ones.
    pub(super) sealed: bool,
    /// Applications that take nothing until everything heals.
    pub(super) stopped: Vec<usize>,
    /// Times are kept.
    pub(super) about_time: bool,
}

#[derive(Debug)]
pub(super) enum Fault {
    Cut,
    Silence,
    Down,
    Up(Way),
    RoomDown,
    RoomUp,
    Isolate,
    Restart,
    Start(usize),
    Leave,
    /// One way only.
    HalfOpen,
    /// A connection takes longer from now on, so that another overtakes it.
    Slow,
    RoomsInARow(u32),
    RestartInHandshake,
    Clock,
    Move,
    Ban,
}

/// A day, by which clocks are set wrong, in seconds.
const DAY: i64 = 86_400;

impl Plan {
    pub(super) fn new(chance: &mut Chance, more: &mut Chance) -> Self {
        let users = *chance.pick(&[2, 2, 2, 3, 3, 4, 5]);
        let floods = chance.one_in(24);
        let slow = chance.one_in(4);
        Self {
            users,
            lasts: chance.ms(10_000, 60_000),
            gentle: chance.one_in(3),
            floods,
            slow_consumer: slow.then(|| chance.below(users as u64) as usize),
            pause_ms: *chance.pick(&[500, 2000, 8000]) * users as u64,
            patience_ms: *chance.pick(&[100, 5000, 60_000]),
            fault_every_ms: *chance.pick(&[1500, 4000, 15_000]),
            odd: !more.one_in(3),
            accounts: more.one_in(2),
            sealed: more.one_in(10),
            stopped: if more.one_in(8) { vec![more.below(users as u64) as usize] } else { Vec::new() },
            about_time: false,
        }
    }

    /// Nothing goes wrong and nobody says anything, unless told to.
    pub(super) fn quiet(users: usize, lasts: Duration) -> Self {
        Self {
            users,
            lasts,
            gentle: true,
            floods: false,
            slow_consumer: None,
            pause_ms: 1,
            patience_ms: 1,
            fault_every_ms: 1,
            odd: false,
            accounts: true,
            sealed: false,
            stopped: Vec::new(),
            about_time: true,
        }
    }
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        let mut at = self.start + self.chance.ms(500, 3000);
        while at < self.heal_at {
            let fault = match self.chance.below(if self.plan.gentle { 11 } else { 16 }) {
                0..=4 => Fault::Cut,
                5..=6 => Fault::Silence,
                7..=9 => Fault::Down,
                10 => Fault::RoomDown,
                11 => Fault::Isolate,
                12..=14 => Fault::Restart,
                _ => Fault::Leave,
            };
            // What is gentle heals before the next thing goes wrong.
            let room = if self.plan.gentle && !matches!(fault, Fault::Cut) { 9000 } else { 1 };
            self.schedule(at, What::Fault(fault));
            at += self.chance.ms(room, self.plan.fault_every_ms.max(room));
        }
        if self.plan.odd {
            self.plan_odd_faults();
        }
    }

    fn plan_odd_faults(&mut self) {
        let mut at = self.start + self.more.ms(500, 5000);
        while at < self.heal_at {
            let fault = match self.more.below(if self.plan.gentle { 9 } else { 16 }) {
                0..=2 => Fault::HalfOpen,
                3..=5 => Fault::Slow,
                6..=7 => Fault::Clock,
                8..=9 => Fault::RoomsInARow(self.more.between(2, 4) as u32),
                10..=12 => Fault::RestartInHandshake,
                13..=14 => Fault::Move,
                _ => Fault::Ban,
            };
            self.schedule(at, What::Fault(fault));
            at += self.more.ms(2000, 12_000);
        }
    }

    fn lasting(&mut self) -> Duration {
        match (self.plan.gentle, self.chance.below(8)) {
            (true, _) => self.chance.ms(1, 3000),
            (false, 0) => self.chance.ms(10_000, 60_000),
            (false, _) => self.chance.ms(1, 8000),
        }
    }

    /// How an end learns that its connection is cut.
    fn learning(&mut self) -> Option<Duration> {
        match self.chance.below(4) {
            0 | 1 => Some(self.chance.ms(0, 50)),
            2 => Some(self.chance.ms(50, 5000)),
            _ if self.plan.gentle => Some(Duration::ZERO),
            _ => None,
        }
    }

    fn some_conn(&mut self) -> Option<ConnKey> {
        let alive = self.network.conns.iter().filter(|(_, c)| !c.dead);
        let links: Vec<ConnKey> = alive
            .clone()
            .filter(|(_, c)| c.roles.iter().any(|r| matches!(r, Role::Link { .. } | Role::Answering { .. })))
            .map(|(k, _)| *k)
            .collect();
        if !links.is_empty() && !self.chance.one_in(5) {
            return Some(*self.chance.pick(&links));
        }
        let all: Vec<ConnKey> = alive.map(|(k, _)| *k).collect();
        if all.is_empty() { None } else { Some(*self.chance.pick(&all)) }
    }

    pub(super) fn on_fault(&mut self, fault: Fault) {
        if self.now >= self.heal_at {
            return;
        }
        match fault {
            Fault::Cut => {
                if let Some(conn) = self.some_conn() {
                    let learns = [self.learning(), self.learning()];
                    self.cut(conn, learns);
                }
            }
            Fault::Silence => {
                let lasts = self.lasting();
                if let Some(key) = self.some_conn() {
                    self.silence(key, &[0, 1], self.now + lasts);
                }
            }
            Fault::Down => {
                let ways: Vec<Way> = self.network.ways.keys().copied().collect();
                let way = *self.chance.pick(&ways);
                self.take_down(way);
            }
            Fault::Up(way) => {
                if let Some(state) = self.network.ways.get_mut(&way) {
                    state.down = false;
                    note!(self, "{way:?} is up");
                }
            }
            Fault::RoomDown => {
                if self.room.core.is_some() {
                    self.kill_room();
                    let after = self.lasting();
                    self.schedule(self.now + after, What::Fault(Fault::RoomUp));
                }
            }
            Fault::RoomUp => {
                if self.room.core.is_none() {
                    self.start_room();
                }
            }
            Fault::Isolate => {
                let user = self.chance.below(self.users.len() as u64) as usize;
                let ways: Vec<Way> =
                    self.network.ways.keys().copied().filter(|w| touches(*w, user)).collect();
                for way in ways {
                    self.take_down(way);
                }
            }
            Fault::Restart => {
                let user = self.chance.below(self.users.len() as u64) as usize;
                let silently = self.chance.one_in(4);
                self.kill_user(user, silently);
                let after = self.lasting();
                self.schedule(self.now + after, What::Fault(Fault::Start(user)));
            }
            Fault::HalfOpen => {
                let lasts = self.lasting();
                let from = self.more.below(2) as usize;
                if let Some(key) = self.some_conn() {
                    self.silence(key, &[from], self.now + lasts);
                }
            }
            Fault::Slow => {
                let latency = self.more.ms(0, 400);
                if let Some(key) = self.some_conn()
                    && let Some(conn) = self.network.conns.get_mut(&key)
                {
                    conn.latency = latency;
                    note!(self, "{key:?} takes {latency:?} from now on");
                }
            }
            Fault::RoomsInARow(left) => {
                if self.room.core.is_some() {
                    self.kill_room();
                    let after = self.more.ms(1, 700);
                    self.schedule(self.now + after, What::Fault(Fault::RoomUp));
                    if left > 1 {
                        let after = after + self.more.ms(1, 1200);
                        self.schedule(self.now + after, What::Fault(Fault::RoomsInARow(left - 1)));
                    }
                }
            }
            Fault::RestartInHandshake => self.restart_in_handshake(),
            Fault::Clock => {
                let step = if self.more.one_in(2) { DAY } else { -DAY };
                let user = self.more.below(self.users.len() as u64 + 1) as usize;
                note!(self, "the clock of {user} (after the last user: the Room) is set by {step} s");
                match self.users.get_mut(user) {
                    // What is kept is too old then, or of a time to come; a program that runs has it in memory.
                    Some(seat) if seat.process.is_none() => seat.kept.clear(),
                    Some(_) => {}
                    None => self.set_room_clock(step),
                }
            }
            Fault::Move => {
                let user = self.more.below(self.users.len() as u64) as usize;
                self.move_user(user);
            }
            Fault::Ban => {
                let user = self.more.below(self.users.len() as u64) as usize;
                let seconds = if self.more.one_in(2) { Some(self.more.between(1, 20)) } else { None };
                self.ban(user, seconds);
            }
            Fault::Start(user) => self.start_user(user),
            Fault::Leave => {
                let user = self.chance.below(self.users.len() as u64) as usize;
                self.leave(user);
                if !self.chance.one_in(4) {
                    let after = Duration::from_secs(6) + self.lasting();
                    self.schedule(self.now + after, What::Fault(Fault::Start(user)));
                }
            }
        }
    }

    /// Nothing new gets through, and what is open is cut or falls silent.
    fn take_down(&mut self, way: Way) {
        let lasts = self.lasting();
        note!(self, "{way:?} is down for {lasts:?}");
        if let Some(state) = self.network.ways.get_mut(&way) {
            state.down = true;
        }
        self.schedule(self.now + lasts, What::Fault(Fault::Up(way)));
        let conns: Vec<ConnKey> =
            self.network.conns.iter().filter(|(_, c)| c.way == way && !c.dead).map(|(k, _)| *k).collect();
        let cuts = self.chance.one_in(2);
        for key in conns {
            if cuts {
                let learns = [self.learning(), self.learning()];
                self.cut(key, learns);
            } else {
                self.silence(key, &[0, 1], self.now + lasts);
            }
        }
    }

    /// Nothing is wrong from now on. Who is away stays away.
    pub(super) fn heal(&mut self) {
        note!(self, "everything heals");
        for state in self.network.ways.values_mut() {
            state.down = false;
        }
        if self.room.core.is_none() {
            self.start_room();
        }
        let now = self.now;
        for conn in self.network.conns.values_mut() {
            conn.silent_until = conn.silent_until.map(|until| until.map(|at| at.min(now)));
        }
        self.go_on();
        self.pardon_everybody();
    }

    /// The program of somebody who is in the middle of a handshake restarts.
    fn restart_in_handshake(&mut self) {
        let shaking =
            |role: &Role| matches!(role, Role::Dialing(_) | Role::Answering { .. } | Role::Early(_));
        let ends = self.network.conns.values().flat_map(|c| c.ends.iter().zip(&c.roles));
        let users: Vec<usize> = ends
            .filter(|(_, role)| shaking(role))
            .filter_map(|(end, _)| match end {
                End::User(user, _) => Some(*user),
                End::Room(_) => None,
            })
            .collect();
        if users.is_empty() {
            // There is likely to be one soon.
            let soon = self.now + Duration::from_millis(250);
            return self.schedule(soon, What::Fault(Fault::RestartInHandshake));
        }
        let user = *self.more.pick(&users);
        let silently = self.more.one_in(4);
        self.kill_user(user, silently);
        let after = self.more.ms(1, 300);
        self.schedule(self.now + after, What::Fault(Fault::Start(user)));
    }

    /// A user's machine gets another address: what was open hears nothing any more, other ways work.
    fn move_user(&mut self, user: usize) {
        let (lan, last) = (self.more.below(2) as u8, self.more.between(10, 250) as u8);
        let reachable = self.more.one_in(2);
        let seat = &mut self.users[user];
        seat.lan_address = [10, 0, lan, last];
        seat.reachable = reachable;
        note!(self, "user {user} moves to {:?}", self.users[user].lan_address);
        let ways: Vec<Way> = self.network.ways.keys().copied().filter(|w| touches(*w, user)).collect();
        for way in ways {
            let works = match way {
                Way::Direct(_, _, Rung::SameHost) => continue,
                Way::Direct(..) => self.more.one_in(2),
                Way::Room(_) => true,
            };
            if let Some(state) = self.network.ways.get_mut(&way) {
                state.works = works;
            }
            let conns: Vec<ConnKey> =
                self.network.conns.iter().filter(|(_, c)| c.way == way && !c.dead).map(|(k, _)| *k).collect();
            for conn in conns {
                self.cut(conn, [None, None]);
            }
        }
    }
}

fn touches(way: Way, user: usize) -> bool {
    match way {
        Way::Direct(a, b, _) => a == user || b == user,
        Way::Room(a) => a == user,
    }
}
