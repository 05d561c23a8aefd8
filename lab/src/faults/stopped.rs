//! A receiver that takes nothing, and a gigabyte offered to it: what the sender, the Room and the receiver keep
//! in memory meanwhile.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;
use serde_json::json;

use super::ground::{Ground, Manner, Place};
use super::report::{Report, kept};
use super::words::Order;

/// Bytes of one message.
const MESSAGE: usize = 64 * 1024;
/// Between two looks at the sender.
const LOOK: Duration = Duration::from_millis(200);
/// A sender that has not got on for this long waits.
const WAITS: Duration = Duration::from_secs(5);
/// A stopped process is stopped for this long in all; it must not seem dead, which takes 45 s.
const STOPPED: Duration = Duration::from_secs(20);
/// What was taken for sending arrives within this once the receiver goes on.
const SETTLED: Duration = Duration::from_secs(60);
/// What each of the three may occupy at most, in KiB: the channel's buffers and a runtime, not the gigabyte.
const MOST_KIB: u64 = 64 * 1024;

/// How much is offered.
#[derive(Debug, Clone, Args)]
pub(super) struct StoppedArgs {
    /// What is offered, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// How the receiver stops; both unless given.
    #[arg(value_enum)]
    hows: Vec<How>,
}

/// How a receiver stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// Its handler never returns; the library goes on.
    Handler,
    /// The whole process is stopped, and goes on after 20 s.
    Process,
}

/// Measures both ways to stop, direct and relayed.
pub(super) fn measure(args: &StoppedArgs, report: &mut Report) -> Result<()> {
    let hows = if args.hows.is_empty() { How::value_variants() } else { &args.hows };
    for &how in hows {
        for relay_only in [false, true] {
            one(args, how, relay_only, report)?;
        }
    }
    Ok(())
}

fn one(args: &StoppedArgs, how: How, relay_only: bool, report: &mut Report) -> Result<()> {
    let manner = Manner { relay_only, bar_is_stuck: how == How::Handler };
    let mut ground = Ground::build(Place::Lan, 1, manner)?;
    let offer = |messages| Order::Send {
        messages,
        every_us: 0,
        size: (MESSAGE, MESSAGE),
        large_every: 0,
        call_every: 0,
    };
    // The path stands before the receiver stops.
    ground.foo.tell(&offer(1))?;
    let path = if relay_only { "relay" } else { "lan" };
    ground.await_all(path, SETTLED, |pair| pair.rung.as_deref() == Some(path))?;
    if how == How::Process {
        ground.bar.program.signal(Signal::SIGSTOP)?;
    }
    ground.foo.tell(&offer(args.mib * 1024 * 1024 / MESSAGE as u64))?;
    let taken = await_standstill(&mut ground, if how == How::Process { STOPPED } else { WAITS })?;
    let pids = [ground.foo.program.pid(), room_pid(&ground)?, ground.bar.program.pid()];
    let [sender, room, receiver] = pids.map(peak_kib);
    let (sender, room, receiver) = (sender?, room?, receiver?);
    let name = format!("{} stopped, {path}", if how == How::Process { "process" } else { "handler" });
    let figures = [
        ("MiB offered", json!(args.mib)),
        ("MiB taken for sending", json!(taken * MESSAGE as u64 / (1024 * 1024))),
        ("sender KiB", json!(sender)),
        ("Room KiB", json!(room)),
        ("receiver KiB", json!(receiver)),
    ];
    report.row(&name, &figures);
    for (who, kib) in [("sender", sender), ("Room", room), ("receiver", receiver)] {
        report.promise(kib < MOST_KIB, || format!("{name}: the {who} has {kib} KiB"));
    }
    if how == How::Process {
        ground.bar.program.signal(Signal::SIGCONT)?;
        ground.foo.tell(&Order::Hush)?;
        let all = ground.await_settled(SETTLED)?;
        kept(report, &format!("{name}: kept"), &all);
    }
    Ok(())
}

/// Waits until the sender has not got on for this long. Returns how many messages it got rid of.
fn await_standstill(ground: &mut Ground, still: Duration) -> Result<u64> {
    let (mut last, mut since) = (u64::MAX, Duration::ZERO);
    while since < still {
        let taken = ground.foo.look()?.first().context("there is a pair")?.sent.messages;
        since = if taken == last { since + LOOK } else { Duration::ZERO };
        last = taken;
        thread::sleep(LOOK);
    }
    Ok(last)
}

fn room_pid(ground: &Ground) -> Result<u32> {
    Ok(ground.room.as_ref().context("there is a Room")?.program.pid())
}

/// The most that a process has had in memory so far.
fn peak_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading a process's memory")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.context("the kernel does not tell a process's memory")
}
