//! How long a conversation pauses when its path changes.
//!
//! Pairs talk both ways at a steady pace, so data is always in flight. Their path is cut; what counts is the
//! longest time without a delivery from before the cut until messages sent after it arrive on the path that is
//! expected then. Every user of every pair gives one sample a cut.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::ground::{Ground, Manner, Place};
use super::report::{Report, kept, millis, times};
use super::words::{Order, PairStatus};
use crate::clock;

/// A path is found again within this, or the row fails.
const FOUND: Duration = Duration::from_secs(60);
/// Users talk undisturbed for this long before each cut.
const QUIET: Duration = Duration::from_millis(300);
/// All users are back on the first path within this, or are reset again.
const SETTLE: Duration = Duration::from_secs(8);
/// How often.
const SETTLES: usize = 5;
/// What a path change may cost, in milliseconds: at the 99th percentile.
const GOAL_MS: f64 = 2_000.0;

/// Which path changes, and how often.
#[derive(Debug, Clone, Args)]
pub(super) struct PausesArgs {
    /// Pairs that talk, each user to the other.
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Cuts of each kind.
    #[arg(long, default_value_t = 13)]
    cuts: usize,
    /// Microseconds from one message of a user to the next.
    #[arg(long, default_value_t = 2_000)]
    every_us: u64,
    /// Which changes; all unless given.
    #[arg(value_enum)]
    changes: Vec<Change>,
}

/// A change of path, and how it is forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Change {
    /// Links in a LAN are reset and the way answers with resets: on to the relay.
    LanRefused,
    /// The way through the LAN falls silent: on to the relay.
    LanSilent,
    /// Links in a LAN are reset: the same way again.
    LanReset,
    /// Links over the Internet are reset and the way answers with resets: on to the relay.
    PublicRefused,
    /// The way over the Internet falls silent: on to the relay.
    PublicSilent,
    /// Both ways within a host answer with resets: on to the relay.
    HostRefused,
    /// Both ways within a host fall silent: on to the relay.
    HostSilent,
    /// Loopback answers with resets: on to the host's own address.
    LoopbackRefused,
    /// Loopback falls silent: on to the host's own address.
    LoopbackSilent,
    /// Relayed links are reset: relayed again.
    RelayReset,
    /// Relayed links fall silent: relayed again.
    RelaySilent,
}

impl Change {
    fn place(self) -> Place {
        match self {
            Self::LanRefused | Self::LanSilent | Self::LanReset | Self::RelayReset | Self::RelaySilent => {
                Place::Lan
            }
            Self::PublicRefused | Self::PublicSilent => Place::Internet,
            Self::HostRefused | Self::HostSilent | Self::LoopbackRefused | Self::LoopbackSilent => {
                Place::OneHost
            }
        }
    }

    /// The rungs before and after.
    fn rungs(self) -> (&'static str, &'static str) {
        match self {
            Self::LanRefused | Self::LanSilent => ("lan", "relay"),
            Self::LanReset => ("lan", "lan"),
            Self::PublicRefused | Self::PublicSilent => ("public", "relay"),
            Self::HostRefused | Self::HostSilent => ("same-host", "relay"),
            Self::LoopbackRefused | Self::LoopbackSilent => ("same-host", "lan"),
            Self::RelayReset | Self::RelaySilent => ("relay", "relay"),
        }
    }

    fn how(self) -> &'static str {
        match self {
            Self::LanRefused | Self::PublicRefused | Self::HostRefused | Self::LoopbackRefused => "refused",
            Self::LanSilent
            | Self::PublicSilent
            | Self::HostSilent
            | Self::LoopbackSilent
            | Self::RelaySilent => "silent",
            Self::LanReset | Self::RelayReset => "reset",
        }
    }

    /// Cuts the path. Where sockets are cut and not a way, returns how many that were.
    fn cut(self, ground: &mut Ground) -> Result<Option<usize>> {
        match self {
            Self::LanRefused | Self::PublicRefused | Self::HostRefused => ground.refuse(ground.ways())?,
            Self::LanSilent | Self::PublicSilent | Self::HostSilent => ground.silence(ground.ways())?,
            Self::LoopbackRefused => ground.refuse(1)?,
            Self::LoopbackSilent => ground.silence(1)?,
            Self::LanReset => return ground.reset_direct().map(Some),
            Self::RelayReset => return ground.reset_circuits().map(Some),
            Self::RelaySilent => return ground.mute_circuits().map(Some),
        }
        Ok(None)
    }

    /// Opens the way again and brings the users back to where they were.
    fn mend(self, ground: &mut Ground) -> Result<()> {
        match self {
            Self::LanRefused | Self::PublicRefused | Self::HostRefused => ground.admit(ground.ways())?,
            Self::LanSilent | Self::PublicSilent | Self::HostSilent => ground.unsilence(ground.ways())?,
            Self::LoopbackRefused => ground.admit(1)?,
            Self::LoopbackSilent => ground.unsilence(1)?,
            Self::LanReset | Self::RelayReset => return Ok(()),
            Self::RelaySilent => return ground.foo_host.unmute(),
        }
        // Without a link they look for the best path anew.
        ground.reset_direct()?;
        ground.reset_circuits().map(drop)
    }
}

/// Measures the changes asked for.
pub(super) fn measure(args: &PausesArgs, report: &mut Report) -> Result<()> {
    let all = Change::value_variants();
    let changes = if args.changes.is_empty() { all } else { &args.changes };
    for &change in changes {
        let relay_only = change.rungs().0 == "relay";
        let manner = Manner { relay_only, ..Manner::default() };
        let mut ground = Ground::build(change.place(), args.pairs, manner)?;
        start_talking(&mut ground, args.every_us, change.rungs().0)?;
        let mut samples = Vec::new();
        for _ in 0..args.cuts {
            samples.extend(one(&mut ground, change, report)?);
        }
        let (from, to) = change.rungs();
        let name = format!("{from} -> {to}, {}", change.how());
        report_pauses(report, &name, samples);
        stop_talking(&mut ground, report, &name)?;
    }
    Ok(())
}

fn report_pauses(report: &mut Report, name: &str, samples: Vec<u64>) {
    let figures = times(samples);
    report.row(name, &figures);
    let p99 = figures[2].1.as_f64().unwrap_or(f64::INFINITY);
    report.promise(p99 < GOAL_MS, || format!("{name}: a path change costs {p99} ms at the 99th percentile"));
}

/// Makes all users talk steadily, and waits until they do it on this rung.
pub(super) fn start_talking(ground: &mut Ground, every_us: u64, rung: &str) -> Result<()> {
    let steadily =
        Order::Send { messages: 1 << 40, every_us, size: (256, 1024), large_every: 0, call_every: 0 };
    ground.send(&steadily)?;
    ground.await_all(rung, FOUND, |pair| is_on(pair, rung)).map(drop)
}

/// Lets what is under way arrive, and holds the promise against it.
pub(super) fn stop_talking(ground: &mut Ground, report: &mut Report, name: &str) -> Result<()> {
    ground.send(&Order::Hush)?;
    let all = ground.await_settled(FOUND)?;
    kept(report, &format!("{name}: kept"), &all);
    Ok(())
}

/// True if this kind of path carries the conversation.
pub(super) fn is_on(pair: &PairStatus, rung: &str) -> bool {
    pair.rung.as_deref() == Some(rung)
}

/// Lets the users talk undisturbed for a while on `rung`.
fn quiet(ground: &mut Ground, rung: &str) -> Result<()> {
    let mut began: Instant = clock::now();
    loop {
        let all = ground.look(u64::MAX)?;
        if !all.iter().all(|pair| is_on(pair, rung)) {
            settle_on(ground, rung)?;
            began = clock::now();
        }
        if began.elapsed() > QUIET {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until all users are on `rung`. Who found another direct path first stays there, so that one is reset.
fn settle_on(ground: &mut Ground, rung: &str) -> Result<()> {
    for _ in 0..SETTLES {
        if ground.await_all(rung, SETTLE, |pair| is_on(pair, rung)).is_ok() {
            return Ok(());
        }
        ground.reset_direct()?;
    }
    ground.await_all(rung, FOUND, |pair| is_on(pair, rung)).map(drop)
}

/// One cut: each user's pause.
fn one(ground: &mut Ground, change: Change, report: &Report) -> Result<Vec<u64>> {
    let (from, to) = change.rungs();
    quiet(ground, from)?;
    let before = clock::monotonic();
    let cut = change.cut(ground)?;
    let after = clock::monotonic();
    let flows = |pair: &PairStatus| is_on(pair, to) && pair.taken.newest_sent > after;
    ground.await_all(&format!("on {to} after a cut"), FOUND, flows)?;
    let pauses: Vec<u64> = ground.look(before)?.iter().map(|pair| pair.pause).collect();
    let pairs = pauses.len() / 2;
    // A cut that misses a pair would make a figure better.
    ensure!(cut.is_none_or(|cut| cut >= pairs), "{cut:?} sockets were cut of {pairs} pairs");
    let worst = pauses.iter().enumerate().max_by_key(|(_, pause)| **pause);
    if let Some((user, &pause)) = worst.filter(|(_, pause)| millis(**pause) > GOAL_MS) {
        report.remark(&format!("user {user} paused for {} ms", millis(pause)));
        ground.story(user % pairs)?.iter().for_each(|line| report.remark(line));
    }
    change.mend(ground)?;
    Ok(pauses)
}

/// How often to climb.
#[derive(Debug, Clone, Args)]
pub(super) struct ClimbsArgs {
    /// Pairs that talk, each user to the other.
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// How often the way is opened.
    #[arg(long, default_value_t = 13)]
    climbs: usize,
    /// How long the way stays closed before, in seconds: it decides how long the next attempt may take.
    #[arg(long, default_value_t = 2)]
    closed_s: u64,
}

/// Whoever takes longer than this for the way up tells its story, in nanoseconds.
const CLIMBED: u64 = 1_000_000_000;

/// Measures how long it takes until a way that opened is used.
pub(super) fn climbs(args: &ClimbsArgs, report: &mut Report) -> Result<()> {
    let mut ground = Ground::build(Place::Lan, args.pairs, Manner::default())?;
    start_talking(&mut ground, 2_000, "lan")?;
    let (mut waits, mut pauses) = (Vec::new(), Vec::new());
    for _ in 0..args.climbs {
        quiet(&mut ground, "lan")?;
        ground.silence(ground.ways())?;
        ground.await_all("on the relay", FOUND, |pair| is_on(pair, "relay"))?;
        std::thread::sleep(Duration::from_secs(args.closed_s));
        let before = clock::monotonic();
        ground.unsilence(ground.ways())?;
        let open = clock::monotonic();
        let mut there = vec![None; 2 * args.pairs];
        while there.iter().any(Option::is_none) {
            let all = ground.look(u64::MAX)?;
            let now = clock::monotonic();
            for (at, pair) in there.iter_mut().zip(&all) {
                if is_on(pair, "lan") {
                    at.get_or_insert(now - open);
                }
            }
            ensure!(now - open < 400_000_000_000, "still on the relay after 400 s: {all:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let slow = |wait: &Option<u64>| wait.is_some_and(|wait| wait > CLIMBED);
        if let Some(user) = there.iter().position(slow) {
            ground.story(user % args.pairs)?.iter().for_each(|line| report.remark(line));
        }
        waits.extend(there.into_iter().flatten());
        pauses.extend(ground.look(before)?.iter().map(|pair| pair.pause));
    }
    report.row(&format!("relay -> lan, closed for {} s: wait", args.closed_s), &times(waits));
    report_pauses(report, "relay -> lan, move: pause", pauses);
    stop_talking(&mut ground, report, "relay -> lan")
}
