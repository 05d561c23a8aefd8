//! What the applications do: messages of several events and sizes, calls with and without patience, cancelled
//! calls, receipts asked for early and late, consumers that take their time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parlor_protocol::limits::UNACKED_USER;
use parlor_protocol::session::{Given, Placed};

use super::ledger::{CallNo, Ended, Lane, MessageNo};
use super::world::{What, World};
use crate::core::channel::PushError;
use crate::core::keeper::Phase;

/// The largest message, in bytes.
pub(super) const LARGEST: u64 = 200_000;
/// As in `conversation/mod.rs`.
pub(super) const ALWAYS: usize = 256 * 1024;
/// The lane of calls: they wait for room one behind another here.
const CALLS: u32 = 99;

#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    Send { len: usize, late_receipt: bool, last_word: bool },
    Call { timeout_ms: u32, answer: usize, cancel_after: Option<Duration> },
}

/// Application tasks that wait for a way or for room, by event.
#[derive(Default)]
pub(super) struct Senders {
    lanes: BTreeMap<u32, VecDeque<Task>>,
    working: bool,
    again: bool,
}

impl World {
    /// An application does something.
    pub(super) fn on_work(&mut self, user: usize) {
        if self.now >= self.heal_at {
            return;
        }
        let next = self.chance.ms(1, self.plan.pause_ms);
        self.schedule(self.now + next, What::Work { user });
        let Some(run) = self.users[user].process.as_ref().filter(|p| p.leaving.is_none()).map(|p| p.run)
        else {
            return;
        };
        let mut peer = self.chance.below(self.users.len() as u64 - 1) as usize;
        peer += usize::from(peer >= user);
        let count = if self.chance.one_in(4) { self.chance.between(2, 20) } else { 1 };
        for _ in 0..count {
            if self.chance.one_in(4) {
                let task = self.some_call();
                self.begin(user, run, peer, CALLS, task);
            } else {
                let event = self.chance.below(4) as u32;
                let len = self.some_length();
                let late_receipt = self.chance.one_in(3);
                self.begin(user, run, peer, event, Task::Send { len, late_receipt, last_word: false });
            }
        }
        if self.plan.floods && self.chance.one_in(6) {
            for _ in 0..60 {
                let task = Task::Send { len: LARGEST as usize, late_receipt: false, last_word: false };
                self.begin(user, run, peer, 1, task);
            }
        }
    }

    fn some_length(&mut self) -> usize {
        (match self.chance.below(20) {
            0 => 0,
            1..=13 => self.chance.between(8, 300),
            14..=16 => self.chance.between(300, 20_000),
            17 => self.chance.between(32_600, 32_800),
            18 => self.chance.between(20_000, 70_000),
            _ => self.chance.between(70_000, LARGEST),
        }) as usize
    }

    fn some_call(&mut self) -> Task {
        let timeout_ms =
            if self.chance.one_in(4) { 0 } else { self.chance.between(1, self.plan.patience_ms) as u32 };
        let answer = self.some_length();
        let cancel_after = if self.chance.one_in(6) { Some(self.chance.ms(0, 3000)) } else { None };
        Task::Call { timeout_ms, answer, cancel_after }
    }

    pub(super) fn execution(&mut self) -> Duration {
        if self.chance.one_in(3) { Duration::ZERO } else { self.chance.ms(0, 2000) }
    }

    /// How long the application takes for a message. Never, if it has stopped.
    pub(super) fn consumption(&mut self, user: usize) -> Option<Duration> {
        if self.plan.stopped.contains(&user) && self.now < self.heal_at {
            return None;
        }
        let slow = self.plan.slow_consumer == Some(user) && self.now < self.heal_at;
        let most = if slow { 20_000 } else { 20 };
        Some(self.chance.ms(0, most))
    }

    /// Applications that had stopped go on.
    pub(super) fn go_on(&mut self) {
        for user in std::mem::take(&mut self.plan.stopped) {
            let Some(process) = self.users[user].process.as_mut() else { continue };
            let run = process.run;
            let mut taken = Vec::new();
            for (peer, conversation) in &mut process.peers {
                taken.extend(conversation.stopped.drain(..).map(|(cost, session)| (*peer, cost, session)));
            }
            for (peer, cost, session) in taken {
                self.schedule(self.now, What::Consume { user, run, peer, cost, session });
            }
        }
    }

    /// Everybody says something to everybody who is there, and it must arrive.
    pub(super) fn last_words(&mut self) {
        for user in 0..self.users.len() {
            for peer in 0..self.users.len() {
                let here = |seat: usize, world: &Self| {
                    world.users[seat].process.as_ref().filter(|p| p.leaving.is_none()).map(|p| p.run)
                };
                if let (Some(run), Some(_), true) = (here(user, self), here(peer, self), user != peer) {
                    for event in 0..4 {
                        let task = Task::Send { len: 100, late_receipt: false, last_word: true };
                        self.begin(user, run, peer, event, task);
                    }
                    let task = Task::Call { timeout_ms: 60_000, answer: 10, cancel_after: None };
                    self.begin(user, run, peer, CALLS, task);
                }
            }
        }
    }

    pub(super) fn begin(&mut self, user: usize, run: u32, peer: usize, lane: u32, task: Task) {
        self.ensure_conversation(user, run, peer);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.senders.lanes.entry(lane).or_default().push_back(task);
        let phase = conversation.keeper.phase().clone();
        if phase != Phase::Ready {
            self.open(user, run, peer);
            // One who knows that the peer is offline is told so at once.
            self.phase_changed(user, run, peer);
        }
        self.work_on(user, run, peer);
    }

    /// Those who wait for a way learn what became of it.
    pub(super) fn phase_changed(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        match conversation.keeper.phase() {
            Phase::Failed(_) => {
                let mut last_words = false;
                for lane in conversation.senders.lanes.values_mut() {
                    let last = |task: &Task| matches!(task, Task::Send { last_word: true, .. });
                    last_words |= lane.iter().any(last);
                    lane.clear();
                }
                let why = conversation.keeper.phase().clone();
                assert!(!last_words, "{user} has no way to {peer} although nothing is wrong: {why:?}");
            }
            Phase::Closed if !conversation.senders.lanes.values().all(VecDeque::is_empty) => {
                self.open(user, run, peer);
            }
            Phase::Closed | Phase::Opening => {}
            Phase::Ready => self.work_later(user, run, peer),
        }
    }

    /// There is room again, or another link.
    pub(super) fn room_notified(&mut self, user: usize, run: u32, peer: usize) {
        self.answer_what_waits(user, run, peer);
        self.work_later(user, run, peer);
    }

    pub(super) fn work_later(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let idle = conversation.senders.lanes.values().all(VecDeque::is_empty);
        if !idle && !std::mem::replace(&mut conversation.senders.again, true) {
            self.schedule(self.now, What::WorkOn { user, run, peer });
        }
    }

    pub(super) fn work_on(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.senders.again = false;
        if std::mem::replace(&mut conversation.senders.working, true) {
            return;
        }
        let lanes: Vec<u32> = conversation.senders.lanes.keys().copied().collect();
        for lane in lanes {
            while self.work_on_one(user, run, peer, lane) {}
        }
        if let Some(conversation) = self.conversation(user, run, peer) {
            conversation.senders.working = false;
        }
    }

    fn work_on_one(&mut self, user: usize, run: u32, peer: usize, lane: u32) -> bool {
        let Some(conversation) = self.conversation(user, run, peer) else { return false };
        if *conversation.keeper.phase() != Phase::Ready {
            return false;
        }
        let Some(task) = conversation.senders.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
            return false;
        };
        let done = match task {
            Task::Send { len, late_receipt, last_word } => {
                self.send(user, run, peer, lane, len, late_receipt, last_word)
            }
            Task::Call { timeout_ms, answer, cancel_after } => {
                self.call(user, run, peer, timeout_ms, answer, cancel_after)
            }
        };
        if done {
            self.sent(user, run, peer);
        } else if let Some(conversation) = self.conversation(user, run, peer) {
            conversation.senders.lanes.entry(lane).or_default().push_front(task);
        }
        done
    }

    #[expect(clippy::too_many_arguments, reason = "what a task holds")]
    fn send(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        event: u32,
        len: usize,
        late_receipt: bool,
        last_word: bool,
    ) -> bool {
        let lane = Lane { from: (user, run), to: peer, event };
        let (number, name, body) = self.ledger.message(lane, len);
        let Some(conversation) = self.conversation(user, run, peer) else { return false };
        let session = conversation.session;
        let kept = conversation.kept;
        if kept >= ALWAYS && self.process(user, run).is_some_and(|p| p.kept >= UNACKED_USER) {
            return false;
        }
        let Some(conversation) = self.conversation(user, run, peer) else { return false };
        let pushed = conversation.channel.send(name.as_deref(), Given::Borrowed(&body));
        let placed = match pushed {
            Ok(placed) => placed,
            Err(PushError::Full(_)) => return false,
            Err(error) => panic!("{error}"),
        };
        self.ledger.sent(number, lane, len, session, self.now);
        if last_word {
            self.last_words.push(number);
        }
        if late_receipt {
            let at = self.now + self.chance.ms(0, 5000);
            self.schedule(at, What::Watch { user, run, peer, number, session, placed });
        } else {
            self.on_watch((user, run, peer), number, session, placed);
        }
        true
    }

    /// Somebody asks for a receipt, as `Conversation::delivered` does.
    pub(super) fn on_watch(
        &mut self,
        (user, run, peer): (usize, u32, usize),
        number: MessageNo,
        session: u64,
        placed: Placed,
    ) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        if conversation.session == session {
            if conversation.channel.watch(placed, number).is_some() {
                self.ledger.reported_delivered(number);
            }
            return;
        }
        match conversation.ended.iter().find(|(ended, _)| *ended == session) {
            Some((_, progress)) if progress.covers(placed) => self.ledger.reported_delivered(number),
            Some(_) | None => self.ledger.reported_interrupted(number, true),
        }
    }

    fn call(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        timeout_ms: u32,
        answer: usize,
        cancel_after: Option<Duration>,
    ) -> bool {
        let now = self.now;
        let (number, body) = self.ledger.call();
        let Some(conversation) = self.conversation(user, run, peer) else { return false };
        let made = conversation.channel.get(b"callback", timeout_ms, Given::Borrowed(&body), number, now);
        let call = match made {
            Ok(call) => call,
            Err((PushError::Full(_) | PushError::TooManyCalls, _)) => return false,
            Err((error, _)) => panic!("{error}"),
        };
        let sleeps_too_long = conversation.sleeps_too_long();
        let records = conversation.records;
        let due = (timeout_ms > 0).then(|| now + Duration::from_millis(timeout_ms.into()));
        self.ledger.calling(number, (user, run), peer, answer, due, records);
        if sleeps_too_long {
            self.look(user, run, peer);
        }
        if let Some(after) = cancel_after {
            self.schedule(self.now + after, What::Cancel { user, run, peer, call, number });
        }
        true
    }

    pub(super) fn on_cancel(&mut self, user: usize, run: u32, peer: usize, call: u32, number: CallNo) {
        if self.ledger.has_ended(number) {
            return;
        }
        let now = self.now;
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let maybe_executed = conversation.channel.cancel(call);
        let maybe_executed = maybe_executed.expect("a call that has not ended is under way");
        self.check_executed(user, run, peer, number, maybe_executed);
        self.ledger.call_ended(number, Ended::Cancelled { maybe_executed }, now);
        self.room_notified(user, run, peer);
        self.sent(user, run, peer);
    }
}
