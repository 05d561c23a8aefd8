//! A room on a network of namespaces: the Room, two processes of talkers, and ways to break what is between.

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::calendars::Calendars;
use super::words::{Order, PairStatus, Status};
use crate::clock;
use crate::netns::{Host, Internet, Lab, Lan};
use crate::process::Program;
use crate::programs::{RoomProgram, RoomSetup, Stage};

/// A process of talkers is ready, and answers, within this: a hundred logins by password take a while.
const READY: Duration = Duration::from_secs(180);
/// Between two looks at the talkers. What they say is kept to the end of the run, so it must not be too much.
const LOOK: Duration = Duration::from_millis(50);
/// A reader that has not taken what is there after so long will not.
const READ: Duration = Duration::from_secs(20);
/// The Room's port.
const PORT: u16 = 2428;

/// Where the talkers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Place {
    /// Each side on a host of its own, with the Room in one LAN.
    Lan,
    /// Both sides on one host, the Room on another one of the LAN.
    OneHost,
    /// Foo behind a router, Bar on the open Internet.
    Internet,
}

/// How talkers differ from the usual ones.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// They take no path but the relay.
    pub(super) relay_only: bool,
    /// Bar never takes what it is sent.
    pub(super) bar_is_stuck: bool,
}

/// A process of talkers.
pub(super) struct Talkers {
    pub(super) program: Program,
}

impl Talkers {
    /// Tells them something and returns how they stand.
    pub(super) fn tell(&mut self, order: &Order) -> Result<Status> {
        self.program.write(format!("{}\n", serde_json::to_string(order)?).as_bytes())?;
        let line = self.program.line(READY)?;
        serde_json::from_str(&line).with_context(|| format!("talkers said {line:?}"))
    }

    /// How they stand.
    pub(super) fn look(&mut self) -> Result<Vec<PairStatus>> {
        Ok(self.tell(&Order::Look { since: u64::MAX })?.pairs)
    }
}

/// See the module.
pub(super) struct Ground {
    pub(super) room: Option<RoomProgram>,
    pub(super) foo: Talkers,
    pub(super) bar: Talkers,
    pub(super) foo_host: Host,
    pub(super) bar_host: Host,
    room_setup: RoomSetup,
    room_ip: IpAddr,
    /// The addresses on which each of the two reaches the other, best first.
    ways: Vec<Way>,
    // Dropped last, after the programs that run there.
    _network: Network,
    _stage: Stage,
}

/// A direct way between the two hosts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// What Foo's host sees of Bar's.
    bar: IpAddr,
    /// What Bar's host sees of Foo's.
    foo: IpAddr,
}

/// Owns the namespaces.
enum Network {
    Lan { _lan: Box<Lan> },
    Internet { _internet: Box<Internet> },
}

impl Ground {
    /// Starts a Room and this many pairs of talkers. They do not talk yet.
    pub(super) fn build(place: Place, pairs: usize, manner: Manner) -> Result<Self> {
        Self::build_by(place, pairs, manner, None)
    }

    /// The same, by calendars that can be set.
    pub(super) fn build_by(
        place: Place,
        pairs: usize,
        manner: Manner,
        calendars: Option<&Calendars>,
    ) -> Result<Self> {
        let (lab, stage) = (Lab::new()?, Stage::new()?);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let (network, room_host, room_ip, foo_host, bar_host, ways) = match place {
            Place::Lan | Place::OneHost => {
                let lan = Lan::build(lab)?;
                let (foo_ip, bar_ip) = (lan.cables[1].ip(), lan.cables[2].ip());
                let (bar, ways) = match place {
                    Place::OneHost => (
                        lan.foo.clone(),
                        vec![Way::between(loopback, loopback), Way::between(foo_ip, foo_ip)],
                    ),
                    Place::Lan | Place::Internet => (lan.bar.clone(), vec![Way::between(foo_ip, bar_ip)]),
                };
                let (room, ip, foo) = (lan.room.clone(), lan.room_ip(), lan.foo.clone());
                (Network::Lan { _lan: Box::new(lan) }, room, ip, foo, bar, ways)
            }
            Place::Internet => {
                let internet = Internet::bar_open(lab)?;
                let ways = vec![Way::between(internet.foo_public_ip(), internet.bar_public_ip())];
                let (room, ip) = (internet.room.clone(), internet.room_ip());
                let (foo, bar) = (internet.foo.clone(), internet.bar.clone());
                (Network::Internet { _internet: Box::new(internet) }, room, ip, foo, bar, ways)
            }
        };
        let mut room_setup =
            stage.room("room").on(&room_host).listen(format!("{room_ip}:{PORT}")).arg("--open");
        for (name, value) in calendars.iter().flat_map(|calendars| calendars.room.environment()) {
            room_setup = room_setup.env(name, &value);
        }
        let room = room_setup.clone().start()?;
        let (mut foo, mut bar) = (talkers(&foo_host, "Foo", "Bar")?, talkers(&bar_host, "Bar", "Foo")?);
        for command in [&mut foo, &mut bar] {
            command.args(["--room", &room.address, "--pairs", &pairs.to_string()]);
            if manner.relay_only {
                command.arg("--relay-only");
            }
        }
        if place == Place::Internet {
            foo.args(["--lan-id", "A"]);
            bar.args(["--lan-id", "B", "--public-ip", &ways[0].bar.to_string()]);
        }
        if manner.bar_is_stuck {
            bar.arg("--stuck");
        }
        if let Some(calendars) = calendars {
            foo.envs(calendars.foo.environment());
            bar.envs(calendars.bar.environment());
        }
        let (foo, bar) = (ready(foo)?, ready(bar)?);
        let room = Some(room);
        Ok(Self {
            room,
            foo,
            bar,
            foo_host,
            bar_host,
            room_setup,
            room_ip,
            ways,
            _network: network,
            _stage: stage,
        })
    }

    /// Tells both sides to send.
    pub(super) fn send(&mut self, order: &Order) -> Result<()> {
        self.foo.tell(order)?;
        self.bar.tell(order).map(drop)
    }

    /// How all users stand: those of Foo's side, then those of Bar's.
    pub(super) fn look(&mut self, since: u64) -> Result<Vec<PairStatus>> {
        let mut all = self.foo.tell(&Order::Look { since })?.pairs;
        all.extend(self.bar.tell(&Order::Look { since })?.pairs);
        Ok(all)
    }

    /// What the two users of a pair tried to reach each other, for people.
    pub(super) fn story(&mut self, pair: usize) -> Result<Vec<String>> {
        let mut story = vec!["the first user's story:".to_owned()];
        story.extend(self.foo.tell(&Order::Explain { pair })?.story);
        story.push("the second user's story:".to_owned());
        story.extend(self.bar.tell(&Order::Explain { pair })?.story);
        Ok(story)
    }

    /// Looks until all users are as `wanted`, and returns how they stand then.
    pub(super) fn await_all(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&PairStatus) -> bool,
    ) -> Result<Vec<PairStatus>> {
        let began: Instant = clock::now();
        loop {
            let all = self.look(u64::MAX)?;
            if all.iter().all(&wanted) {
                return Ok(all);
            }
            if began.elapsed() > within {
                let not: Vec<_> = all.iter().filter(|pair| !wanted(pair)).collect();
                bail!("not {what} after {within:?}: {not:?}");
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until everything is delivered by its senders' knowledge and taken by its receivers: a receipt says that
    /// the other program has a message, which its reader takes a moment later.
    pub(super) fn await_settled(&mut self, within: Duration) -> Result<Vec<PairStatus>> {
        let all = self.await_all("settled", within, PairStatus::is_settled)?;
        let sent: u64 = all.iter().map(|pair| pair.sent.messages).sum();
        let began = clock::now();
        loop {
            let all = self.look(u64::MAX)?;
            let taken: u64 = all.iter().map(|pair| pair.taken.delivered).sum();
            if taken >= sent || began.elapsed() > READ {
                return Ok(all);
            }
            thread::sleep(LOOK);
        }
    }

    /// Every direct way falls silent.
    pub(super) fn silence(&self, ways: usize) -> Result<()> {
        for way in &self.ways[..ways] {
            self.foo_host.block(way.bar)?;
            self.bar_host.block(way.foo)?;
        }
        Ok(())
    }

    /// Ends [`silence`](Self::silence).
    pub(super) fn unsilence(&self, ways: usize) -> Result<()> {
        for way in &self.ways[..ways] {
            self.foo_host.unblock(way.bar)?;
            if !self.is_one_host() {
                self.bar_host.unblock(way.foo)?;
            }
        }
        Ok(())
    }

    /// Every direct way answers with resets.
    pub(super) fn refuse(&self, ways: usize) -> Result<()> {
        for way in &self.ways[..ways] {
            self.foo_host.refuse(way.bar)?;
            self.bar_host.refuse(way.foo)?;
        }
        Ok(())
    }

    /// Ends [`refuse`](Self::refuse).
    pub(super) fn admit(&self, ways: usize) -> Result<()> {
        for way in &self.ways[..ways] {
            self.foo_host.admit(way.bar)?;
            if !self.is_one_host() {
                self.bar_host.admit(way.foo)?;
            }
        }
        Ok(())
    }

    /// How many direct ways there are.
    pub(super) fn ways(&self) -> usize {
        self.ways.len()
    }

    fn is_one_host(&self) -> bool {
        self.foo_host.namespace() == self.bar_host.namespace()
    }

    /// Resets every direct link; the ways stay open. Returns how many sockets that were.
    pub(super) fn reset_direct(&self) -> Result<usize> {
        self.ways.iter().map(|way| self.foo_host.reset_peer(way.bar)).sum()
    }

    /// The ports of Foo's host that are ends of relayed links.
    pub(super) fn circuits(&mut self) -> Result<Vec<u16>> {
        let mut control: Vec<u16> = self.foo.look()?.iter().map(|pair| pair.control_port).collect();
        if self.is_one_host() {
            control.extend(self.bar.look()?.iter().map(|pair| pair.control_port));
        }
        let mut ports = self.foo_host.connections(self.room_ip, PORT)?;
        ports.retain(|port| !control.contains(port));
        Ok(ports)
    }

    /// Resets Foo's end of every relayed link. Returns how many sockets that were.
    pub(super) fn reset_circuits(&mut self) -> Result<usize> {
        let circuits = self.circuits()?;
        self.foo_host.reset_ports(&circuits)
    }

    /// Foo's end of every relayed link falls silent. Returns how many sockets that were.
    pub(super) fn mute_circuits(&mut self) -> Result<usize> {
        let circuits = self.circuits()?;
        self.foo_host.mute(&circuits)?;
        Ok(circuits.len())
    }

    /// Resets Foo's connections to the Room, relayed links and all. Returns how many sockets that were.
    pub(super) fn reset_room(&self) -> Result<usize> {
        self.foo_host.reset_peer(self.room_ip)
    }

    /// Kills the Room.
    pub(super) fn kill_room(&mut self) -> Result<()> {
        self.room.take().context("the Room is not there")?.program.kill()
    }

    /// Starts the Room again.
    pub(super) fn start_room(&mut self) -> Result<()> {
        self.room = Some(self.room_setup.clone().start()?);
        Ok(())
    }
}

impl Way {
    fn between(foo: IpAddr, bar: IpAddr) -> Self {
        Self { bar, foo }
    }
}

/// The command of a process of talkers; it still needs a Room and a number of pairs.
pub(super) fn talkers(host: &Host, own: &str, other: &str) -> Result<Command> {
    let mut command = host.command(std::env::current_exe().context("finding this program")?);
    command.args(["talkers", "--own", own, "--other", other]);
    Ok(command)
}

/// Starts talkers and waits until they are in the room.
pub(super) fn ready(command: Command) -> Result<Talkers> {
    let mut program = Program::start(command)?;
    program.line_where(READY, |line| line == "READY")?;
    Ok(Talkers { program })
}
