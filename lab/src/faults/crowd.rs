//! A thousand users with passwords, and a Room that goes and comes back: how long until all are in again, and how
//! many passwords the Room had to check for it.
//!
//! Users come from several hosts, as many do from several offices: the Room lets few from one address log in at
//! the same moment.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::ground::{Talkers, ready, talkers};
use super::report::{Report, times};
use crate::clock;
use crate::netns::{Host, Lab};
use crate::programs::{PATIENCE, RoomProgram, RoomSetup, Stage};

/// The Room writes its tickets every 5 s; a login before that is known to it afterwards.
const TICKETS_KEPT: Duration = Duration::from_secs(7);
/// All are back within this, or the row fails.
const BACK: Duration = Duration::from_secs(180);
/// The end of a process is noticed at once; by a thousand users on a busy machine within this.
const NOTICED: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// The password of every account.
const PASSWORD: &str = "123456";
/// Its hash, made by another program.
const HASH: &str = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";

/// How large a crowd.
#[derive(Debug, Clone, Args)]
pub(super) struct CrowdArgs {
    /// Users.
    #[arg(long, default_value_t = 1_000)]
    users: usize,
    /// Hosts from which they come.
    #[arg(long, default_value_t = 10)]
    hosts: usize,
    /// How the Room goes; both unless given.
    #[arg(value_enum)]
    ends: Vec<End>,
}

/// How a Room goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum End {
    /// At once, without a word.
    Killed,
    /// In order: it tells everybody when to come back.
    Stopped,
}

/// Measures each end.
pub(super) fn measure(args: &CrowdArgs, report: &mut Report) -> Result<()> {
    let ends = if args.ends.is_empty() { End::value_variants() } else { &args.ends };
    let (mut lab, stage) = (Lab::new()?, Stage::new()?);
    let switch = lab.switch("net")?;
    let room_host = lab.host("room")?;
    room_host.plug(&switch, "10.7.0.1/16")?;
    let setup = accounts(&stage, &room_host, args.users)?;
    let mut room = setup.clone().start()?;
    let mut crowd = Vec::new();
    let began = clock::now();
    for number in 0..args.hosts {
        let host = lab.host(&format!("office{number}"))?;
        host.plug(&switch, &format!("10.7.{}.2/16", number + 1))?;
        let from = args.users * number / args.hosts;
        let users = args.users * (number + 1) / args.hosts - from;
        let mut command = talkers(&host, "User", "Nobody")?;
        command.args(["--room", &room.address, "--pairs", &users.to_string()]);
        command.args(["--first", &from.to_string(), "--password", PASSWORD]);
        crowd.push(ready(command)?);
    }
    let joined = began.elapsed().as_secs();
    let first = room.status()?;
    report.row(
        &format!("{} users log in by password", args.users),
        &[("seconds", json!(joined)), ("bcrypt", total(&first, "passwords_checked")?)],
    );
    for &end in ends {
        thread::sleep(TICKETS_KEPT);
        room = come_and_go(args, end, room, &mut crowd, report)?;
    }
    drop(crowd);
    room.program.terminate(PATIENCE)?;
    Ok(())
}

/// A Room with so many accounts.
fn accounts(stage: &Stage, host: &Host, users: usize) -> Result<RoomSetup> {
    let mut config = String::from("[accounts]\n");
    for number in 0..users {
        writeln!(config, "User{number} = \"{HASH}\"")?;
    }
    let config = stage.file("room.toml", &config)?;
    Ok(stage.room("room").on(host).listen("10.7.0.1:2428").arg("--config").arg(config))
}

fn total(status: &Value, name: &str) -> Result<Value> {
    status["totals"].get(name).cloned().with_context(|| format!("the status has no total {name}"))
}

/// How many have a Room.
fn up(crowd: &mut [Talkers]) -> Result<usize> {
    crowd.iter_mut().map(|talkers| Ok(talkers.look()?.iter().filter(|user| user.room_is_up).count())).sum()
}

fn come_and_go(
    args: &CrowdArgs,
    end: End,
    room: RoomProgram,
    crowd: &mut [Talkers],
    report: &mut Report,
) -> Result<RoomProgram> {
    let setup = room.setup.clone();
    match end {
        End::Killed => room.program.kill()?,
        End::Stopped => drop(room.program.terminate(PATIENCE)?),
    }
    // Who has not noticed yet would be taken for somebody who is back.
    let gone = clock::now();
    while up(crowd)? > 0 {
        ensure!(
            gone.elapsed() < NOTICED,
            "not everybody has noticed after {NOTICED:?} that the Room is gone"
        );
        thread::sleep(LOOK);
    }
    let room = setup.start()?;
    let began = clock::monotonic();
    let mut back: Vec<u64> = Vec::new();
    while back.len() < args.users {
        let up = up(crowd)?;
        let waited = clock::monotonic() - began;
        back.resize(up.max(back.len()), waited);
        ensure!(waited < BACK.as_nanos() as u64, "{} of {} are back after {BACK:?}", back.len(), args.users);
        thread::sleep(LOOK);
    }
    let status = room.status()?;
    let name =
        format!("{} users back, Room {}", args.users, if end == End::Killed { "killed" } else { "stopped" });
    report.row(&name, &times(back));
    let checks = total(&status, "passwords_checked")?;
    let resumed = total(&status, "resumed")?;
    report.promise(checks == 0, || format!("{name}: the Room checked {checks} passwords"));
    let online = status["users"].as_array().map_or(0, Vec::len);
    report.promise(online == args.users, || format!("{name}: {online} are online"));
    report.row(&name, &[("bcrypt", checks), ("by ticket", resumed), ("online", json!(online))]);
    Ok(room)
}
