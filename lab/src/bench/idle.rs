//! A user that does nothing: how often its process wakes up, and what it occupies.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::args::{Args, Role};
use super::machine;
use super::report::{Report, float};

/// After its login a user is told of the others; by then that has settled.
const SETTLED: Duration = Duration::from_secs(3);
/// How long wake-ups are counted: a ping to the Room and some looks at the machine's addresses are among them.
const WATCHED: Duration = Duration::from_secs(20);

/// Measures a user that does nothing.
pub(super) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let (room, address) = args.start(Role::Room, &[])?;
    let (alone, _) = args.start(Role::Idle, &[("room", &address)])?;
    thread::sleep(SETTLED);
    let now = || anyhow::Ok([machine::sleeps(alone.pid())?, machine::sleeps(room.pid())?]);
    let before = now()?;
    thread::sleep(WATCHED);
    let after = now()?;
    report.figure("idle user: wake-ups in 20 s", "", float(after[0] - before[0]));
    report.figure("its Room: wake-ups in 20 s", "", float(after[1] - before[1]));
    report.figure("idle user: resident", "KiB", float(machine::resident_kib(alone.pid())?));
    report.figure("its Room: resident", "KiB", float(machine::resident_kib(room.pid())?));
    Ok(())
}
