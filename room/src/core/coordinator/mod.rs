//! One input at a time, commands out: the Room as a whole.
//!
//! Every input carries the time. Slow work - bcrypt, checks of addresses, disk - is a command, and its result
//! comes back as an input with the id of what asked for it; a result for a connection that is gone, or for an
//! attempt that is over, is dropped. The commands are to be carried out in their order.

mod login;
mod meet;
mod messages;
mod operate;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::{Identity, PublicIdentity};
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{Closing, ToRoom, ToUser};

pub use self::messages::{CallId, Command, Input, PasswordVerdict};
use super::accounts::Accounts;
use super::admission::{AwaitHello, AwaitLogin, Checking, Newcomer};
use super::blacklist::{Banned, Blacklist};
use super::certificates::Certificates;
use super::checks::Checks;
use super::directory::Directory;
use super::line::{Asks, Precedence};
use super::penalty::{Offence, Penalties, Throttle};
use super::relay::Relay;
use super::tickets::Tickets;
use super::{Chance, ConnId, Now, Source};
use crate::admin::Totals;
use crate::config::RoomLimits;
use crate::password::PasswordHash;
use crate::store::Loaded;

/// What a Room is made of.
pub struct Setup {
    /// What the data directory held.
    pub loaded: Loaded,
    /// Accounts of the configuration.
    pub accounts: BTreeMap<UserName, PasswordHash>,
    /// The room password.
    pub room_password: Option<PasswordHash>,
    /// The blacklist of the configuration.
    pub blacklist: Vec<IpNet>,
    /// Whether users may agree on channels without encryption.
    pub allow_unencrypted: bool,
    /// How much of everything.
    pub limits: RoomLimits,
    /// Where it listens.
    pub addresses: Vec<RoomAddress>,
    /// Where its random bytes come from.
    pub chance: Box<dyn Chance>,
}

/// The Room.
pub struct Coordinator {
    identity: Identity,
    allow_unencrypted: bool,
    limits: RoomLimits,
    addresses: Vec<RoomAddress>,
    chance: Box<dyn Chance>,
    started: u64,

    connections: HashMap<ConnId, Connection>,
    directory: Directory,
    accounts: Accounts,
    tickets: Tickets,
    certificates: Certificates,
    blacklist: Blacklist,
    penalties: Penalties,
    throttle: Throttle,
    asks: Asks,
    relay: Relay,
    checks: Checks,
    totals: Totals,

    next_attempt: u64,
    /// Passwords that are being verified. Whose connection has gone meanwhile still answers for them.
    attempts: HashMap<u64, Attempt>,
    /// Accounts whose identity is on its way to the disk. It is believed when it is there.
    binding: HashMap<UserName, Binding>,
    flush_at: Option<Instant>,
    /// Users are to be handed the blacklist anew.
    blacklist_changed: bool,
    housekeeping_at: Instant,
    keep_tickets_at: Instant,
    draining: bool,
}

#[derive(Debug)]
struct Connection {
    from: SocketAddr,
    exporter: [u8; 32],
    stage: Stage,
    logins_asked: u32,
    /// Its last login was told to come back, because the Room was busy.
    told_to_wait: bool,
}

impl Connection {
    /// True if its login waits for this check of passwords.
    fn waits_for(&self, attempt: u64) -> bool {
        matches!(self.stage, Stage::Checking { attempt: current, .. } if current == attempt)
    }
}

/// Where a password that is being verified came from, and for whom.
#[derive(Debug)]
struct Attempt {
    from: SocketAddr,
    name: UserName,
    precedence: Precedence,
}

/// The first identity of an account, and whose login it was.
#[derive(Debug)]
struct Binding {
    conn: ConnId,
    identity: PublicIdentity,
}

#[derive(Debug)]
enum Stage {
    Hello(AwaitHello),
    Login(AwaitLogin),
    Checking {
        attempt: u64,
        checking: Box<Checking>,
    },
    /// In order, and waits until its account's identity is on disk.
    Binding {
        newcomer: Box<Newcomer>,
        /// The account changed meanwhile.
        void: bool,
    },
    Ready,
    /// Between two stages; nothing that comes is expected.
    Between,
}

/// How long changes of the roster are gathered at least, so that a thousand arrivals are not a million messages.
const ROSTER_BATCH: Duration = Duration::from_millis(20);
/// How much longer for each user online, who is told each time: 10,000 users are told four times a second, and a Room
/// into which they all come at once has time for their logins.
const ROSTER_BATCH_A_USER: Duration = Duration::from_micros(20);
/// The longest that changes are gathered: a ban reaches everybody within a second.
const ROSTER_BATCH_MOST: Duration = Duration::from_millis(500);
/// How often what has ended is looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long tickets are gathered before they are written. A Room that is killed costs their holders one bcrypt.
const TICKETS_BATCH: Duration = Duration::from_secs(5);
/// Networks of the blacklist that users are handed. 19 bytes at most each, so that they fit a frame.
const BLACKLIST_HANDED_OUT: usize = 2_000;

impl Coordinator {
    /// A Room that nobody is in yet.
    pub fn new(setup: Setup, now: Now) -> Self {
        let Setup { loaded, accounts, room_password, blacklist, limits, chance, .. } = setup;
        let secret =
            blake3::derive_key("parlor room cost of names without an account v1", &*loaded.identity.seed());
        Self {
            identity: loaded.identity,
            allow_unencrypted: setup.allow_unencrypted,
            addresses: setup.addresses,
            started: now.unix,
            connections: HashMap::new(),
            directory: Directory::default(),
            accounts: Accounts::new(accounts, loaded.accounts, loaded.bindings, room_password, secret),
            tickets: Tickets::new(loaded.tickets, now.unix),
            certificates: Certificates::default(),
            blacklist: Blacklist::new(&blacklist, loaded.bans),
            penalties: Penalties::new(limits.ban_forever_after),
            throttle: Throttle::default(),
            asks: Asks::default(),
            relay: Relay::new(limits.relay.pairs_per_user, limits.relay.pairs_total),
            checks: Checks::default(),
            totals: Totals::default(),
            next_attempt: 0,
            attempts: HashMap::new(),
            binding: HashMap::new(),
            flush_at: None,
            blacklist_changed: false,
            housekeeping_at: now.instant + HOUSEKEEPING,
            keep_tickets_at: now.instant + TICKETS_BATCH,
            draining: false,
            limits,
            chance,
        }
    }

    /// The blacklist as it is before the first input.
    pub fn blacklist(&self) -> Arc<Blacklist> {
        Arc::new(self.blacklist.clone())
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn wake_at(&self) -> Instant {
        self.flush_at.map_or(self.housekeeping_at, |at| at.min(self.housekeeping_at))
    }

    /// Takes what happened and says what is to be done.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Command>) {
        match input {
            Input::Opened { conn, from, exporter } => self.opened(conn, from, exporter, now, out),
            Input::Frame { conn, frame } => self.frame(conn, frame, now, out),
            Input::Broken { conn, code } => self.broken(conn, code, now, out),
            Input::Closed { conn } => self.forget(conn, now),
            Input::Misbehaved { from, offence } => {
                self.charge(from, offence, now, out);
            }
            Input::PasswordsChecked { conn, attempt, verdict } => {
                self.passwords_checked(conn, attempt, verdict, now, out);
            }
            Input::Bound { conn, name, kept } => self.bound(conn, &name, kept, now, out),
            Input::AddressChecked { conn, generation, address, reached } => {
                self.address_checked(conn, generation, address, reached, now, out);
            }
            Input::RelayHello { link, from, token } => self.relay_hello(link, from, &token, now, out),
            Input::RelayEnded { pair, bytes } => {
                self.relay.ended(pair);
                self.totals.relayed_bytes += bytes;
            }
            Input::Admin { call, request } => self.admin(call, request, now, out),
            Input::Tick => {}
            Input::Drain => self.drain(out),
        }
        self.tick(now, out);
    }

    fn opened(
        &mut self,
        conn: ConnId,
        from: SocketAddr,
        exporter: [u8; 32],
        now: Now,
        out: &mut Vec<Command>,
    ) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let stage = Stage::Hello(AwaitHello);
        self.connections
            .insert(conn, Connection { from, exporter, stage, logins_asked: 0, told_to_wait: false });
        if self.draining {
            self.turn_away_for_shutdown(conn, out);
        } else if let Some(banned) = self.kept_out(from, now) {
            // The ban came while it shook hands.
            self.turn_away_banned(conn, banned, now, out);
        }
    }

    /// Whether an address is banned, or kept out for what it did.
    fn kept_out(&self, from: SocketAddr, now: Now) -> Option<Banned> {
        let barred = || {
            let until = self.penalties.barred_until(Source::of(from.ip()), now.instant)?;
            let left = until.saturating_duration_since(now.instant).as_secs() + 1;
            Some(Banned::Seconds(u32::try_from(left).unwrap_or(u32::MAX)))
        };
        self.blacklist.banned(from.ip(), now.unix).or_else(barred)
    }

    fn frame(&mut self, conn: ConnId, frame: ToRoom, now: Now, out: &mut Vec<Command>) {
        let Some(connection) = self.connections.get(&conn) else { return };
        match (&connection.stage, frame) {
            (Stage::Hello(_), ToRoom::Hello(hello)) => self.hello(conn, hello, now, out),
            (Stage::Login(_), ToRoom::Login(login)) => self.login(conn, login, now, out),
            (Stage::Ready, ToRoom::Introduce(introduce)) => self.introduce(conn, &introduce, now, out),
            (Stage::Ready, ToRoom::Presence(presence)) => self.presence(conn, presence, now, out),
            (Stage::Ready, ToRoom::Ping(nonce)) => {
                out.push(Command::Send { conn, frame: ToUser::Pong(nonce) });
            }
            (Stage::Ready, ToRoom::Pong(_)) => {}
            (_, ToRoom::Bye(_)) => self.close(conn, CloseCode::Done, now, out),
            (
                _,
                ToRoom::Hello(_)
                | ToRoom::Login(_)
                | ToRoom::Introduce(_)
                | ToRoom::Presence(_)
                | ToRoom::Ping(_)
                | ToRoom::Pong(_),
            ) => self.broken(conn, CloseCode::Unexpected, now, out),
        }
    }

    /// Before the login broken rules cost the address; after it they cost the connection, since many users may
    /// share an address.
    fn broken(&mut self, conn: ConnId, code: CloseCode, now: Now, out: &mut Vec<Command>) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let from = connection.from;
        tracing::info!(address = %from, %code, "a connection broke the rules and is closed");
        let offence = match (&connection.stage, code) {
            // The time that passes while the Room is at work on a login, or too busy for it, is none of the user's.
            (Stage::Ready, _) | (Stage::Checking { .. } | Stage::Binding { .. }, CloseCode::TimedOut) => None,
            (Stage::Login(_), CloseCode::TimedOut) if connection.told_to_wait => None,
            (_, CloseCode::TimedOut) => Some(Offence::TimedOut),
            _ => Some(Offence::Malformed),
        };
        if let Some(offence) = offence {
            self.charge(from.ip(), offence, now, out);
        }
        self.close(conn, code, now, out);
    }

    /// Says why, closes and forgets.
    fn close(&mut self, conn: ConnId, code: CloseCode, now: Now, out: &mut Vec<Command>) {
        if self.connections.contains_key(&conn) {
            out.push(Command::Close { conn, closing: Closing { code, reconnect_in_ms: None } });
            self.forget(conn, now);
        }
    }

    /// Closes for a ban; one that passes lets the user come back when it has passed.
    fn close_banned(&mut self, conn: ConnId, seconds: Option<u64>, now: Now, out: &mut Vec<Command>) {
        if self.connections.contains_key(&conn) {
            let wait = |seconds: u64| u32::try_from(seconds.saturating_mul(1_000)).unwrap_or(u32::MAX);
            let closing = Closing { code: CloseCode::Banned, reconnect_in_ms: seconds.map(wait) };
            out.push(Command::Close { conn, closing });
            self.forget(conn, now);
        }
    }

    fn turn_away_banned(&mut self, conn: ConnId, banned: Banned, now: Now, out: &mut Vec<Command>) {
        let seconds = banned.seconds();
        self.totals.refused_logins += 1;
        out.push(Command::Send { conn, frame: ToUser::LoginRefused(LoginRefusal::Banned { seconds }) });
        self.close_banned(conn, seconds.map(u64::from), now, out);
    }

    fn forget(&mut self, conn: ConnId, now: Now) {
        self.connections.remove(&conn);
        if let Some(session) = self.directory.leave(conn) {
            tracing::info!(name = %session.name, address = %session.observed, "left");
            self.changed(now);
        }
    }

    /// Somebody came or went: the others are told soon.
    fn changed(&mut self, now: Now) {
        let online = u32::try_from(self.directory.len()).unwrap_or(u32::MAX);
        let batch = ROSTER_BATCH + ROSTER_BATCH_A_USER.saturating_mul(online);
        self.flush_at.get_or_insert(now.instant + batch.min(ROSTER_BATCH_MOST));
    }
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Coordinator");
        shown.field("identity", &self.identity).field("online", &self.directory.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
