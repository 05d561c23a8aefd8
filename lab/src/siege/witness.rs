//! Who means well: two pairs that talk, one directly and one through the Room's relay, and users that log in, one
//! of each kind after the other: the *known* have been there before, so that their accounts are bound to their
//! identities, and have lost their tickets; those with a *ticket* have kept it; and some come for the *first* time, from
//! where others are in or from *elsewhere*, where nobody has come from.
//!
//! They run in a process of their own, which says on stdout, as JSON, what they noticed between two lines on its
//! stdin.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parlor_user::{Inbox, Peer, Rung, User};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::args::Args;
use super::ground::from_elsewhere;
use crate::clock;
use crate::process::Program;

/// The password of every account.
pub(super) const PASSWORD: &str = "correct horse";
/// The users of the two pairs: direct, relayed.
pub(super) const TALKERS: [&str; 4] = ["Foo", "Bar", "Kay", "Lee"];
/// Between two messages of a pair: 10 a second.
const MESSAGE: Duration = Duration::from_millis(100);
/// Between two right logins.
const LOGIN: Duration = Duration::from_millis(400);
/// For what is under way to arrive when a siege has ended.
const LAST: Duration = Duration::from_secs(10);
/// The witness is ready, and answers, within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kinds of right logins.
pub(super) const LOGINS: [&str; 4] = ["known", "first", "elsewhere", "ticket"];
/// Accounts that have been used before the sieges: a known user's, and one's with a ticket.
const USED: usize = 2;

/// The name of the account of one right login.
pub(super) fn right(number: usize) -> String {
    format!("Right{number}")
}

/// The process of those who mean well.
pub(super) struct Witness(Program);

impl Witness {
    /// Starts it and waits until all talk.
    pub(super) fn start(room: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--witness", "--room", room]);
        let mut program = Program::start(command)?;
        program.line_where(PATIENCE, |line| line == "READY")?;
        Ok(Self(program))
    }

    /// From now on what is noticed counts.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.0.write(b"begin\n")
    }

    /// What was noticed since.
    pub(super) fn end(&mut self) -> Result<Value> {
        self.0.write(b"end\n")?;
        let line = self.0.line_where(PATIENCE, |line| line.starts_with('{'))?;
        serde_json::from_str(&line).with_context(|| format!("the witness said {line}"))
    }
}

/// Plays the witness until its stdin ends.
pub(super) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(watch(&args.room))
}

/// What was noticed, by each of the three.
#[derive(Default)]
struct Noticed {
    pairs: [Pair; 2],
    /// How long each kind took, in ms.
    logins: [Vec<f64>; LOGINS.len()],
    failed: Vec<String>,
    /// Whether logins begin now, and of which kinds one has begun.
    logging_in: bool,
    under_way: [bool; LOGINS.len()],
    /// Counts the times that what is noticed began to count.
    siege: u32,
}

/// Messages of a pair, which are numbered from 0 for as long as it talks.
#[derive(Default)]
struct Pair {
    /// The number of the next message.
    sent: u64,
    /// One more than the last that arrived.
    next: u64,
    /// The first that counts.
    from: u64,
    /// Since then, those that were skipped.
    lost: u64,
    /// Since then, how long each took that arrived, in ms.
    times: Vec<f64>,
}

impl Pair {
    /// From now on what is noticed counts.
    fn begin(&mut self) {
        (self.from, self.lost) = (self.sent, 0);
        self.times.clear();
    }

    /// A message has arrived. False if it came before, or after a later one.
    fn arrived(&mut self, number: u64, ms: f64) -> bool {
        let in_turn = number >= self.next;
        if in_turn {
            self.lost += number - self.next;
            self.next = number + 1;
        }
        if number >= self.from {
            self.times.push(ms);
        }
        in_turn
    }

    /// What was noticed of those below `end`.
    fn report(&mut self, end: u64) -> Value {
        let lost = self.lost + end.saturating_sub(self.next);
        json!({ "sent": end - self.from, "lost": lost, "ms": spread(std::mem::take(&mut self.times)) })
    }
}

type Shared = Arc<Mutex<Noticed>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Noticed> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(room: &str) -> Result<()> {
    let noticed = Shared::default();
    let mut tasks = JoinSet::new();
    let mut users = Vec::new();
    for (pair, rungs) in [Rung::ALL.to_vec(), vec![Rung::Relay]].into_iter().enumerate() {
        let [one, other] = [TALKERS[2 * pair], TALKERS[2 * pair + 1]];
        let (one, other) = (join(one, room, &rungs).await?, join(other, room, &rungs).await?);
        let base = clock::now();
        tasks.spawn(talk(one.peer(other.name().as_str())?, pair, base, Arc::clone(&noticed)));
        tasks.spawn(listen(other.inbox(), pair, base, Arc::clone(&noticed)));
        users.extend([one, other]);
    }
    let states = tempfile::tempdir()?;
    for number in 0..USED {
        enter(&right(number), room, Some(states.path())).await?;
    }
    for kind in 0..LOGINS.len() {
        tasks.spawn(log_in(kind, room.to_owned(), states.path().to_owned(), Arc::clone(&noticed)));
    }
    // The first messages find their paths.
    while lock(&noticed).pairs.iter().any(|pair| pair.times.len() < 5) {
        sleep(MESSAGE).await;
    }
    say("READY")?;
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        if line == "begin" {
            let mut noticed = lock(&noticed);
            let mut pairs = std::mem::take(&mut noticed.pairs);
            pairs.iter_mut().for_each(Pair::begin);
            let siege = noticed.siege + 1;
            *noticed = Noticed { pairs, logging_in: true, siege, ..Noticed::default() };
            continue;
        }
        let ends = {
            let mut noticed = lock(&noticed);
            noticed.logging_in = false;
            noticed.pairs.each_ref().map(|pair| pair.sent)
        };
        let deadline = clock::now() + LAST;
        while lock(&noticed).under_way.contains(&true) && clock::now() < deadline {
            sleep(MESSAGE / 10).await;
        }
        let all_there =
            |noticed: &Noticed| noticed.pairs.iter().zip(ends).all(|(pair, end)| pair.next >= end);
        while !all_there(&lock(&noticed)) && clock::now() < deadline {
            sleep(MESSAGE / 10).await;
        }
        let seen = lock(&noticed).report(ends);
        say(&seen.to_string())?;
    }
    Ok(())
}

impl Noticed {
    fn report(&mut self, ends: [u64; 2]) -> Value {
        let [direct, relayed] = [0, 1].map(|pair| self.pairs[pair].report(ends[pair]));
        let mut seen = json!({ "direct": direct, "relayed": relayed, "failed": self.failed });
        let logins = std::mem::take(&mut self.logins).into_iter().zip(self.under_way);
        for (kind, (times, under_way)) in LOGINS.into_iter().zip(logins) {
            let unfinished = u32::from(under_way);
            seen[kind] = json!({ "done": times.len(), "unfinished": unfinished, "ms": spread(times) });
        }
        seen
    }
}

async fn join(name: &str, room: &str, rungs: &[Rung]) -> Result<User> {
    let user = User::builder(name).ephemeral().room(room).password(PASSWORD).rungs(rungs);
    user.join().await.with_context(|| format!("{name} joins"))
}

/// Sends its number and the time at which each message was due, so that waiting to send counts, too.
async fn talk(peer: Peer, pair: usize, base: Instant, noticed: Shared) {
    let mut due = interval(MESSAGE);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let at = due.tick().await.into_std().saturating_duration_since(base);
        let number = {
            let pair = &mut lock(&noticed).pairs[pair];
            pair.sent += 1;
            pair.sent - 1
        };
        if let Err(error) = peer.send(&(number, micros(at))).await {
            lock(&noticed).failed.push(format!("a message: {error}"));
        }
    }
}

async fn listen(mut inbox: Inbox, pair: usize, base: Instant, noticed: Shared) {
    while let Some(message) = inbox.next().await {
        let now = micros(clock::now().saturating_duration_since(base));
        let mut noticed = lock(&noticed);
        let in_turn = message.decode::<(u64, u64)>().is_ok_and(|(number, due)| {
            noticed.pairs[pair].arrived(number, crate::bench::float(now.saturating_sub(due)) / 1e3)
        });
        if !in_turn {
            noticed.failed.push("a message came twice, late or damaged".to_owned());
        }
    }
}

/// One login of a kind after the other, during sieges: what the Room holds before and after is without them.
async fn log_in(kind: usize, room: String, states: PathBuf, noticed: Shared) {
    for number in 0.. {
        while !lock(&noticed).logging_in {
            sleep(MESSAGE).await;
        }
        let siege = {
            let mut noticed = lock(&noticed);
            noticed.under_way[kind] = true;
            noticed.siege
        };
        let (name, state) = match LOGINS[kind] {
            "known" => (right(0), Some(states.as_path())),
            "ticket" => (right(1), Some(states.as_path())),
            // Of those that come for the first time, each kind has every other account.
            first => (right(USED + 2 * number + usize::from(first == "elsewhere")), None),
        };
        let room = if LOGINS[kind] == "elsewhere" { from_elsewhere(&room, number) } else { room.clone() };
        if LOGINS[kind] == "known" {
            forget_tickets(&states.join(&name));
        }
        let entered = enter(&name, &room, state).await;
        {
            let mut noticed = lock(&noticed);
            // What began in an earlier siege was counted there.
            if noticed.siege == siege {
                noticed.under_way[kind] = false;
                match entered {
                    Ok(time) => noticed.logins[kind].push(time),
                    Err(error) => noticed.failed.push(format!("{}: {error:#}", LOGINS[kind])),
                }
            }
        }
        sleep(LOGIN).await;
    }
}

/// Logs in and leaves. How long the first of these took, in ms, with every attempt that the Room made necessary.
async fn enter(name: &str, room: &str, states: Option<&Path>) -> Result<f64> {
    let user = User::builder(name).room(room).password(PASSWORD);
    let user = match states {
        Some(states) => user.data(states.join(name)),
        None => user.ephemeral(),
    };
    let started = clock::now();
    let user = user.join().await.with_context(|| format!("{name} joins"))?;
    let time = started.elapsed().as_secs_f64() * 1e3;
    user.leave().await;
    Ok(time)
}

/// Removes every resume ticket below a directory.
fn forget_tickets(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget_tickets(&path);
        } else if entry.file_name().to_string_lossy().starts_with("ticket_") {
            // One that stays makes the next login a faster one of another kind.
            let _ = fs::remove_file(path);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Median, 99th percentile and the longest, in ms.
fn spread(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    json!({ "p50": at(50), "p99": at(99), "max": times.last() })
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The lines of stdin; their end is the end of this process.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(4);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_skipped_or_does_not_come_is_lost_and_none_of_before() {
        let mut pair = Pair { sent: 5, ..Pair::default() };
        assert!(pair.arrived(0, 1.0) && pair.arrived(3, 1.0));
        pair.begin();
        // One that was on its way.
        assert!(pair.arrived(4, 1.0));
        assert!(pair.arrived(5, 1.0) && pair.arrived(7, 1.0) && !pair.arrived(7, 1.0));
        let seen = pair.report(10);
        assert_eq!((&seen["sent"], &seen["lost"]), (&json!(5), &json!(3)));
    }
}
