//! Everything there is, and what is due when.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use parlor_protocol::introduction::{Introduction, SignedIntroduction};
use parlor_protocol::rung::Rung;
use parlor_protocol::session::Placed;
use parlor_room::store::StoreChange;

use super::attempts::{Group, Trying};
use super::chance::Chance;
use super::faults::{Fault, Plan};
use super::ledger::{CallNo, Ledger, MessageNo};
use super::links::Stuck;
use super::network::{ConnKey, Network, Packet, Way, WayState};
use super::room::RoomSeat;
use super::sealed::Seals;
use super::user::{AttemptKey, Process, Seat};

/// From the healing of the network until nothing is owed between programs that are there, and everybody says a
/// last word: a dead connection to the Room is noticed after 45 s and replaced within 30 s, and then the rest goes.
const UNTIL_LAST_WORDS: Duration = Duration::from_secs(150);
/// From the healing until everything owed must have been delivered or reported.
const UNTIL_SETTLED: Duration = Duration::from_secs(300);
/// From then until every channel must have been closed, because nobody used it.
const UNTIL_IDLE: Duration = Duration::from_secs(15 * 60);
/// More steps than this in one seed are a loop without end.
const STEPS: u64 = 3_000_000;

/// The latest lines for people, at most so many, kept only when a seed is run again because it failed.
#[derive(Clone, Default)]
pub(super) struct Log(pub(super) Option<(usize, Rc<RefCell<VecDeque<String>>>)>);

impl Log {
    pub(super) fn tell(&self, line: String) {
        if let Some((most, lines)) = &self.0 {
            let mut lines = lines.borrow_mut();
            if lines.len() == *most {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }
}

/// Notes what happens, if somebody wants to read it.
macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        if $world.log.0.is_some() {
            let at = $world.now.duration_since($world.start);
            $world.log.tell(format!("{:10.4} {}", at.as_secs_f64(), format!($($words)*)));
        }
    };
}
pub(super) use note;

/// Something is due.
#[derive(Debug)]
pub(super) enum What {
    Arrive {
        conn: ConnKey,
        from: usize,
    },
    Broken {
        conn: ConnKey,
        end: usize,
    },
    Over {
        conn: ConnKey,
        end: usize,
    },
    Look {
        user: usize,
        run: u32,
        peer: usize,
        wake: Option<u64>,
    },
    Try {
        attempt: AttemptKey,
    },
    Connected {
        attempt: AttemptKey,
        conn: ConnKey,
    },
    AttemptDeadline {
        attempt: AttemptKey,
    },
    PeerDialed {
        group: u64,
    },
    AnswerDeadline {
        conn: ConnKey,
        end: usize,
    },
    EarlyDeadline {
        conn: ConnKey,
        end: usize,
    },
    RequestDeadline {
        user: usize,
        run: u32,
        request: u32,
    },
    AskAgain {
        user: usize,
        run: u32,
        peer: usize,
    },
    Join {
        user: usize,
        run: u32,
    },
    ControlUp {
        user: usize,
        run: u32,
        conn: ConnKey,
    },
    LoginDeadline {
        user: usize,
        run: u32,
        conn: ConnKey,
    },
    UserChecks {
        user: usize,
        run: u32,
        conn: ConnKey,
    },
    RoomChecks {
        conn: ConnKey,
    },
    RoomTick {
        tick: u64,
    },
    AddressChecked {
        run: u32,
        conn: u64,
        generation: u32,
        address: SocketAddr,
    },
    RelayDone {
        conn: ConnKey,
    },
    Leaving {
        user: usize,
        run: u32,
    },
    Gone {
        user: usize,
        run: u32,
    },
    Work {
        user: usize,
    },
    WorkOn {
        user: usize,
        run: u32,
        peer: usize,
    },
    Consume {
        user: usize,
        run: u32,
        peer: usize,
        cost: u64,
        session: u64,
    },
    Executed {
        user: usize,
        run: u32,
        peer: usize,
        call: u32,
        running: u64,
        number: CallNo,
        timed_out: bool,
    },
    Watch {
        user: usize,
        run: u32,
        peer: usize,
        number: MessageNo,
        session: u64,
        placed: Placed,
    },
    Cancel {
        user: usize,
        run: u32,
        peer: usize,
        call: u32,
        number: CallNo,
    },
    /// A link that hears nothing is to be gone by now.
    DeadLink {
        conn: ConnKey,
        end: usize,
    },
    /// A link that got no acknowledgement since is to be suspect by now.
    Stuck(Stuck),
    /// A user looks at its machine's addresses.
    NetworkLook {
        user: usize,
        run: u32,
    },
    PasswordsChecked {
        run: u32,
        conn: u64,
        attempt: u64,
        right: bool,
    },
    Stored {
        run: u32,
        change: StoreChange,
        waits: Option<u64>,
    },
    Fault(Fault),
}

struct Due {
    at: Instant,
    order: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) heal_at: Instant,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub(super) steps: u64,
    pub(super) chance: Chance,
    /// What was added later draws from here, so that the older parts of a story stay as they were.
    pub(super) more: Chance,
    pub(super) plan: Plan,
    pub(super) room: RoomSeat,
    pub(super) users: Vec<Seat>,
    pub(super) network: Network,
    pub(super) ledger: Ledger,
    pub(super) log: Log,
    pub(super) attempts: BTreeMap<AttemptKey, Trying>,
    pub(super) next_attempt: u64,
    pub(super) groups: BTreeMap<u64, Group>,
    pub(super) next_group: u64,
    pub(super) verified: VecDeque<(SignedIntroduction, Introduction)>,
    /// First words on connections whose introduction is not here yet.
    pub(super) early: BTreeMap<ConnKey, Packet>,
    /// When something last happened between two users that may interrupt what they say.
    pub(super) excused: BTreeMap<(usize, usize), Instant>,
    pub(super) last_words: Vec<MessageNo>,
    /// When who began to search for whom, in worlds that are about time.
    pub(super) searches: Vec<(Instant, usize, usize)>,
    pub(super) seals: Seals,
}

#[expect(clippy::disallowed_methods, reason = "a starting point for the virtual clock")]
fn some_instant() -> Instant {
    Instant::now()
}

impl World {
    pub(super) fn new(seed: u64, log: Log) -> Self {
        let (mut chance, mut more) = (Chance::new(seed), Chance::new(!seed));
        let plan = Plan::new(&mut chance, &mut more);
        let mut world = Self::with(plan, chance, more, log);
        world.people();
        world
    }

    /// A world without people.
    pub(super) fn with(plan: Plan, chance: Chance, more: Chance, log: Log) -> Self {
        let start = some_instant();
        Self {
            now: start,
            start,
            heal_at: start + plan.lasts,
            queue: BinaryHeap::new(),
            order: 0,
            steps: 0,
            chance,
            more,
            plan,
            room: RoomSeat::new(),
            users: Vec::new(),
            network: Network::default(),
            ledger: Ledger::default(),
            log,
            attempts: BTreeMap::new(),
            next_attempt: 0,
            groups: BTreeMap::new(),
            next_group: 0,
            verified: VecDeque::new(),
            early: BTreeMap::new(),
            excused: BTreeMap::new(),
            last_words: Vec::new(),
            searches: Vec::new(),
            seals: Seals::default(),
        }
    }

    /// Users, where they are, and which ways there are between them.
    fn people(&mut self) {
        let count = self.plan.users;
        let mut names = vec!["Ann", "bob", "Cleo", "dora", "Eve"];
        for user in 0..count {
            let name = names.swap_remove(self.chance.below(names.len() as u64) as usize);
            let lan = self.chance.below(2) as u8;
            let host = if self.chance.one_in(3) { lan } else { 10 + user as u8 };
            let mut seat = Seat::new(user, name);
            (seat.host, seat.lan, seat.lan_address[2]) = (host, lan, lan);
            seat.reachable = self.chance.one_in(2);
            self.users.push(seat);
            self.add_way(Way::Room(user), true);
        }
        for a in 0..count {
            for b in a + 1..count {
                let together = self.users[a].host == self.users[b].host;
                let lan = !self.chance.one_in(3);
                let public = self.chance.one_in(2);
                self.add_way(Way::Direct(a, b, Rung::SameHost), together);
                self.add_way(Way::Direct(a, b, Rung::Lan), lan);
                self.add_way(Way::Direct(a, b, Rung::Public), public);
            }
        }
    }

    fn add_way(&mut self, way: Way, works: bool) {
        let latency = match way {
            Way::Direct(_, _, Rung::SameHost) => Duration::from_micros(50),
            Way::Direct(_, _, Rung::Lan) => self.chance.ms(0, 3),
            Way::Direct(..) | Way::Room(_) => self.chance.ms(1, 150),
        };
        let rate = self.chance.between(500, 50_000);
        let refuses = self.chance.one_in(2);
        self.network.ways.insert(way, WayState { works, refuses, down: false, latency, rate });
    }

    pub(super) fn schedule(&mut self, at: Instant, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, what }));
    }

    /// Runs the whole story of the seed.
    pub(super) fn run(&mut self) {
        self.start_room();
        for user in 0..self.users.len() {
            self.start_user(user);
            let at = self.now + self.chance.ms(0, 2000);
            self.schedule(at, What::Work { user });
        }
        self.plan_faults();
        let heal_at = self.heal_at;
        self.run_until(heal_at);
        self.heal();
        self.run_until(heal_at + UNTIL_LAST_WORDS);
        self.check_drained();
        note!(self, "last words");
        self.last_words();
        self.run_until(heal_at + UNTIL_SETTLED);
        self.check_settled();
        self.run_until(heal_at + UNTIL_SETTLED + UNTIL_IDLE);
        self.check_idle();
    }

    pub(super) fn run_until(&mut self, end: Instant) {
        while self.queue.peek().is_some_and(|due| due.0.at <= end) {
            let Some(Reverse(due)) = self.queue.pop() else { break };
            assert!(due.at >= self.now, "{:?} is due in the past", due.what);
            self.now = due.at;
            self.steps += 1;
            assert!(self.steps < STEPS, "the world does not come to rest");
            self.happen(due.what);
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrive { conn, from } => self.on_arrive(conn, from),
            What::Broken { conn, end } => self.connection_lost(conn, end),
            What::Over { conn, end } => self.on_over(conn, end),
            What::Look { user, run, peer, wake } => self.on_look(user, run, peer, wake),
            What::Try { attempt } => self.on_try(attempt),
            What::Connected { attempt, conn } => self.on_connected(attempt, conn),
            What::AttemptDeadline { attempt } => self.on_attempt_deadline(attempt),
            What::PeerDialed { group } => self.finish(group),
            What::AnswerDeadline { conn, end } => self.on_answer_deadline(conn, end),
            What::EarlyDeadline { conn, end } => self.on_early_deadline(conn, end),
            What::RequestDeadline { user, run, request } => self.on_request_deadline(user, run, request),
            What::AskAgain { user, run, peer } => self.introduce(user, run, peer),
            What::Join { user, run } => self.on_join(user, run),
            What::ControlUp { user, run, conn } => self.on_control_up(user, run, conn),
            What::LoginDeadline { user, run, conn } => self.on_login_deadline(user, run, conn),
            What::UserChecks { user, run, conn } => self.on_user_checks(user, run, conn),
            What::RoomChecks { conn } => self.on_room_checks(conn),
            What::RoomTick { tick } => self.on_room_tick(tick),
            What::AddressChecked { run, conn, generation, address } => {
                self.on_address_checked(run, conn, generation, address);
            }
            What::RelayDone { conn } => self.on_relay_done(conn),
            What::Leaving { user, run } => self.on_leaving(user, run),
            What::Gone { user, run } => {
                if self.is_up(user, run) {
                    self.kill_user(user, false);
                }
            }
            What::Work { user } => self.on_work(user),
            What::WorkOn { user, run, peer } => self.work_on(user, run, peer),
            What::Consume { user, run, peer, cost, session } => {
                self.on_consume(user, run, peer, cost, session);
            }
            What::Executed { user, run, peer, call, running, number, timed_out } => {
                self.on_executed((user, run, peer), call, running, number, timed_out);
            }
            What::Watch { user, run, peer, number, session, placed } => {
                self.on_watch((user, run, peer), number, session, placed);
            }
            What::Cancel { user, run, peer, call, number } => self.on_cancel(user, run, peer, call, number),
            What::DeadLink { conn, end } => self.on_dead_link(conn, end),
            What::Stuck(stuck) => self.on_stuck(stuck),
            What::NetworkLook { user, run } => self.on_network_look(user, run),
            What::PasswordsChecked { run, conn, attempt, right } => {
                self.on_passwords_checked(run, conn, attempt, right);
            }
            What::Stored { run, change, waits } => self.on_stored(run, change, waits),
            What::Fault(fault) => self.on_fault(fault),
        }
    }

    /// Between programs that are there nothing is owed any more.
    fn check_drained(&self) {
        for (user, seat) in self.users.iter().enumerate() {
            let Some(process) = &seat.process else { continue };
            assert!(process.room_up, "{user} did not come back to the Room");
            for (peer, conversation) in &process.peers {
                let there = self.users[*peer].process.is_some();
                let idle = conversation.channel.is_idle() || !conversation.keeper.is_awake();
                assert!(idle || !there, "{user} still owes {peer} something");
            }
        }
    }

    fn check_settled(&self) {
        self.ledger.check_settled();
        for number in &self.last_words {
            assert!(self.ledger.was_delivered(*number), "a last word did not arrive: {number:?}");
        }
        for (user, seat) in self.users.iter().enumerate() {
            let Some(process) = &seat.process else { continue };
            assert!(process.room_up, "{user} did not come back to the Room");
            self.check_roster(user, process);
            for (peer, conversation) in &process.peers {
                let (held, flushed) = (conversation.channel.buffered(), conversation.channel.is_flushed());
                // The answer to a caller that is gone may lie here until a link comes up.
                assert!(
                    conversation.channel.is_idle() || !conversation.keeper.is_awake(),
                    "{user} owes {peer} something: {held} bytes, flushed: {flushed}"
                );
                assert!(conversation.answers.is_empty(), "{user} owes {peer} an answer");
            }
        }
        if self.plan.gentle {
            self.ledger.check_nothing_lost();
        }
    }

    /// Everybody sees who is there and nobody else.
    fn check_roster(&self, user: usize, process: &Process) {
        assert!(process.members.is_current(), "{user} takes the list for an old one");
        let mut seen: Vec<_> = process.members.iter().map(|member| &member.name).collect();
        let mut there: Vec<_> =
            self.users.iter().filter(|seat| seat.process.is_some()).map(|seat| &seat.name).collect();
        let me = &self.users[user].name;
        seen.retain(|name| *name != me);
        there.retain(|name| *name != me);
        there.sort();
        assert_eq!(seen, there, "what {user} sees of the others is wrong");
    }

    /// After a while in which nobody said anything nothing is left.
    fn check_idle(&self) {
        for (user, seat) in self.users.iter().enumerate() {
            let Some(process) = &seat.process else { continue };
            for (peer, conversation) in &process.peers {
                let linked = conversation.channel.is_linked() || !conversation.links.is_empty();
                assert!(!linked, "{user} keeps links to {peer} for nothing");
                assert!(!conversation.keeper.is_awake(), "{user} looks after {peer} for nothing");
                assert!(conversation.search.is_none(), "{user} searches for {peer} for nothing");
            }
        }
        assert!(self.attempts.is_empty() && self.groups.is_empty(), "attempts are left");
        for (key, conn) in &self.network.conns {
            for (end, role) in conn.ends.iter().zip(&conn.roles) {
                let done = matches!(role, super::network::Role::Control | super::network::Role::Closed);
                let users = matches!(end, super::network::End::User(..));
                assert!(done || !users, "{key:?} of {end:?} is left as {role:?}, dead: {}", conn.dead);
            }
        }
    }
}
