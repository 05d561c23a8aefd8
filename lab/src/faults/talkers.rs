//! A process of users, each of which talks to its counterpart in another such process.
//!
//! They use the library as any program does. Orders come on stdin, answers go to stdout; the end of stdin ends
//! the process.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use parlor_user::{Inbox, Peer, Receipt, Rung, Step, User, UserBuilder};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::ledger::{Ledger, Note};
use super::words::{Order, PairStatus, Sent, Status};
use crate::clock;

/// Body of a large message, in bytes: it goes in pieces.
const LARGE: usize = 64 * 1024;
/// Calls of one user under way at once.
const CALLS: usize = 64;
/// A call that takes longer than this has failed.
const CALL: Duration = Duration::from_secs(300);
/// Receipts of one user that wait.
const RECEIPTS: usize = 65_536;
/// A message that was not taken for sending is tried again after this long.
const AGAIN: Duration = Duration::from_millis(20);
/// A sender that fell behind its pace by more than this makes up for no more.
const BEHIND: Duration = Duration::from_millis(100);
/// Users that log in at once; the Room lets 8 of one address, and checks 2 passwords of one.
const LOGINS: usize = 2;
/// A user whose first login fails tries so often again. Each gives a busy Room half a minute.
const TRIES: usize = 10;
/// The callback that runs once for each call.
const ONCE: &str = "once";

/// Who talks, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct TalkersArgs {
    /// The Room's address.
    #[arg(long)]
    room: String,
    /// The first part of these users' names; a number follows.
    #[arg(long)]
    own: String,
    /// The first part of their counterparts' names.
    #[arg(long)]
    other: String,
    /// The number of the first of these users.
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// The password of each.
    #[arg(long)]
    password: Option<String>,
    /// How many users.
    #[arg(long)]
    pairs: usize,
    /// What their local network is called.
    #[arg(long, default_value = "Default")]
    lan_id: String,
    /// The address under which they can be reached from outside.
    #[arg(long)]
    public_ip: Option<IpAddr>,
    /// They take no path but the relay.
    #[arg(long)]
    relay_only: bool,
    /// They never take what is sent to them: a handler that does not return.
    #[arg(long)]
    stuck: bool,
}

/// Plays the talkers until stdin ends.
pub(super) fn run(args: &TalkersArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(talk(args));
    // A handler that never returns must not hold the process.
    runtime.shutdown_background();
    done
}

async fn talk(args: &TalkersArgs) -> Result<()> {
    let mut joining = JoinSet::new();
    let mut talkers = Vec::new();
    for number in args.first..args.first + args.pairs {
        if joining.len() == LOGINS
            && let Some(joined) = joining.join_next().await
        {
            talkers.push(joined??);
        }
        joining.spawn(Talker::join(args.clone(), number));
    }
    while let Some(joined) = joining.join_next().await {
        talkers.push(joined??);
    }
    talkers.sort_by_key(|talker| talker.number);
    let mut orders = orders();
    say("READY")?;
    while let Some(order) = orders.recv().await {
        let order: Order = serde_json::from_str(&order).context("an order")?;
        let since = if let Order::Look { since } = &order { *since } else { u64::MAX };
        for talker in &talkers {
            talker.obey(&order);
        }
        let pairs = talkers.iter().map(|talker| talker.status(since)).collect();
        let story = match order {
            Order::Explain { pair } => talkers.get(pair).map(Talker::story).unwrap_or_default(),
            _ => Vec::new(),
        };
        say(&serde_json::to_string(&Status { pairs, calendar: clock::calendar(), story })?)?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The lines of stdin.
fn orders() -> mpsc::Receiver<String> {
    let (sender, orders) = mpsc::channel(4);
    // Ends with stdin or with the receiver.
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    orders
}

/// One user and its counterpart.
struct Talker {
    number: usize,
    user: User,
    peer: Peer,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    work: Mutex<Work>,
    more: Notify,
    ledger: Mutex<Ledger>,
    sent: Mutex<Sent>,
    /// How often each call of the other has run.
    ran: Mutex<HashMap<u64, u32>>,
    holds: AtomicBool,
    takes: Notify,
}

/// What is still to be sent.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    messages: u64,
    every: Duration,
    size: (usize, usize),
    large_every: u64,
    call_every: u64,
    /// One of them is being handed over.
    handing: bool,
}

impl Work {
    /// The next message is to be handed over now. `None`: there is none.
    fn begin(&mut self) -> Option<Self> {
        self.handing = self.messages > 0;
        self.handing.then_some(*self)
    }

    /// It was handed over and counted.
    fn end(&mut self) {
        (self.messages, self.handing) = (self.messages.saturating_sub(1), false);
    }

    fn is_done(self) -> bool {
        self.messages == 0 && !self.handing
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Talker {
    async fn join(args: TalkersArgs, number: usize) -> Result<Self> {
        let state = Arc::new(State::default());
        let mut tries = TRIES;
        let user = loop {
            match builder(&args, number, &state).join().await {
                Ok(user) => break user,
                // A Room that has many passwords to check, or packets that are lost.
                Err(_) if tries > 0 => tries -= 1,
                Err(error) => return Err(error.into()),
            }
        };
        let peer = user.peer(format!("{}{number}", args.other))?;
        let mut tasks = JoinSet::new();
        let (receipts, waiting) = mpsc::channel(RECEIPTS);
        tasks.spawn(Arc::clone(&state).send(peer.clone(), receipts));
        tasks.spawn(Arc::clone(&state).settle(waiting));
        if !args.stuck {
            tasks.spawn(Arc::clone(&state).take(user.inbox()));
        }
        Ok(Self { number, user, peer, state, _tasks: tasks })
    }

    fn obey(&self, order: &Order) {
        match *order {
            Order::Send { messages, every_us, size, large_every, call_every } => {
                let every = Duration::from_micros(every_us);
                let mut work = lock(&self.state.work);
                let messages = work.messages.saturating_add(messages);
                *work = Work { messages, every, size, large_every, call_every, handing: work.handing };
                self.state.more.notify_one();
            }
            Order::Hush => lock(&self.state.work).messages = 0,
            Order::Look { .. } | Order::Explain { .. } => {}
            Order::Hold => self.state.holds.store(true, Ordering::SeqCst),
            Order::Take => {
                self.state.holds.store(false, Ordering::SeqCst);
                self.state.takes.notify_one();
            }
        }
    }

    fn story(&self) -> Vec<String> {
        let line = |step: Step| {
            let rung = step.rung.map_or_else(|| "-".to_owned(), |rung| rung.to_string());
            format!("{:>9.3} s ago  {rung:<9} {}", step.ago.as_secs_f64(), step.what)
        };
        self.peer.explain().into_iter().map(line).collect()
    }

    fn status(&self, since: u64) -> PairStatus {
        let ledger = lock(&self.state.ledger);
        let (taken, pause) = (ledger.tally(), ledger.longest_pause(since));
        drop(ledger);
        let ran = lock(&self.state.ran);
        // Before what was sent is looked at: what was handed over by then is counted there.
        let all_sent = lock(&self.state.work).is_done();
        PairStatus {
            all_sent,
            rung: self.peer.path().map(|path| path.rung.to_string()),
            room_is_up: self.user.room_is_up(),
            control_port: self.user.observed_address().port(),
            sent: lock(&self.state.sent).clone(),
            taken,
            pause,
            ran: ran.len() as u64,
            ran_again: ran.values().map(|&times| u64::from(times) - 1).sum(),
        }
    }
}

fn builder(args: &TalkersArgs, number: usize, state: &Arc<State>) -> UserBuilder {
    let name = format!("{}{number}", args.own);
    let mut builder = User::builder(&name).ephemeral().room(&args.room).lan_id(&args.lan_id);
    if let Some(address) = args.public_ip {
        builder = builder.public_ip(address);
    }
    if let Some(password) = &args.password {
        builder = builder.password(password);
    }
    if args.relay_only {
        builder = builder.rungs(&[Rung::Relay]);
    }
    if args.stuck {
        builder = builder.on_send("notes", |_, _: Note| std::future::pending());
    }
    let state = Arc::clone(state);
    builder.on_get(ONCE, move |_, call: u64| {
        *lock(&state.ran).entry(call).or_default() += 1;
        async move { Ok::<_, String>(call + 1) }
    })
}

impl State {
    /// Sends what there is to send, at its pace.
    async fn send(self: Arc<Self>, peer: Peer, receipts: mpsc::Sender<Receipt>) {
        let (mut calls, places) = (JoinSet::new(), Arc::new(Semaphore::new(CALLS)));
        let (mut number, mut next) = (0, clock::now());
        loop {
            let Some(work) = lock(&self.work).begin() else {
                self.more.notified().await;
                continue;
            };
            next = (next + work.every).max(clock::now().checked_sub(BEHIND).unwrap_or(next));
            sleep_until(next.into()).await;
            let Some(receipt) = self.send_one(&peer, number, work).await else { continue };
            number += 1;
            lock(&self.sent).messages += 1;
            if receipts.send(receipt).await.is_err() {
                return;
            }
            if work.call_every > 0 && number % work.call_every == 0 {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (this, peer) = (Arc::clone(&self), peer.clone());
                lock(&self.sent).calls += 1;
                calls.spawn(async move {
                    this.call(&peer, number).await;
                    drop(place);
                });
                while calls.try_join_next().is_some() {}
            }
            lock(&self.work).end();
        }
    }

    /// `None`: it was not taken, and is to be tried again.
    async fn send_one(&self, peer: &Peer, number: u64, work: Work) -> Option<Receipt> {
        let large = work.large_every > 0 && number % work.large_every == work.large_every - 1;
        // Any size in the range, the same each time.
        let (from, to) = work.size;
        let spread = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize % (to - from + 1);
        let size = if large { LARGE } else { from + spread };
        match peer.send_to("notes", &Note::new(number, clock::monotonic(), size)).await {
            Ok(receipt) => Some(receipt),
            Err(error) => {
                self.note(|sent| sent.refused += 1, &error);
                sleep(AGAIN).await;
                None
            }
        }
    }

    async fn call(&self, peer: &Peer, number: u64) {
        match peer.get::<_, u64>(ONCE, &number).timeout(CALL).await {
            Ok(answer) if answer == number + 1 => lock(&self.sent).answered += 1,
            Ok(answer) => self.note(|sent| sent.failed += 1, &format!("{number} was answered {answer}")),
            Err(error) => self.note(|sent| sent.failed += 1, &error),
        }
    }

    fn note(&self, what: impl FnOnce(&mut Sent), error: &dyn std::fmt::Display) {
        let mut sent = lock(&self.sent);
        what(&mut sent);
        sent.error.get_or_insert_with(|| error.to_string());
    }

    /// Waits for receipts, oldest first.
    async fn settle(self: Arc<Self>, mut receipts: mpsc::Receiver<Receipt>) {
        while let Some(receipt) = receipts.recv().await {
            match receipt.delivered().await {
                Ok(()) => lock(&self.sent).delivered += 1,
                Err(error) => self.note(|sent| sent.interrupted += 1, &error),
            }
        }
    }

    /// Takes what comes.
    async fn take(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(message) = inbox.next().await {
            match message.decode::<Note>() {
                Ok(note) => lock(&self.ledger).take(&note, clock::monotonic()),
                Err(error) => self.note(|_| (), &error),
            }
            while self.holds.load(Ordering::SeqCst) {
                self.takes.notified().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_being_handed_over_is_still_to_come_whatever_was_ordered_meanwhile() {
        let mut work = Work { messages: 2, ..Work::default() };
        assert!(work.begin().is_some() && !work.is_done());
        work.messages = 0;
        assert!(!work.is_done());
        work.end();
        assert!(work.is_done());
        work.messages = 1;
        // One that was not taken, and is not to be tried again.
        assert!(work.begin().is_some());
        work.messages = 0;
        assert!(work.begin().is_none() && work.is_done());
    }
}
