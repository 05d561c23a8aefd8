//! The Room is killed again and again while pairs talk: relayed ones pause, direct ones do not notice.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::ground::{Ground, Manner, Place};
use super::pauses::{is_on, start_talking, stop_talking};
use super::report::{Report, times};
use super::words::PairStatus;
use crate::clock;

/// Everybody is back within this, or the row fails.
const BACK: Duration = Duration::from_secs(120);
/// Everybody talks undisturbed for so long before each kill.
const QUIET: Duration = Duration::from_millis(500);
/// A direct conversation must not pause longer than this, in milliseconds: a scheduler's whim on two busy CPUs.
pub(super) const UNNOTICED_MS: f64 = 250.0;

/// How often, and for how long.
#[derive(Debug, Clone, Args)]
pub(super) struct OutagesArgs {
    /// Pairs on each kind of path.
    #[arg(long, default_value_t = 4)]
    pairs: usize,
    /// How often the Room is killed.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// How long it stays away, in milliseconds.
    #[arg(long, default_value_t = 200)]
    away_ms: u64,
}

/// Runs the relayed pairs, then the direct ones.
pub(super) fn measure(args: &OutagesArgs, report: &mut Report) -> Result<()> {
    for (relay_only, rung) in [(true, "relay"), (false, "lan")] {
        let manner = Manner { relay_only, ..Manner::default() };
        let mut ground = Ground::build(Place::Lan, args.pairs, manner)?;
        start_talking(&mut ground, 2_000, rung)?;
        let (mut pauses, mut returns) = (Vec::new(), Vec::new());
        for _ in 0..args.kills {
            thread::sleep(QUIET);
            let before = clock::monotonic();
            ground.kill_room()?;
            thread::sleep(Duration::from_millis(args.away_ms));
            ground.start_room()?;
            let after = clock::monotonic();
            let is_back =
                |pair: &PairStatus| pair.room_is_up && is_on(pair, rung) && pair.taken.newest_sent > after;
            ground.await_all("back after the Room's end", BACK, is_back)?;
            returns.push(clock::monotonic() - after);
            pauses.extend(ground.look(before)?.iter().map(|pair| pair.pause));
        }
        let name = format!("Room killed {} times, {rung}", args.kills);
        let figures = times(pauses);
        report.row(&format!("{name}: pause"), &figures);
        report.row(&format!("{name}: all back"), &times(returns));
        if rung == "lan" {
            let most = figures[3].1.as_f64().unwrap_or(f64::INFINITY);
            report.promise(most < UNNOTICED_MS, || format!("{name}: a direct pair paused {most} ms"));
        }
        stop_talking(&mut ground, report, &name)?;
    }
    Ok(())
}
