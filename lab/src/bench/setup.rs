//! The first call to a peer that is not linked yet: introduction, connection, handshake, call and answer.
//!
//! Every sample is of two users that have never met, when the news that one of them has come is over: everybody in the
//! Room is told, and here all of them share a CPU with the call. Raw TCP's is a connection and its first round trip.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::args::{Args, Role};
use super::client::{RAW, echo, join, on, seen};
use super::raw;
use super::report::{Report, Summary};
use super::roles::{SERVER, numbered};
use crate::clock;

/// Pairs of users.
const PAIRS: usize = 50;
/// The Room gathers news for some 20 ms, and fifty users take it in.
const NEWS: Duration = Duration::from_millis(100);
/// Bytes of the call's argument.
const SIZE: usize = 64;

/// Measures the first call.
pub(super) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let (_raw, port) = args.start(Role::Raw, &[])?;
    let to = raw::address(port.parse()?);
    let (_room, room) = args.start(Role::Room, &[])?;
    let (_answerers, _) = args.start(Role::Answerers, &[("room", &room), ("users", &PAIRS.to_string())])?;
    let runtime = args.runtime()?;
    let (mut plain, mut first) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        plain.push(raw::first_round_trip(to, SIZE)?);
        let user = runtime.block_on(join(args, &numbered("Foo", pair), &room))?;
        let peer = user.peer(numbered(SERVER, pair))?;
        runtime.block_on(seen(&peer))?;
        thread::sleep(NEWS);
        first.push(on(&runtime, async move {
            let body = [7; SIZE];
            let started = clock::now();
            echo(&peer, &body).await?;
            Ok(started.elapsed().as_secs_f64() * 1e6)
        })?);
        runtime.block_on(user.leave());
    }
    report.row("first get to a peer", "us", Summary::of(first), &[(RAW, Summary::of(plain))]);
    Ok(())
}
