//! A Room with many users that do nothing: its memory for each, and how fast they came.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parlor_user::protocol::wire::control::Credentials;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::args::{Args, Role};
use super::light::{Person, Way};
use super::machine;
use super::report::{Report, float};
use super::roles::numbered;
use crate::clock;

/// Users that log in at once.
const AT_ONCE: usize = 16;
/// How often the Room is looked at while it settles, and with how much of the CPU it has.
const LOOK: Duration = Duration::from_millis(500);
const SETTLED: f64 = 0.05;
/// It must have settled by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures a Room with `--users` users.
pub(super) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let users = args.users;
    let (room, address) = args.start(Role::Room, &[("users", &users.to_string())])?;
    let (way, runtime) = (Way::new(&address)?, args.runtime()?);
    // What the Room needs once, it has after the first.
    runtime.block_on(crowd(&way, "First", 0, 1))?;
    thread::sleep(LOOK);
    let (before, busy, started) =
        (machine::resident_kib(room.pid())?, machine::cpu(room.pid())?, clock::now());
    let crowd = runtime.block_on(crowd(&way, "Idle", 1, users))?;
    let took = started.elapsed().as_secs_f64();
    settle(room.pid())?;
    let busy = machine::cpu(room.pid())? - busy;
    let grown = machine::resident_kib(room.pid())?.saturating_sub(before);
    anyhow::ensure!(crowd.len() == users, "{} of {users} users are still there", crowd.len());
    report.figure(&format!("Room: for each of {users} users"), "KiB", float(grown) / float(users as u64));
    report.figure(&format!("{users} come"), "/s", float(users as u64) / took);
    report.figure("Room's CPU for each that came", "us", busy * 1e6 / float(users as u64));
    report.remark(&format!("the Room had {before} KiB before they came"));
    runtime.shutdown_background();
    Ok(())
}

/// Logs users in, a few at once, and keeps them.
async fn crowd(way: &Way, prefix: &str, first: usize, users: usize) -> Result<JoinSet<Result<()>>> {
    let mut here = JoinSet::new();
    let (there, mut came) = mpsc::channel(AT_ONCE);
    let (mut asked, mut come) = (0, 0);
    while come < users {
        while asked < users && asked - come < AT_ONCE {
            let mut person = Person::new(&numbered(prefix, asked), first + asked)?;
            let (way, there) = (way.clone(), there.clone());
            here.spawn(async move {
                let session = way.login(&mut person, Credentials::Open).await?;
                there.send(()).await?;
                drop(there);
                session.stay().await
            });
            asked += 1;
        }
        tokio::select! {
            _ = came.recv() => come += 1,
            Some(ended) = here.join_next() => ended?.context("a user could not stay")?,
        }
    }
    Ok(here)
}

/// Waits until the Room has said what it had to say.
fn settle(room: u32) -> Result<()> {
    let started = clock::now();
    while started.elapsed() < PATIENCE {
        let before = machine::cpu(room)?;
        thread::sleep(LOOK);
        if machine::cpu(room)? - before < SETTLED * LOOK.as_secs_f64() {
            return Ok(());
        }
    }
    anyhow::bail!("the Room is still busy {PATIENCE:?} after the last login")
}
