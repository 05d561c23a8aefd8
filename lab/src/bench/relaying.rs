//! What relaying costs the Room in CPU time, beside a relay that only copies.

use anyhow::Result;

use super::args::{Args, Role};
use super::client::{COPIED, connect, join, messages, on};
use super::report::{Report, Summary};
use super::roles::SERVER;
use super::{machine, raw, sealed};
use crate::clock;
use crate::process::Program;

/// Bodies by which the cost of a byte is taken, in bytes, and that of a message.
const LARGE: usize = 1024 * 1024;
const SMALL: usize = 64;

/// Measures the Room's CPU time for what it relays.
pub(super) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let args = &Args { relay: true, ..args.clone() };
    let (_raw, port) = args.start(Role::Raw, &[])?;
    let (copy, copied) = args.start(Role::Copy, &[("to", &port)])?;
    let to = raw::address(copied.parse()?);
    let (room, address) = args.start(Role::Room, &[])?;
    let (_server, _) = args.start(Role::Server, &[("room", &address)])?;
    let runtime = args.runtime()?;
    let user = runtime.block_on(join(args, "Foo", &address))?;
    let peer = user.peer(SERVER)?;
    runtime.block_on(connect(args, &peer))?;
    let rows = [
        ("Room's CPU for a relayed GB", "s", LARGE, 1e9 / 1_048_576.0),
        ("for 1,000 of 64 B", "us", SMALL, 1e9),
    ];
    for (name, unit, size, times) in rows {
        let (mut own, mut plain) = (Vec::new(), Vec::new());
        for run in 0..=args.runs {
            let peer = peer.clone();
            let here = cost(&room, || on(&runtime, messages(peer, size, args.time())))?;
            let there = cost(&copy, || sealed::messages(to, size, args.time(), args.cipher))?;
            if run > 0 {
                own.push(here * times);
                plain.push(there * times);
            }
        }
        report.row(name, unit, Summary::of(own), &[(COPIED, Summary::of(plain))]);
    }
    runtime.block_on(user.leave());
    Ok(())
}

/// CPU seconds that a relay used for one message, of work that returns messages a second.
fn cost(relay: &Program, work: impl FnOnce() -> Result<f64>) -> Result<f64> {
    let (busy, started) = (machine::cpu(relay.pid())?, clock::now());
    let messages = work()? * started.elapsed().as_secs_f64();
    Ok((machine::cpu(relay.pid())? - busy) / messages)
}
