//! What can be said on the command line.

use clap::{Parser, Subcommand};

use super::calendars::ClockArgs;
use super::crowd::CrowdArgs;
use super::lines::LinesArgs;
use super::outages::OutagesArgs;
use super::pauses::{ClimbsArgs, PausesArgs};
use super::stopped::StoppedArgs;
use super::storm::StormArgs;
use super::talkers::TalkersArgs;

/// Breaks links, paths, the Room and peers under real programs, and prints what their users noticed.
#[derive(Debug, Parser)]
#[command(name = "parlor-faults", version)]
pub(super) struct Args {
    /// Print one JSON object instead of a table.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) what: What,
}

/// What is broken.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Many cuts of every kind under loss: what is lost, repeated, out of order.
    Storm(StormArgs),
    /// How long a conversation pauses when its path is cut, for each kind of path and cut.
    Pauses(PausesArgs),
    /// How long after a better path works it is used, and how long the conversation pauses for the move.
    Climbs(ClimbsArgs),
    /// The Room is killed again and again under load.
    Outages(OutagesArgs),
    /// The calendars of the Room and of users are set a day forward and back under load. Needs libfaketime.
    Clock(ClockArgs),
    /// A thousand users and a Room that goes and comes back.
    Crowd(CrowdArgs),
    /// A receiver that takes nothing, and a gigabyte offered to it.
    Stopped(StoppedArgs),
    /// `parlor send -` through cuts and killed Rooms: every line is printed once, in order.
    Lines(LinesArgs),
    /// The other processes of a row.
    #[command(hide = true)]
    Talkers(TalkersArgs),
}
