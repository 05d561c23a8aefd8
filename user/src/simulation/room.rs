//! The Room: the real coordinator, and the little of its shell that sockets and timers ask for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parlor_protocol::identity::{Identity, PublicIdentity};
use parlor_protocol::limits::{ROOM_DEAD, ROOM_PING};
use parlor_protocol::name::UserName;
use parlor_protocol::wire::control::{LENGTH_BYTES, Secret, ToUser};
use parlor_room::admin::{AdminRequest, AdminResponse};
use parlor_room::config::RoomLimits;
use parlor_room::core::blacklist::Blacklist;
use parlor_room::core::coordinator::{CallId, Command, Coordinator, Input, PasswordVerdict, Setup};
use parlor_room::core::relay::PairId;
use parlor_room::core::{ConnId, LinkId, Now};
use parlor_room::password::PasswordHash;
use parlor_room::store::{Ban, Loaded, StoreChange, TicketRecord};

use super::chance::Chance;
use super::network::{ConnKey, End, Packet, Role, Way};
use super::user::Seat;
use super::world::{What, World};

/// A connection that both ends of a relayed link have left is let go after this long.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// What the store's thread takes to write something.
const WRITING: Duration = Duration::from_millis(5);
/// Of hashes that nothing is ever held against here.
const COST: u32 = 12;

pub(super) struct RoomSeat {
    pub(super) core: Option<Box<Coordinator>>,
    pub(super) run: u32,
    next: u64,
    /// Control connections by the number that the core knows.
    controls: BTreeMap<u64, ConnKey>,
    waiting: BTreeMap<u64, ConnKey>,
    pairs: BTreeMap<PairId, [ConnKey; 2]>,
    admitted: Vec<u64>,
    tick: u64,
    /// What its data directory holds.
    disk: Disk,
    /// By how many seconds its clock is wrong, and when it was last set.
    clock: i64,
    pub(super) clock_set_at: Option<Instant>,
    blacklist: Option<Arc<Blacklist>>,
    banned: BTreeMap<usize, IpNet>,
    pub(super) banned_at: BTreeMap<usize, Instant>,
    next_call: u64,
    /// When each run of the Room was killed.
    pub(super) killed_at: BTreeMap<u32, Instant>,
    /// Passwords that were verified.
    pub(super) bcrypts: u64,
}

/// What a Room finds when it starts again.
#[derive(Default)]
struct Disk {
    tickets: Vec<TicketRecord>,
    bindings: BTreeMap<UserName, PublicIdentity>,
    bans: BTreeMap<IpNet, Ban>,
}

pub(super) fn room_identity() -> Identity {
    Identity::from_seed(&[77; 32])
}

/// The password of an account.
pub(super) fn password(name: &UserName) -> Secret {
    Secret::new(format!("the secret of {name}")).unwrap()
}

/// Where a user comes from.
pub(super) fn public_address(user: usize) -> IpAddr {
    IpAddr::from([198, 51, 100, user as u8 + 1])
}

impl RoomSeat {
    pub(super) fn new() -> Self {
        Self {
            core: None,
            run: 0,
            next: 1,
            controls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            pairs: BTreeMap::new(),
            admitted: Vec::new(),
            tick: 0,
            disk: Disk::default(),
            clock: 0,
            clock_set_at: None,
            blacklist: None,
            banned: BTreeMap::new(),
            banned_at: BTreeMap::new(),
            next_call: 0,
            killed_at: BTreeMap::new(),
            bcrypts: 0,
        }
    }
}

impl World {
    fn room_now(&self) -> Now {
        Now { instant: self.now, unix: self.unix(self.room.clock) }
    }

    /// Seconds since 1970 by a clock that is wrong by so many.
    pub(super) fn unix(&self, wrong: i64) -> u64 {
        (1_000_000 + self.now.duration_since(self.start).as_secs()).saturating_add_signed(wrong)
    }

    pub(super) fn set_room_clock(&mut self, step: i64) {
        self.room.clock += step;
        self.room.clock_set_at = Some(self.now);
    }

    pub(super) fn start_room(&mut self) {
        let mut chance = Chance::new(self.chance.draw());
        let disk = &self.room.disk;
        let loaded = Loaded {
            identity: room_identity(),
            accounts: BTreeMap::new(),
            bindings: disk.bindings.clone(),
            bans: disk.bans.values().cloned().collect(),
            tickets: disk.tickets.clone(),
        };
        let account = |seat: &Seat| (seat.name.clone(), PasswordHash::dummy(COST));
        let setup = Setup {
            loaded,
            accounts: self.users.iter().filter(|_| self.plan.accounts).map(account).collect(),
            room_password: None,
            blacklist: Vec::new(),
            allow_unencrypted: false,
            limits: RoomLimits { penalties: false, ..RoomLimits::default() },
            addresses: Vec::new(),
            chance: Box::new(move || chance.bytes32()),
        };
        let core = Coordinator::new(setup, self.room_now());
        self.room.blacklist = Some(core.blacklist());
        self.room.core = Some(Box::new(core));
        super::note!(self, "the Room is up");
        self.schedule_room();
    }

    /// The Room's process dies. Its users learn of it at once, late or never, as `learns` says.
    pub(super) fn kill_room(&mut self) {
        super::note!(self, "the Room is killed");
        let run = self.room.run;
        let old = std::mem::replace(&mut self.room, RoomSeat::new());
        self.room.run = run + 1;
        self.room.tick = old.tick + 1;
        self.room.disk = old.disk;
        (self.room.clock, self.room.clock_set_at) = (old.clock, old.clock_set_at);
        (self.room.banned, self.room.banned_at) = (old.banned, old.banned_at);
        (self.room.killed_at, self.room.bcrypts) = (old.killed_at, old.bcrypts);
        self.room.killed_at.insert(run, self.now);
        let conns: Vec<ConnKey> =
            self.network.conns.iter().filter(|(_, c)| c.ends[1] == End::Room(run)).map(|(k, _)| *k).collect();
        for conn in conns {
            self.set_role(conn, 1, Role::Closed);
            let after = self.chance.ms(0, 40);
            self.cut(conn, [Some(after), None]);
        }
    }

    fn schedule_room(&mut self) {
        self.room.tick += 1;
        let tick = self.room.tick;
        if let Some(core) = &self.room.core {
            let at = core.wake_at();
            self.schedule(at, What::RoomTick { tick });
        }
    }

    pub(super) fn on_room_tick(&mut self, tick: u64) {
        if self.room.tick == tick {
            self.room_input(Input::Tick);
        }
    }

    pub(super) fn room_input(&mut self, input: Input) {
        let now = self.room_now();
        let mut commands = Vec::new();
        let Some(core) = &mut self.room.core else { return };
        core.handle(input, now, &mut commands);
        for command in commands {
            self.carry_out(command);
        }
        self.schedule_room();
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Send { conn, frame } => self.room_says(conn.0, frame),
            Command::SendEncoded { conn, frame } => {
                let message = frame.get(LENGTH_BYTES..).map(ToUser::decode);
                let Some(Ok(message)) = message else { panic!("the Room sends what nobody can read") };
                self.room_says(conn.0, message);
            }
            Command::Broadcast(frame) => {
                for conn in self.room.admitted.clone() {
                    self.room_says(conn, frame.clone());
                }
            }
            Command::Admitted { conn } => {
                if let Some(user) = self.room.controls.get(&conn.0).and_then(|key| self.caller(*key)) {
                    assert!(!self.is_banned(user), "{user} is banned and is let in");
                }
                self.room.admitted.push(conn.0);
            }
            Command::Close { conn, closing } => {
                self.room_says(conn.0, ToUser::Closing(closing));
                self.drop_control(conn.0);
            }
            Command::CheckAddress { conn, generation, address, .. } => {
                let after = self.chance.ms(5, 200);
                let what = What::AddressChecked { run: self.room.run, conn: conn.0, generation, address };
                self.schedule(self.now + after, what);
            }
            Command::RelayReady { pair, links, .. } => self.splice(pair, links),
            Command::RelayRefuse { link, .. } => {
                if let Some(conn) = self.room.waiting.remove(&link.0) {
                    self.transmit(conn, 1, Packet::RelayRefused);
                    self.close(conn, 1);
                }
            }
            Command::RelayEnd { pair } => self.end_pair(pair),
            Command::CheckPasswords { conn, attempt, checks, .. } => {
                self.room.bcrypts += 1;
                let user = self.room.controls.get(&conn.0).and_then(|key| self.caller(*key));
                let Some(name) = user.map(|user| &self.users[user].name) else { return };
                let right = checks.iter().all(|check| check.password == password(name));
                let after = self.more.ms(50, 400);
                let what = What::PasswordsChecked { run: self.room.run, conn: conn.0, attempt, right };
                self.schedule(self.now + after, what);
            }
            Command::Bind { conn, name, identity } => {
                let change = StoreChange::Binding { name, identity: Some(identity) };
                let what = What::Stored { run: self.room.run, change, waits: Some(conn.0) };
                self.schedule(self.now + WRITING, what);
            }
            Command::Store { change, .. } => {
                self.schedule(self.now + WRITING, What::Stored { run: self.room.run, change, waits: None });
            }
            Command::Blacklist(list) => self.room.blacklist = Some(list),
            Command::Bar { .. } => panic!("the Room keeps an honest user out"),
            Command::Answer { response: AdminResponse::Failed(error), .. } => panic!("{}", error.sentence),
            Command::Pardon(_) | Command::Answer { .. } => {}
        }
    }

    pub(super) fn on_passwords_checked(&mut self, run: u32, conn: u64, attempt: u64, right: bool) {
        if run == self.room.run {
            let verdict = if right { PasswordVerdict::Right } else { PasswordVerdict::Wrong };
            self.room_input(Input::PasswordsChecked { conn: ConnId(conn), attempt, verdict });
        }
    }

    /// What the store's thread was given is on the disk.
    pub(super) fn on_stored(&mut self, run: u32, change: StoreChange, waits: Option<u64>) {
        if run != self.room.run {
            return;
        }
        let disk = &mut self.room.disk;
        match change {
            StoreChange::Tickets { all } => disk.tickets = all,
            StoreChange::Binding { name, identity: Some(identity) } => {
                disk.bindings.insert(name.clone(), identity);
                if let Some(conn) = waits {
                    self.room_input(Input::Bound { conn: ConnId(conn), name, kept: true });
                }
            }
            StoreChange::Binding { name, identity: None } => {
                disk.bindings.remove(&name);
            }
            StoreChange::Ban(ban) => {
                disk.bans.insert(ban.net, ban);
            }
            StoreChange::Unban(net) => {
                disk.bans.remove(&net);
            }
            StoreChange::Account { .. } => {}
        }
    }

    // The operator.

    fn caller(&self, key: ConnKey) -> Option<usize> {
        match self.network.conns.get(&key)?.way {
            Way::Room(user) => Some(user),
            Way::Direct(..) => None,
        }
    }

    /// True if the Room's core bans where the user comes from.
    fn is_banned(&self, user: usize) -> bool {
        let unix = self.unix(self.room.clock);
        self.room.blacklist.as_ref().is_some_and(|list| list.banned(public_address(user), unix).is_some())
    }

    /// The operator bans a user's address. Who is in from there is in no more, and nothing is relayed for it.
    pub(super) fn ban(&mut self, user: usize, seconds: Option<u64>) {
        if self.room.core.is_none() {
            return;
        }
        super::note!(self, "{user} is banned for {seconds:?} s");
        let net = IpNet::from(public_address(user));
        self.room.next_call += 1;
        self.room.banned.insert(user, net);
        self.room.banned_at.insert(user, self.now);
        let call = CallId(self.room.next_call);
        self.room_input(Input::Admin { call, request: AdminRequest::BanAdd { net, seconds } });
        let cut = |world: &Self, key: &ConnKey| world.caller(*key) != Some(user);
        assert!(self.room.controls.values().all(|key| cut(self, key)), "{user} is banned and still in");
        assert!(self.room.pairs.values().flatten().all(|key| cut(self, key)), "{user} is banned and relayed");
        assert!(
            self.room.waiting.values().all(|key| cut(self, key)),
            "{user} is banned and waits for a relay"
        );
    }

    /// The operator takes every ban back, and who was sent away for good starts anew.
    pub(super) fn pardon_everybody(&mut self) {
        for (_, net) in std::mem::take(&mut self.room.banned) {
            let there =
                self.room.blacklist.as_ref().is_some_and(|list| list.entries().any(|(n, ..)| n == net));
            if there {
                self.room.next_call += 1;
                let call = CallId(self.room.next_call);
                self.room_input(Input::Admin { call, request: AdminRequest::BanRemove { net } });
            }
        }
        for user in 0..self.users.len() {
            if self.users[user].process.as_ref().is_some_and(|p| p.refused) {
                self.kill_user(user, false);
                self.start_user(user);
            }
        }
    }

    /// The user's listener is asked from outside.
    pub(super) fn on_address_checked(&mut self, run: u32, conn: u64, generation: u32, address: SocketAddr) {
        if run != self.room.run {
            return;
        }
        let reached = self
            .users
            .iter()
            .any(|seat| seat.reachable && seat.process.as_ref().is_some_and(|p| p.port == address.port()));
        let conn = ConnId(conn);
        self.room_input(Input::AddressChecked { conn, generation, address: address.ip(), reached });
    }

    fn room_says(&mut self, conn: u64, frame: ToUser) {
        if let Some(&key) = self.room.controls.get(&conn) {
            self.transmit(key, 1, Packet::ToUser(Box::new(frame)));
        }
    }

    fn drop_control(&mut self, conn: u64) {
        self.room.admitted.retain(|admitted| *admitted != conn);
        if let Some(key) = self.room.controls.remove(&conn) {
            self.close(key, 1);
        }
    }

    /// A user has connected for its control connection.
    pub(super) fn room_accepts_control(&mut self, key: ConnKey, user: usize) -> Option<[u8; 32]> {
        self.room.core.as_ref()?;
        if self.is_banned(user) {
            // The door hangs up before a byte is read.
            self.close(key, 1);
            return None;
        }
        let number = self.room.next;
        self.room.next += 1;
        self.room.controls.insert(number, key);
        self.set_role(key, 1, Role::RoomControl(number));
        let exporter = [number as u8; 32];
        let from = SocketAddr::new(public_address(user), 50_000);
        self.room_input(Input::Opened { conn: ConnId(number), from, exporter });
        self.schedule(self.now + ROOM_PING, What::RoomChecks { conn: key });
        Some(exporter)
    }

    /// The Room lets go of a user that says nothing.
    pub(super) fn on_room_checks(&mut self, key: ConnKey) {
        let Role::RoomControl(number) = self.role(key, 1) else { return };
        let Some(conn) = self.network.conns.get(&key) else { return };
        if conn.heard[1] + ROOM_DEAD <= self.now {
            self.drop_control(number);
            self.room_input(Input::Closed { conn: ConnId(number) });
        } else {
            self.schedule(self.now + ROOM_PING, What::RoomChecks { conn: key });
        }
    }

    pub(super) fn room_hears(&mut self, key: ConnKey, end: usize, packet: Packet) {
        match (self.role(key, end), packet) {
            (Role::Spliced(other), Packet::Fin) => {
                self.transmit(other, 1, Packet::Fin);
                self.schedule(self.now + LAST_BYTES, What::RelayDone { conn: key });
            }
            (Role::Spliced(other), packet) => self.transmit(other, 1, packet),
            (_, Packet::Fin) => self.connection_lost(key, end),
            (Role::RoomControl(number), Packet::ToRoom(frame)) => {
                self.room_input(Input::Frame { conn: ConnId(number), frame: *frame });
            }
            (Role::New, Packet::Token(token)) => {
                let number = self.room.next;
                self.room.next += 1;
                self.room.waiting.insert(number, key);
                self.set_role(key, 1, Role::RelayWaiting);
                let Some(user) = self.caller(key) else { return };
                if self.is_banned(user) {
                    self.room.waiting.remove(&number);
                    return self.close(key, 1);
                }
                let from = public_address(user);
                self.room_input(Input::RelayHello { link: LinkId(number), from, token });
            }
            (role, packet) => panic!("the Room heard {packet:?} as {role:?}"),
        }
    }

    fn splice(&mut self, pair: PairId, links: [LinkId; 2]) {
        let conns = links.map(|link| self.room.waiting.remove(&link.0));
        let alive = |world: &Self, conn: Option<ConnKey>| {
            conn.filter(|c| matches!(world.role(*c, 1), Role::RelayWaiting))
        };
        let (Some(a), Some(b)) = (alive(self, conns[0]), alive(self, conns[1])) else {
            for conn in conns.into_iter().flatten() {
                self.close(conn, 1);
            }
            return self.room_input(Input::RelayEnded { pair, bytes: 0 });
        };
        self.room.pairs.insert(pair, [a, b]);
        self.set_role(a, 1, Role::Spliced(b));
        self.set_role(b, 1, Role::Spliced(a));
        self.transmit(a, 1, Packet::RelayReady);
        self.transmit(b, 1, Packet::RelayReady);
    }

    pub(super) fn on_relay_done(&mut self, key: ConnKey) {
        let pair = self.room.pairs.iter().find(|(_, conns)| conns.contains(&key)).map(|(pair, _)| *pair);
        if let Some(pair) = pair {
            self.end_pair(pair);
        }
    }

    fn end_pair(&mut self, pair: PairId) {
        if let Some(conns) = self.room.pairs.remove(&pair) {
            for conn in conns {
                self.close(conn, 1);
            }
            self.room_input(Input::RelayEnded { pair, bytes: 0 });
        }
    }

    pub(super) fn room_lost_connection(&mut self, key: ConnKey, end: usize, role: Role) {
        match role {
            Role::RoomControl(number) => {
                self.set_role(key, end, Role::Closed);
                self.room.admitted.retain(|admitted| *admitted != number);
                self.room.controls.remove(&number);
                self.room_input(Input::Closed { conn: ConnId(number) });
            }
            // A link that waits is found out when the other one comes.
            Role::RelayWaiting => {}
            Role::Spliced(_) => self.on_relay_done(key),
            _ => {}
        }
    }
}
