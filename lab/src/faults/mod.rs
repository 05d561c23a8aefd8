//! What users notice when links, paths, the Room or their peer fail: figures from real programs on real sockets.
//!
//! Every row has a Room (the program `parlor-room`), two processes of users that talk in pairs through the library
//! as any program does, and a network of namespaces between them in which this program breaks things. A row
//! says what was noticed, and fails if a promise was broken: it must be root to make networks.
//!
//! - `ground`: the Room, the talkers, and ways to break what is between them.
//! - `talkers`, `ledger`, `words`: the users, what has arrived, and what they are told.
//! - `storm`, `pauses`, `outages`, `crowd`, `stopped`, `calendars`: rows. `report`: how they are printed.

mod args;
mod calendars;
mod crowd;
mod ground;
mod ledger;
pub mod lines;
mod outages;
mod pauses;
mod report;
mod stopped;
mod storm;
mod talkers;
mod words;

use anyhow::{Result, bail};
use clap::Parser as _;

use self::args::{Args, What};
use self::report::Report;
use crate::netns::Lab;

/// Runs the program with the arguments of this process. False if a promise was broken.
pub fn main() -> Result<bool> {
    let args = Args::parse();
    if let What::Talkers(talkers) = &args.what {
        talkers::run(talkers)?;
        return Ok(true);
    }
    if let Err(why) = Lab::available() {
        bail!("{why}");
    }
    let mut report = Report::new(args.json);
    match &args.what {
        What::Talkers(_) => {}
        What::Stopped(stopped) => stopped::measure(stopped, &mut report)?,
        What::Storm(storm) => storm::measure(storm, &mut report)?,
        What::Pauses(pauses) => pauses::measure(pauses, &mut report)?,
        What::Climbs(climbs) => pauses::climbs(climbs, &mut report)?,
        What::Crowd(crowd) => crowd::measure(crowd, &mut report)?,
        What::Lines(lines) => lines::measure(lines, &mut report)?,
        What::Outages(outages) => outages::measure(outages, &mut report)?,
        What::Clock(clock) => calendars::measure(clock, &mut report)?,
    }
    Ok(report.finish())
}
