//! Calendars that are set a day forward and back under the Room and the users: nothing that goes on may notice, and
//! who comes later, to a Room or a peer whose calendar is a day off, is let in and introduced as ever.
//!
//! Only the calendar is set, as an operator or a time server would: see [`Calendar`].

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::ground::{Ground, Manner, Place, ready, talkers};
use super::outages::UNNOTICED_MS;
use super::pauses::{is_on, stop_talking};
use super::report::{Report, kept, millis, times};
use super::words::{Order, PairStatus};
use crate::calendar::Calendar;
use crate::clock;
use crate::netns::Host;

/// Users talk for so long after each step: keepers, acknowledgements and the Room's gathering of changes come round.
const WATCHED: Duration = Duration::from_millis(1_200);
/// Everybody is back, and a first conversation under way, within this, or the row fails.
const BACK: Duration = Duration::from_secs(120);
/// What newcomers say to each other.
const FIRST_WORDS: u64 = 200;
/// Days from the machine's date of the Room, of Foo and of Bar, when users come back and newcomers meet.
const APART: [Days; 5] = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [1, -1, 0]];

/// Days from the machine's date: the Room's, Foo's, Bar's.
type Days = [i32; 3];

/// How many, and for how long.
#[derive(Debug, Clone, Args)]
pub(super) struct ClockArgs {
    /// Pairs on each kind of path.
    #[arg(long, default_value_t = 4)]
    pairs: usize,
    /// Seconds for which they talk with calendars that are two days apart.
    #[arg(long, default_value_t = 20)]
    apart_s: u64,
}

/// Whose calendar is set.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Room,
    Foo,
    Bar,
    Everybodys,
}

impl Whose {
    fn days(self, days: i32) -> Days {
        match self {
            Self::Room => [days, 0, 0],
            Self::Foo => [0, days, 0],
            Self::Bar => [0, 0, days],
            Self::Everybodys => [days; 3],
        }
    }
}

/// The calendars of a [`Ground`]'s programs.
pub(super) struct Calendars {
    pub(super) room: Calendar,
    pub(super) foo: Calendar,
    pub(super) bar: Calendar,
}

impl Calendars {
    fn new() -> Result<Self> {
        Ok(Self { room: Calendar::new()?, foo: Calendar::new()?, bar: Calendar::new()? })
    }

    fn set(&self, days: Days) -> Result<()> {
        let calendars = [&self.room, &self.foo, &self.bar];
        calendars.into_iter().zip(days).try_for_each(|(calendar, days)| calendar.set_days(days))
    }
}

/// Runs the relayed pairs, then the direct ones.
pub(super) fn measure(args: &ClockArgs, report: &mut Report) -> Result<()> {
    for (relay_only, rung) in [(true, "relay"), (false, "lan")] {
        let calendars = Calendars::new()?;
        let manner = Manner { relay_only, ..Manner::default() };
        let mut ground = Ground::build_by(Place::Lan, args.pairs, manner, Some(&calendars))?;
        ground.send(&talking(1 << 40))?;
        ground.await_all(rung, BACK, |pair| is_on(pair, rung) && pair.taken.delivered > 0)?;
        step(&mut ground, &calendars, rung, report)?;
        stay_apart(args, &mut ground, &calendars, rung, report)?;
        come_back_and_meet(&mut ground, &calendars, relay_only, report)?;
        stop_talking(&mut ground, report, &format!("calendars set, {rung}"))?;
    }
    Ok(())
}

fn talking(messages: u64) -> Order {
    Order::Send { messages, every_us: 2_000, size: (256, 1024), large_every: 50, call_every: 25 }
}

/// Each calendar alone and then all of them: a day forward, back, a day back, forward again.
fn step(ground: &mut Ground, calendars: &Calendars, rung: &str, report: &mut Report) -> Result<()> {
    let mut pauses = Vec::new();
    let mut steps = 0;
    for whose in [Whose::Room, Whose::Foo, Whose::Bar, Whose::Everybodys] {
        for days in [1, 0, -1, 0] {
            thread::sleep(WATCHED / 4);
            let (before, then) = (clock::monotonic(), ground.look(u64::MAX)?);
            calendars.set(whose.days(days))?;
            let after = clock::monotonic();
            show(ground, whose.days(days))?;
            thread::sleep(WATCHED);
            let now = ground.look(before)?;
            pauses.extend(now.iter().map(|pair| pair.pause));
            steps += 1;
            for (then, now) in then.iter().zip(&now) {
                let undisturbed = is_on(now, rung) && now.room_is_up && now.control_port == then.control_port;
                let goes_on = now.taken.newest_sent > after && now.sent.answered > then.sent.answered;
                report.promise(undisturbed && goes_on, || {
                    format!("{rung}, {whose:?} set to {days:+} days: {then:?} became {now:?}")
                });
            }
        }
    }
    unnoticed(report, &format!("{steps} steps by a day, {rung}: pause"), pauses);
    Ok(())
}

/// The calendars of the users' programs show what they were set to, or nothing here is shown.
fn show(ground: &mut Ground, [_, foo, bar]: Days) -> Result<()> {
    for (talkers, days) in [(&mut ground.foo, foo), (&mut ground.bar, bar)] {
        let shown = talkers.tell(&Order::Look { since: u64::MAX })?.calendar;
        shows(shown, days)?;
    }
    Ok(())
}

/// A program's calendar is so many days from the machine's.
fn shows(calendar: u64, days: i32) -> Result<()> {
    let away = calendar.cast_signed() - clock::calendar().cast_signed() - i64::from(days) * 86_400;
    anyhow::ensure!(away.abs() < 60, "a calendar that was to be {days} days off is {away} s beside that");
    Ok(())
}

/// A pause must not be longer than what a busy machine makes of none.
fn unnoticed(report: &mut Report, name: &str, pauses: Vec<u64>) {
    let most = millis(pauses.iter().copied().max().unwrap_or(u64::MAX));
    report.row(name, &times(pauses));
    report.promise(most < UNNOTICED_MS, || format!("{name}: a pair paused for {most} ms"));
}

/// They go on for a while with calendars two days apart: what is asked for every few seconds comes round.
fn stay_apart(
    args: &ClockArgs,
    ground: &mut Ground,
    calendars: &Calendars,
    rung: &str,
    report: &mut Report,
) -> Result<()> {
    let before = clock::monotonic();
    calendars.set([1, -1, 0])?;
    thread::sleep(Duration::from_secs(args.apart_s));
    let pauses = ground.look(before)?.iter().map(|pair| pair.pause).collect();
    unnoticed(report, &format!("two days apart for {} s, {rung}: pause", args.apart_s), pauses);
    calendars.set([0; 3])
}

/// The Room is killed and comes back, everybody with it, and two users that never met talk to each other.
fn come_back_and_meet(
    ground: &mut Ground,
    calendars: &Calendars,
    relay_only: bool,
    report: &mut Report,
) -> Result<()> {
    let (mut returns, mut meetings, mut newcomers) = (Vec::new(), Vec::new(), Vec::new());
    for (number, days) in APART.into_iter().enumerate() {
        calendars.set(days)?;
        ground.kill_room()?;
        ground.start_room()?;
        if let Some(room) = &ground.room {
            shows(room.status()?["started"].as_u64().context("a Room says since when it runs")?, days[0])?;
        }
        let after = clock::monotonic();
        let is_back = |pair: &PairStatus| pair.room_is_up && pair.taken.newest_sent > after;
        ground.await_all(&format!("back with calendars at {days:?}"), BACK, is_back)?;
        returns.push(clock::monotonic() - after);
        let (met, statuses) = meet(ground, calendars, number, relay_only)?;
        meetings.push(met);
        newcomers.extend(statuses);
    }
    let rung = if relay_only { "relay" } else { "lan" };
    report.row(&format!("Room killed under calendars apart, {rung}: all back"), &times(returns));
    report.row(&format!("first words under calendars apart, {rung}"), &times(meetings));
    kept(report, &format!("newcomers under calendars apart, {rung}"), &newcomers);
    let said = newcomers.iter().map(|pair| pair.sent.messages).sum::<u64>();
    report.row("of newcomers", &[("meetings", json!(APART.len())), ("messages", json!(said))]);
    Ok(())
}

/// Two programs of one user each come into the room and talk: how long from the word to do so until both had heard
/// something, and how they stand when all is said.
fn meet(
    ground: &Ground,
    calendars: &Calendars,
    number: usize,
    relay_only: bool,
) -> Result<(u64, Vec<PairStatus>)> {
    let room = &ground.room.as_ref().context("the Room is there")?.address;
    let begin = |host: &Host, own: &str, other: &str, calendar: &Calendar| {
        let mut command = talkers(host, &format!("{own}{number}-"), &format!("{other}{number}-"))?;
        command.args(["--room", room, "--pairs", "1"]).envs(calendar.environment());
        if relay_only {
            command.arg("--relay-only");
        }
        ready(command)
    };
    let mut pair = [
        begin(&ground.foo_host, "Early", "Late", &calendars.foo)?,
        begin(&ground.bar_host, "Late", "Early", &calendars.bar)?,
    ];
    let told = clock::monotonic();
    for one in &mut pair {
        one.tell(&talking(FIRST_WORDS))?;
    }
    let mut heard = None;
    loop {
        let mut all = Vec::new();
        for one in &mut pair {
            all.extend(one.look()?);
        }
        let waited = clock::monotonic() - told;
        if all.iter().all(|one| one.taken.delivered > 0) {
            heard.get_or_insert(waited);
        }
        let done = |one: &PairStatus| one.taken.delivered == FIRST_WORDS && one.sent.is_settled();
        if let Some(heard) = heard
            && all.iter().all(done)
        {
            return Ok((heard, all));
        }
        anyhow::ensure!(u128::from(waited) < BACK.as_nanos(), "two that never met do not talk: {all:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
