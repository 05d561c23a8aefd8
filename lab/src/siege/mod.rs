//! A Room besieged: slow handshakes, silent connections and wrong logins, alone and together, while two pairs of
//! users keep talking and others log in with the right password.
//!
//! The Room is the real program. The pairs and the right logins run in a process of their own, the *witness*, so that
//! what they notice is the Room's doing as far as possible; but all of them and the attackers share this machine's
//! CPUs, so the figures are worse than they would be with attackers elsewhere.
//!
//! - `args`: how large a siege is, and how long it lasts.
//! - `ground`: addresses enough for all attackers, where addresses count as strangers'.
//! - `forces`: the attackers; `stranger`: one that speaks the real protocol up to a wrong password.
//! - `witness`: who means well. `room`: the Room, its memory and its descriptors.
//! - `report`: what came of it.

mod args;
mod forces;
mod ground;
mod report;
mod room;
mod stranger;
mod witness;

use std::time::Duration;

use anyhow::Result;
use clap::Parser as _;

use self::args::Args;
use self::forces::{Force, Forces};
use self::ground::Ground;
use self::report::{Report, Row};
use self::room::Besieged;
use self::witness::Witness;

/// Runs the program with the arguments of this process. False if a promise was broken.
pub fn main() -> Result<bool> {
    let args = Args::parse();
    crate::bench::allow_many_files();
    if args.witness {
        witness::run(&args)?;
        return Ok(true);
    }
    // Before any thread starts, so that all of them, and all programs, are on the same ground.
    let ground = Ground::fence()?;
    let room = Besieged::start(&args, &ground)?;
    let mut witness = Witness::start(&room.address)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::new(args.json, ground.has_strangers());
    let calm = row(&runtime, &args, &room, &mut witness, &ground, "calm", &[])?;
    report.row(&calm);
    for _ in 0..args.rounds {
        for (name, forces) in sieges(&args) {
            report.row(&row(&runtime, &args, &room, &mut witness, &ground, name, &forces)?);
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(report.finish())
}

/// Each force alone, from few and from many addresses, and all of them together.
fn sieges(args: &Args) -> Vec<(&'static str, Vec<Force>)> {
    let few = args.addresses;
    let slow = Force::slow(args.slow, few);
    let (silent_few, silent_many) =
        (Force::silent(args.silent, few), Force::silent(args.silent, args.silent));
    let (guess_few, guess_many) = (Force::guess(args.guesses, few), Force::guess(args.guesses, args.guesses));
    vec![
        ("slow handshakes, few addresses", vec![slow]),
        ("silent, few addresses", vec![silent_few]),
        ("silent, an address each", vec![silent_many]),
        ("wrong logins, few addresses", vec![guess_few]),
        ("wrong logins, an address each", vec![guess_many]),
        ("all, few addresses", vec![slow, silent_few, guess_few]),
        ("all, many addresses", vec![slow, silent_many, guess_many]),
    ]
}

/// One siege, from before it begins until the Room has back what it took.
fn row(
    runtime: &tokio::runtime::Runtime,
    args: &Args,
    room: &Besieged,
    witness: &mut Witness,
    ground: &Ground,
    name: &'static str,
    forces: &[Force],
) -> Result<Row> {
    let before = room.held()?;
    let totals = room.totals()?;
    witness.begin()?;
    let watch = room.watch();
    let outcomes = runtime.block_on(Forces::attack(ground, room.socket, forces, args.time()));
    let seen = witness.end()?;
    let peak = watch.end()?;
    let after = room.recovered(before)?;
    let refused = room.totals()?.since(&totals);
    Ok(Row { name, seen, before, peak, after, refused, outcomes })
}
