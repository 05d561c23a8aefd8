//! Logins a second into a Room with accounts: by password, which bcrypt bounds, and by ticket.

use std::time::Duration;

use anyhow::{Context as _, Result};
use parlor_user::protocol::wire::control::{Credentials, Secret};
use tokio::task::JoinSet;

use super::args::{Args, Role};
use super::light::{Person, Way};
use super::machine;
use super::report::{Report, Summary, float};
use super::roles::{ACCOUNT, PASSWORD, numbered};
use crate::clock;

/// Users that log in at once by password: more would wait for bcrypt.
const AT_ONCE: usize = 2;
/// Users that log in at once by ticket.
const BY_TICKET: usize = 16;
/// Accounts; each logs in again and again.
const ACCOUNTS: usize = 32;

/// Measures logins.
pub(super) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let (room, address) = args.start(Role::Room, &[("accounts", &ACCOUNTS.to_string())])?;
    let (way, runtime) = (Way::new(&address)?, args.runtime()?);
    let started = clock::now();
    let mut people = runtime.block_on(by_password(&way))?;
    let took = started.elapsed().as_secs_f64();
    report.figure("logins by password, cost 10", "/s", float(people.len() as u64) / took);
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for run in 0..=args.runs {
        let (busy, started) = (machine::cpu(room.pid())?, clock::now());
        let logins;
        (people, logins) = runtime.block_on(by_ticket(&way, people, args.time()))?;
        if run > 0 {
            rates.push(float(logins) / started.elapsed().as_secs_f64());
            costs.push((machine::cpu(room.pid())? - busy) * 1e6 / float(logins));
        }
    }
    report.row("logins by ticket", "/s", Summary::of(rates), &[]);
    report.row("Room's CPU for one by ticket", "us", Summary::of(costs), &[]);
    Ok(())
}

async fn by_password(way: &Way) -> Result<Vec<Person>> {
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let way = way.clone();
        workers.spawn(async move {
            let mut people = Vec::new();
            for number in (worker..ACCOUNTS).step_by(AT_ONCE) {
                let mut person = Person::new(&numbered(ACCOUNT, number), number)?;
                let password = Secret::new(PASSWORD.to_owned())?;
                way.login(&mut person, Credentials::Password(password)).await?;
                people.push(person);
            }
            anyhow::Ok(people)
        });
    }
    let mut people = Vec::new();
    while let Some(some) = workers.join_next().await {
        people.extend(some??);
    }
    Ok(people)
}

/// Everybody comes and goes until the time is up. Returns how often.
async fn by_ticket(way: &Way, mut people: Vec<Person>, time: Duration) -> Result<(Vec<Person>, u64)> {
    let (started, mut workers) = (clock::now(), JoinSet::new());
    let share = people.len().div_ceil(BY_TICKET);
    while !people.is_empty() {
        let mut own = people.split_off(people.len().saturating_sub(share));
        let way = way.clone();
        workers.spawn(async move {
            let (mut logins, mut turn) = (0, 0);
            while started.elapsed() < time {
                let person = &mut own[turn];
                let ticket = person.ticket.clone().context("a login brings a ticket")?;
                way.login(person, Credentials::Ticket(ticket)).await?;
                logins += 1;
                turn = (turn + 1) % own.len();
            }
            anyhow::Ok((own, logins))
        });
    }
    let mut logins = 0;
    while let Some(done) = workers.join_next().await {
        let (own, more) = done??;
        people.extend(own);
        logins += more;
    }
    Ok((people, logins))
}
