//! Users that do nothing: what the Room remembers of each, how often one wakes up, and what it occupies.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::args::{Args, Role};
use super::machine;
use super::report::{Report, Summary, float};

/// After the last login everybody is told of everybody; by then that has settled.
const SETTLED: Duration = Duration::from_secs(3);
/// How long wake-ups are counted. Less than a ping's interval apart, a user has nothing to do.
const WATCHED: Duration = Duration::from_secs(5);

/// Measures users that do nothing.
pub(super) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let (room, address) = args.start(Role::Room, &[])?;
    let (alone, _) = args.start(Role::Crowd, &[("room", &address), ("users", "1")])?;
    thread::sleep(SETTLED);
    let before = [machine::sleeps(alone.pid())?, machine::sleeps(room.pid())?];
    thread::sleep(WATCHED);
    let after = [machine::sleeps(alone.pid())?, machine::sleeps(room.pid())?];
    let a_second = |i: usize| Summary::of(vec![float(after[i] - before[i]) / WATCHED.as_secs_f64()]);
    report.row("idle user: wake-ups", "/s", a_second(0), None);
    report.row("Room with one: wake-ups", "/s", a_second(1), None);
    let resident = |kib: u64| Summary::of(vec![float(kib)]);
    report.row("idle user: resident", "KiB", resident(machine::resident_kib(alone.pid())?), None);

    let before = machine::resident_kib(room.pid())?;
    drop(alone);
    let users = args.users.to_string();
    let (_crowd, _) = args.start(Role::Crowd, &[("room", &address), ("users", &users)])?;
    thread::sleep(SETTLED);
    let grown = machine::resident_kib(room.pid())?.saturating_sub(before);
    let each = float(grown) / float(args.users as u64);
    report.row("Room: resident for a user", "KiB", Summary::of(vec![each]), None);
    report.remark(&format!("{users} users; the Room had {before} KiB before they came"));
    Ok(())
}
