//! Many cuts of every kind, one after another, while packets are lost all the time.
//!
//! Users are allowed to send a share of their messages before each cut, so that all cuts fall while data is in
//! flight. The next cut comes when every user has heard something that was sent after the one before.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::ground::{Ground, Manner, Place};
use super::report::{Report, kept};
use super::words::{Order, PairStatus};
use crate::clock;

/// What was sent after a cut arrives within this, or the row fails.
const FOUND: Duration = Duration::from_secs(120);
/// Everything arrives within this after the last cut.
const SETTLED: Duration = Duration::from_secs(300);

/// How much of a storm.
#[derive(Debug, Clone, Args)]
pub(super) struct StormArgs {
    /// Pairs: the first user of each sends, the second answers calls.
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Messages of each pair.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Cuts; each hits every pair.
    #[arg(long, default_value_t = 200)]
    cuts: u64,
    /// Packets lost of a hundred, in both directions.
    #[arg(long, default_value_t = 10)]
    loss: u8,
}

/// What is done to the links of all pairs, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Direct links are reset; the way stays open.
    Reset,
    /// The direct way falls silent.
    Silence,
    /// Relayed links are reset.
    ResetCircuits,
    /// Relayed links fall silent for as long as it takes to get others.
    MuteCircuits,
    /// Every connection to the Room is reset.
    ResetRoom,
    /// The direct way opens, and relayed links are reset.
    Open,
    /// The direct way answers with resets.
    Refuse,
    /// The direct way opens; the users have to find out.
    OpenQuietly,
}

/// A round: each comes where its kind of link is likely to be in use.
const ROUND: [Cut; 10] = [
    Cut::Reset,
    Cut::Silence,
    Cut::ResetCircuits,
    Cut::MuteCircuits,
    Cut::Open,
    Cut::Refuse,
    Cut::ResetRoom,
    Cut::OpenQuietly,
    Cut::Reset,
    Cut::ResetRoom,
];

/// Runs the storm.
pub(super) fn measure(args: &StormArgs, report: &mut Report) -> Result<()> {
    let mut ground = Ground::build(Place::Lan, args.pairs, Manner::default())?;
    ground.foo_host.lose(args.loss)?;
    ground.bar_host.lose(args.loss)?;
    let began = clock::now();
    let mut changes = Changes::default();
    for cut in 0..args.cuts {
        let share = args.messages * (cut + 1) / args.cuts - args.messages * cut / args.cuts;
        let order = |messages| Order::Send {
            messages,
            every_us: 1_000,
            size: (16, 512),
            large_every: 500,
            call_every: 20,
        };
        ground.foo.tell(&order(share))?;
        ground.bar.tell(&order(share / 10))?;
        // About half of the share is on its way when the cut comes.
        thread::sleep(Duration::from_millis(share / 2));
        weather(&mut ground, ROUND[cut as usize % ROUND.len()], &mut changes)?;
    }
    let all = match ground.await_settled(SETTLED) {
        Ok(all) => all,
        Err(error) => {
            report.promise(false, || error.to_string());
            ground.look(0)?
        }
    };
    let took = began.elapsed().as_secs();
    let name = format!("{} pairs, {} cuts, {} % loss", args.pairs, args.cuts, args.loss);
    kept(report, &name, &all);
    let figures = [
        ("rung changes", json!(changes.count)),
        ("cuts that met no link", json!(changes.missed)),
        ("seconds", json!(took)),
    ];
    report.row("the same", &figures);
    let expected = (args.messages + args.messages / args.cuts / 10 * args.cuts) * args.pairs as u64;
    let sent: u64 = all.iter().map(|pair| pair.sent.messages).sum();
    report.promise(sent >= expected, || format!("only {sent} of {expected} messages were sent"));
    Ok(())
}

/// How often users found themselves on another kind of path, and how often there was nothing to cut: who has not
/// found the open way yet has no link there.
#[derive(Default)]
struct Changes {
    before: Vec<Option<String>>,
    count: u64,
    missed: u64,
}

impl Changes {
    fn met(&mut self, sockets: usize) {
        self.missed += u64::from(sockets == 0);
    }

    fn note(&mut self, all: &[PairStatus]) {
        let now: Vec<_> = all.iter().map(|pair| pair.rung.clone()).collect();
        if !self.before.is_empty() {
            let changed = self.before.iter().zip(&now).filter(|(before, now)| before != now);
            self.count += changed.count() as u64;
        }
        self.before = now;
    }
}

/// One cut, and the wait until everybody has heard something sent after it.
fn weather(ground: &mut Ground, cut: Cut, changes: &mut Changes) -> Result<()> {
    match cut {
        Cut::Reset => changes.met(ground.reset_direct()?),
        Cut::Silence => ground.silence(ground.ways())?,
        Cut::ResetCircuits => changes.met(ground.reset_circuits()?),
        Cut::MuteCircuits => changes.met(ground.mute_circuits()?),
        Cut::ResetRoom => changes.met(ground.reset_room()?),
        Cut::Open => {
            ground.unsilence(ground.ways())?;
            ground.reset_circuits()?;
        }
        Cut::Refuse => ground.refuse(ground.ways())?,
        Cut::OpenQuietly => ground.admit(ground.ways())?,
    }
    // A word each way, so that there is something to hear also if all else has arrived.
    let after = clock::monotonic();
    let word = Order::Send { messages: 1, every_us: 1_000, size: (16, 512), large_every: 0, call_every: 0 };
    ground.send(&word)?;
    let heard = |pair: &PairStatus| pair.taken.newest_sent > after;
    let all = ground.await_all(&format!("heard after {cut:?}"), FOUND, heard)?;
    changes.note(&all);
    if cut == Cut::MuteCircuits {
        ground.foo_host.unmute()?;
    }
    Ok(())
}
